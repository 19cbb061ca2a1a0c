"""The layers: a file imports only from the layers above its own, and nobody imports the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE_DIR = Path(__file__).parents[1] / "emoface"

LAYERS = (
    ("errors", "schema", "progress", "prefetch", "ray_tasks", "worker_processes", "version"),
    ("vision", "labels", "metrics", "simulator"),
    ("storage", "emotic", "annotations", "datasets", "reporting", "auditing", "pipeline"),
    ("learning", "yolov5face", "mter"),
    ("inference",),
    ("jobs",),
    ("cli", "__main__"),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
SYSTEMS = ("yolov5face", "mter")
JOBS_OF_JOBS = {"jobs/pipeline.py", "jobs/demo.py"}


def _modules() -> list[Path]:
    return [path for path in sorted(PACKAGE_DIR.rglob("*.py")) if path != PACKAGE_DIR / "__init__.py"]


def _emoface_imports(path: Path) -> set[str]:
    """Dotted names below ``emoface`` that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("emoface.") for name in names if name.startswith("emoface.")}


def _top(path: Path) -> str:
    return path.relative_to(PACKAGE_DIR).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(PACKAGE_DIR).as_posix())
def test_module_imports_only_from_its_own_layer_or_above(path: Path) -> None:
    own = _top(path)
    assert own in LAYER_OF, f"{own} has no layer: add it to LAYERS"
    for name in _emoface_imports(path):
        other = name.split(".")[0]
        assert LAYER_OF[other] <= LAYER_OF[own], f"{own} (layer {LAYER_OF[own]}) imports {name}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(PACKAGE_DIR).as_posix())
def test_nobody_imports_the_command_line_and_jobs_do_not_import_jobs(path: Path) -> None:
    own = path.relative_to(PACKAGE_DIR).as_posix()
    for name in _emoface_imports(path):
        if not own.startswith(("cli", "__main__")):
            assert not name.startswith("cli")
        if own.startswith("jobs/") and own not in JOBS_OF_JOBS:
            assert not name.startswith("jobs."), f"{own} imports {name}"


def test_networks_do_not_import_each_other() -> None:
    for path in _modules():
        if _top(path) in SYSTEMS:
            others = set(SYSTEMS) - {_top(path)}
            assert not any(name.split(".")[0] in others for name in _emoface_imports(path))


LIGHT_JOBS = (
    *("parse", "faces", "split", "report", "simulate", "pipeline", "evaluate_detector", "predict", "explain"),
    *(
        "train",
        "features",
        "probe",
        "train_detector",
        "model",
        "score",
        "export_predictions",
        "verify",
        "export_coco",
        "crop",
    ),
    *("evaluate", "compare", "export", "export_detector", "add_weights", "demo"),
)


def test_command_line_and_light_jobs_start_without_torch() -> None:
    """One process imports them in turn: as long as nothing heavy is loaded, each of them has loaded nothing heavy."""
    modules = ["emoface.cli", *(f"emoface.jobs.{job}" for job in LIGHT_JOBS)]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    print(name, *{'torch', 'onnxruntime'} & set(sys.modules))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == modules


def test_only_the_command_line_prints_or_exits() -> None:
    for path in _modules():
        if _top(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit", "quit", "os._exit"), f"{path}: {called}"
