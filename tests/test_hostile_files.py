"""Files made to do harm: pickles that call functions, headers that claim much memory; and ``fuzz_files.py``."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy._core.multiarray import _reconstruct  # type: ignore[attr-defined]
from PIL import Image

from emoface.errors import EmofaceError, ImageError, PredictionsError, WeightsError
from emoface.learning.checkpoints import load_checkpoint, loading_state, save_checkpoint
from emoface.mter.pretrained import read_public_weights
from emoface.storage.array_files import read_arrays
from emoface.vision.images import read_photo, read_photo_size
from emoface.yolov5face.checkpoint import read_checkpoint
from emoface.yolov5face.loading import load_network
from emoface.yolov5face.ncnn import read_ncnn
from emoface.yolov5face.onnx_files import read_onnx

SCRIPT = Path(__file__).with_name("fuzz_files.py")
MARK = "ran"


class Reduced:
    """Pickles as a call of a function, optionally followed by a state for its result."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def _load_last(path: Path) -> None:
    load_checkpoint(path, ("model",))


def _harms(mark: Path) -> dict[str, object]:
    """Objects whose unpickling makes the file ``mark`` in a reader that runs what a pickle names."""
    code = f"open({str(mark)!r}, 'w').close()"
    run = Reduced(exec, code)
    (mark.parent / "inner.pt").write_bytes(pickle.dumps(run))
    return {
        "os.system": Reduced(os.system, f"touch {mark}"),
        "eval": Reduced(eval, f"open({str(mark)!r}, 'w')"),
        "exec": run,
        "subprocess": Reduced(subprocess.call, ["touch", str(mark)]),
        "torch.load": Reduced(partial(torch.load, weights_only=False), str(mark.parent / "inner.pt")),
        "numpy": Reduced(
            _reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, [Reduced(exec, code)])
        ),
        "state": Reduced(OrderedDict, state={"x": run}),
    }


