"""What ``emoface run`` ends with: the results and what to do next; and a job's messages in the words of a pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from emoface.cli import main
from emoface.jobs.pipeline import PipelineConfig, read_stages
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.pipeline.messages import to_pipeline_words
from emoface.pipeline.results import collect_results
from emoface.pipeline.stages import Stage
from emoface.storage.records import JobRecord


def _stages(*settings: tuple[str, str]) -> dict[str, Stage]:
    stages = read_stages(PipelineConfig("emotic_face", {"out": "/work", **dict(settings)}))
    return {stage.name: stage for stage in stages}


def _record(job: str, counts: dict[str, object], outputs: tuple[str, ...] = ()) -> JobRecord:
    return JobRecord(job, {}, {}, dict.fromkeys(outputs, ""), counts)


def test_results_of_a_data_set() -> None:
    stages = _stages()
    statuses = {"found": 1200, "no_face": 30, "other_person": 4, "too_small": 0, "image_missing": 0}
    done = [
        (stages["parse"], _record("parse", {"people": 1234, "photos": 700, "photos_missing": 2})),
        (stages["faces"], _record("faces", {"people": 1234, "face_status": statuses})),
        (
            stages["split"],
            _record("split", {name: {"rows": 10, "photos": 7, "faces": 9} for name in ("train", "val", "test")}),
        ),
        (stages["report"], _record("report", {}, ("report/audit.json", "report/audit.html"))),
    ]
    results = collect_results(done)
    assert results.numbers == {
        "people": "1,234 in 700 photos, of which 2 are missing",
        "people with a face": "1,200 of 1,234",
        "people without a face": "30 no face, 4 other person",
        **dict.fromkeys(("train", "val", "test"), "10 people, 9 with a face"),
    }
    assert results.pages == (("audit", Path("/work/report/audit.html")),)
    assert results.next_commands == ("emoface train --manifest /work/manifest.json --model mter2 --out runs/mter2",)
    assert collect_results(done[:2]).next_commands == ()


def test_results_of_trained_models() -> None:
    stages = {stage.name: stage for stage in read_stages(PipelineConfig("mter2", {"runs": "/my runs"}))}
    trained = {"epochs": 16, "best_epoch": 12, "val_map": 0.25}
    found = {"evaluated": 10, "mean_average_precision": 0.2409, "interval_low": 0.2, "interval_high": None}
    done = [
        (stages["task1"], _record("train", trained)),
        (stages["mter2"], _record("train", trained | {"val_map": None})),
        (
            stages["evaluate-mter2"],
            _record("evaluate", found | {"mean_prevalence": 0.1}, ("metrics.json", "evaluation.html")),
        ),
    ]
    results = collect_results(done)
    assert results.numbers == {
        "task1": "best epoch 12 of 16, mAP on val 25.00 %",
        "mter2": "best epoch 12 of 16, mAP on val not defined",
        "evaluate-mter2": "mAP 24.09 % of 10 people, 95 % interval 20.00 % to not defined, chance level 10.00 %",
    }
    assert results.pages == (("evaluate-mter2, evaluation", Path("/my runs/mter2/eval/test/evaluation.html")),)
    assert results.next_commands == ("emoface predict '/my runs/mter2' PHOTO.jpg",)
    assert collect_results(done[:2]).next_commands[0] == "emoface evaluate '/my runs/task1'"


@pytest.mark.parametrize(
    ("stage", "message", "expected"),
    [
        ("parse", "name the file or folder with --annotations", "name the file or folder with --set annotations=VALUE"),
        ("parse", "elsewhere, give --images DIR", "elsewhere, give --set images=DIR"),
        ("parse", "with '--images DIR' if", "with '--set images=DIR' if"),
        ("parse", "'--allow-missing' goes on", "'--set parse.allow_missing=true' goes on"),
        ("faces", "--allow-missing goes on", "--set faces.allow_missing=true goes on"),
        ("faces", "give it as '--weights a b.pt' if", "give it as '--set faces.weights=a b.pt' if"),
        ("split", "use --by stratified", "use --set by=stratified"),
        ("split", "run 'emoface parse ROOT --out DIR' first", "run 'emoface parse ROOT --out DIR' first"),
        ("split", "see --rebuild", "see --rebuild"),
    ],
)
def test_messages_name_settings_of_the_pipeline(stage: str, message: str, expected: str) -> None:
    assert to_pipeline_words(message, _stages()[stage]) == expected


def test_value_of_the_command_line_has_no_setting_of_the_file() -> None:
    stage = _stages(("parse.images", "elsewhere"))["parse"]
    assert to_pipeline_words("give --images DIR", stage) == "give --set parse.images=DIR"


def test_run_prints_results_and_notes_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_simulate(SimulateConfig(out=Path("EMOTIC"), images=2))
    Path("EMOTIC/emotic").rename("away")
    Path("p.toml").write_text('[[stage]]\njob = "parse"\nemotic_root = "EMOTIC"\nout = "work"\n')
    for state in ("missing", "current"):
        answer = CliRunner().invoke(main, ["run", "p.toml"])
        assert answer.exit_code == 0 and f"parse: {'runs, ' if state == 'missing' else ''}{state}" in answer.stderr
        assert answer.stdout.startswith("people: ") and "photos, of which 2 are missing" in answer.stdout
        assert ("--set parse.images=DIR" in answer.stderr) == (state == "missing")