def _files_with(harm: object, folder: Path, mark: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Files of every kind that may hold a pickle, and the reader of each."""
    content = {"model": harm, "weight": torch.zeros(2)}
    readers: dict[str, Callable[[Path], object]] = {
        "a.pt": load_network,
        "b.pth": read_public_weights,
        "last.pt": _load_last,
    }
    files: dict[str, tuple[Path, Callable[[Path], object]]] = {}
    for name, read in readers.items():
        for kind in ("zip", "legacy", "plain", "second"):
            path = folder / kind / name
            path.parent.mkdir(exist_ok=True)
            if kind == "plain":
                path.write_bytes(pickle.dumps(content, protocol=2))
            else:
                torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
            if kind == "second":  # a harmless file with a second pickle behind the first
                torch.save({"weight": torch.zeros(2)}, path)
                with zipfile.ZipFile(path, "a") as archive:
                    archive.writestr("other/data.pkl", pickle.dumps(harm))
            files[f"{kind} {name}"] = path, read
    np.save(folder / "x.npy", np.array([harm], dtype=object), allow_pickle=True)
    np.savez(folder / "x.npz", x=np.array([harm], dtype=object))
    (folder / "pickled.npy").write_bytes(pickle.dumps(harm))
    return files | {name: (folder / name, read_arrays) for name in ("x.npy", "x.npz", "pickled.npy")}


HARMS = ("os.system", "eval", "exec", "subprocess", "torch.load", "numpy", "state")


@pytest.mark.parametrize("name", HARMS)
def test_pickles_never_run_what_they_name(tmp_path: Path, name: str) -> None:
    mark = tmp_path / MARK
    harm = _harms(mark)[name]
    for kind, (path, read) in _files_with(harm, tmp_path, mark).items():
        with pytest.raises((WeightsError, PredictionsError), match=path.name) if "second" not in kind else _allowing():
            read(path)
        assert not mark.exists(), f"{kind} ran {name}"


def test_the_pickles_would_run_in_another_reader(tmp_path: Path) -> None:
    for name, harm in _harms(tmp_path / MARK).items():
        with suppress(RuntimeError):  # torch.load ran the pickle and then found no tensors
            pickle.loads(pickle.dumps(harm))
        assert (tmp_path / MARK).exists(), name
        (tmp_path / MARK).unlink()


class _allowing:
    """Accepts any error of emoface, or none: torch reads the first pickle of a zip, which may be harmless."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is None or issubclass(kind, EmofaceError)


# files that claim more than they hold

MEASURE = """
import importlib, json, resource, sys
from pathlib import Path

outcomes = []
for path, module, name in json.loads(sys.argv[1]):
    read = getattr(importlib.import_module(module), name)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(Path(path))
        text = "read"
    except Exception as error:
        text = f"{type(error).__name__} {error}"
    outcomes.append((text, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024))
print(json.dumps(outcomes))
"""


def _read_measured(cases: list[tuple[Path, Callable[..., object]]]) -> list[tuple[str, int]]:
    """Reads files in a new process; returns the error of each and the memory it took, MiB."""
    told = json.dumps([(str(path), read.__module__, read.__name__) for path, read in cases])
    command = [sys.executable, "-c", MEASURE, told]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [(text, mib) for text, mib in json.loads(answer.stdout)]


def _nested_pickle(call: bytes) -> bytes:
    """A call whose argument is a list of 10 lists of 10 lists... 30 levels deep, as text of 10**30 characters."""
    nested = b"(lp0\nS'x'\na" + b"".join(b"0(lp%d\n" % n + b"g%d\na" % (n - 1) * 10 for n in range(1, 30))
    return nested + b"0" + call


CALLS = {
    "device": b"ctorch\ndevice\n(g29\ntR.",
    "key": b"(dg29\nNs.",
    "storage": b"(S'storage'\nctorch\nFloatStorage\ng29\nS'cpu'\nI4\ntQ.",
    "number": b"\x80\x02]r\xff\xff\xff\x3f.",
    "bytearray": b"cbuiltins\nbytearray\n(L9000000000L\ntR.",
}


def test_short_pickles_of_long_texts_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[Path, Callable[..., object]]] = []
    for name, call in CALLS.items():
        path = tmp_path / f"{name}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", _nested_pickle(call))
            archive.writestr("archive/version", "3\n")
        cases += [(path, read_checkpoint), (path, read_public_weights)]
    for (path, read), (text, mib) in zip(cases, _read_measured(cases), strict=True):
        assert text.startswith(f"WeightsError {path}: ") and mib < 200, (path.name, read.__name__, text, mib)


def test_modules_that_hold_each_other_many_times_are_refused(tmp_path: Path) -> None:
    levels = b"(imodels\nM\np0\n0"
    for level in range(1, 60):  # 2**60 paths to the last one
        child = b"g%d\n" % (level - 1)
        levels += b"(imodels\nM\np%d\n(dS'_modules'\n(dS'a'\n%ssS'b'\n%sssb0" % (level, child, child)
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("archive/data.pkl", levels + b"g59\n.")
    with pytest.raises(WeightsError, match="modules without end"):
        read_checkpoint(tmp_path / "bad.pt")


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(500))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("wh", "message"),
    [((60000, 60000), "3600 megapixels"), ((16000, 12000), r"16000 x 12000 pixels in \d+ bytes\); fetch it again")],
)
@pytest.mark.parametrize("read", [read_photo, read_photo_size])
def test_photo_header_takes_no_memory(tmp_path: Path, wh: tuple[int, int], message: str, read: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png(*wh))
    with pytest.raises(ImageError, match=message):
        read(path)
    [(text, mib)] = _read_measured([(path, read)])
    assert text.startswith("ImageError") and mib < 50


def test_photo_of_one_colour_is_read(tmp_path: Path) -> None:
    Image.new("1", (4000, 3000)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").shape == (3000, 4000, 3)


def test_array_header_takes_no_memory(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 26)})
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + bytes(800))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    paths = [tmp_path / "x.npy", tmp_path / "x.npz"]
    for path, (text, mib) in zip(paths, _read_measured([(path, read_arrays) for path in paths]), strict=True):
        assert text.startswith(f"PredictionsError {path}: not a readable NumPy file") and mib < 100


@pytest.mark.parametrize(
    ("header", "n_claimed"),
    [
        ({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, None),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}, None),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, None),
        ({}, 2**63),
        ({}, 10**9),
    ],
    ids=["huge", "overlap", "negative", "header length", "long header"],
)  # fmt: skip
def test_safetensors_that_claim_what_they_lack_are_refused(tmp_path: Path, header: Any, n_claimed: int | None) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", n_claimed or len(text)) + text + bytes(6))
    with pytest.raises(WeightsError, match=r"a\.safetensors: not a readable safetensors file"):
        load_network(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Convolution c 1 1 a b 0=16 1=3 6=432000000000", r"ends inside c at byte 64, expected 1728000000000 bytes"),
        ("Convolution c 1 1 a b 0=16 1=3 6=" + "9" * 5000, "cannot read the convolution"),
        ("Convolution c 1 1 a b 0=-16 1=3 6=432", "expected a multiple of -144"),
        ("Convolution", "cannot read the convolution"),
    ],
)
def test_ncnn_layers_that_claim_what_they_lack_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.param").write_text(f"7767517\n1 1\n{line}\n")
    (tmp_path / "x.bin").write_bytes(bytes(64))
    with pytest.raises(WeightsError, match=message):
        read_ncnn(tmp_path / "x.param")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"location": "x.data", "length": str(10**15)}, f"is {10**15} bytes from 0 on in x.data, which has 64"),
        ({"location": "x.data", "offset": "60", "length": "8"}, "is 8 bytes from 60 on in x.data, which has 64"),
        ({"location": "x.data", "offset": "-8", "length": "8"}, "is 8 bytes from -8 on"),
        ({"location": "x.data", "length": "much"}, "not a readable ONNX model .*much"),
        ({"location": ""}, "an array is in a file without a name"),
        ({"offset": "0"}, "an array is in a file without a name"),
        ({"location": "x\0.data"}, "x.onnx: "),
        ({"location": "/etc/hostname"}, "outside its folder; nothing of it was read"),
    ],
)
def test_onnx_arrays_outside_the_file_are_checked(tmp_path: Path, place: dict[str, str], message: str) -> None:
    import onnx

    tensor = onnx.TensorProto(name="w", data_type=1, dims=[16], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    (tmp_path / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "x.data").write_bytes(bytes(64))
    with pytest.raises(WeightsError, match=message):
        read_onnx(tmp_path / "x.onnx")


def test_onnx_array_of_many_values_and_few_bytes_is_refused(tmp_path: Path) -> None:
    import onnx

    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2**40], raw_data=bytes(64))
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    (tmp_path / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(WeightsError, match=r"x\.onnx: not a readable ONNX model"):
        read_onnx(tmp_path / "x.onnx")


def test_states_of_another_training_are_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(WeightsError, match=r"last\.pt: no such file"):
        load_checkpoint(path, ("model",))
    save_checkpoint(path, {"network": {}, "lines": []})
    with pytest.raises(WeightsError, match="not the state of a training: expected model, lines, found lines, network"):
        load_checkpoint(path, ("model", "lines"))
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="expected model, found no entries"):
        load_checkpoint(path, ("model",))
    with (
        pytest.raises(WeightsError, match=r"last\.pt: not the state of this training .*state_dict for Linear"),
        loading_state(path),
    ):
        torch.nn.Linear(2, 2).load_state_dict({})


@pytest.mark.skipif(sys.platform != "linux", reason="the script forks the readers and limits their memory")
def test_changed_files_are_read_or_refused() -> None:
    environment = {**os.environ, "EMOFACE_WEIGHTS": ""}
    kinds = ("photo", "last.pt", "pretrained", "arrays", "best.safetensors")
    command = [sys.executable, str(SCRIPT), "--kind", *kinds, "--count", "100", "--seed", "1"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for kind in kinds:
        assert f"{kind}: 100 inputs, seed 1" in answer.stdout
