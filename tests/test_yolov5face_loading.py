"""Weight files of every format, damaged ones, foreign ones, and pickles that mean harm."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from emoface.errors import SettingsError, WeightsError
from emoface.yolov5face import ARCHITECTURES, YoloV5Face, build_network, load_network, save_network
from emoface.yolov5face.checkpoint import read_checkpoint
from emoface.yolov5face.detector import build_detector
from emoface.yolov5face.folding import conv_slots, fold_batch_norms
from emoface.yolov5face.onnx_files import read_onnx

SMALL = "yolov5-blazeface"
BuildNetwork = Callable[..., YoloV5Face]


@pytest.fixture
def network(random_network: BuildNetwork) -> YoloV5Face:
    return random_network(SMALL)


@torch.inference_mode()
def _assert_same_heads(a: YoloV5Face, b: YoloV5Face, tolerance: float = 0.0) -> None:
    images = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    for one, other in zip(a.eval().raw_heads(images), b.eval().raw_heads(images), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["yolov5n-0.5-face", "yolov5n6-face", SMALL])
def test_state_dicts_come_back_to_the_bit(tmp_path: Path, random_network: BuildNetwork, name: str, suffix: str) -> None:
    network = random_network(name)
    path = tmp_path / f"weights{suffix}"
    save_network(network, path)
    back = load_network(path)
    assert back.name == name and not back.training
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(back.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["yolov5n-0.5-face", "yolov5s-face", "yolov5-blazeface-fpn"])
def test_onnx_comes_back_as_the_same_function(tmp_path: Path, random_network: BuildNetwork, name: str) -> None:
    network = random_network(name)
    save_network(network, tmp_path / "weights.onnx")
    back = load_network(tmp_path / "weights.onnx")
    assert back.name == name
    _assert_same_heads(network, back, 1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_is_told_by_its_shapes_alone(tmp_path: Path, name: str) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_network(name).state_dict().items()}
    # numbers of no size of their own: one stored value stands for each tensor
    state = {key: torch.zeros((), dtype=torch.float16).expand(shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "weights.pt")
    assert load_network(tmp_path / "weights.pt").name == name


def test_torchscript_runs_at_any_batch_and_size(tmp_path: Path, network: YoloV5Face) -> None:
    save_network(network, tmp_path / "weights.torchscript")
    program = torch.jit.load(tmp_path / "weights.torchscript")
    images = torch.rand(2, 3, 96, 160)
    with torch.inference_mode():
        for one, other in zip(program(images), network.raw_heads(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_saving_leaves_the_network_as_it_was(tmp_path: Path, network: YoloV5Face) -> None:
    network = network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for suffix in (".safetensors", ".pt", ".onnx", ".torchscript"):
        save_network(network, tmp_path / f"weights{suffix}")
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_other_suffixes_are_not_written(tmp_path: Path, network: YoloV5Face) -> None:
    with pytest.raises(SettingsError, match=r"are written as \.safetensors, \.pt, \.onnx or \.torchscript"):
        save_network(network, tmp_path / "weights.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_fused_state_dict_gets_its_batch_norms_back(tmp_path: Path, random_network: BuildNetwork) -> None:
    network = random_network("yolov5n-0.5-face")
    torch.save(fold_batch_norms(network).state_dict(), tmp_path / "fused.pt")
    _assert_same_heads(network, load_network(tmp_path / "fused.pt"), 1e-4)


def test_prefix_of_data_parallel_training_is_dropped(tmp_path: Path, network: YoloV5Face) -> None:
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, tmp_path / "weights.pth")
    _assert_same_heads(network, load_network(tmp_path / "weights.pth"))


# ncnn


@pytest.mark.parametrize("name", ["yolov5n-face", "yolov5n-0.5-face", "yolov5-blazeface"])
def test_published_ncnn_weights_fill_their_network(weights_dir: Path, name: str) -> None:
    network = load_network(weights_dir / f"{name}.param")
    assert network.name == name
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    from_bin = load_network(weights_dir / f"{name}.bin", network=name)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), from_bin.parameters(), strict=True))


def _write_ncnn(network: YoloV5Face, path: Path, half: bool) -> None:
    """An independent writer of the format: folded convolutions in order, biases always."""
    lines, data = [], b""
    for number, slot in enumerate(conv_slots(fold_batch_norms(network))):
        conv = slot.conv
        kind = "ConvolutionDepthWise" if conv.groups > 1 else "Convolution"
        settings = {0: conv.out_channels, 1: conv.kernel_size[0], 3: conv.stride[0], 5: 1, 6: conv.weight.numel()}
        if conv.groups > 1:
            settings[7] = conv.groups
        words = " ".join(f"{key}={value}" for key, value in settings.items())
        lines.append(f"{kind} conv{number} 1 1 in{number} out{number} {words}")
        numbers = conv.weight.detach().half() if half else conv.weight.detach()
        raw = numbers.numpy().tobytes()
        data += (0x01306B47 if half else 0).to_bytes(4, "little") + raw + b"\0" * (-len(raw) % 4)
        data += conv.bias.detach().numpy().tobytes()
    head = ["7767517", f"{len(lines) + 1} {len(lines) + 1}", "Input data 0 1 in0"]
    path.with_suffix(".param").write_text("\n".join([*head, *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(data)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 2e-2)])
def test_ncnn_numbers_of_both_kinds_are_read(tmp_path: Path, network: YoloV5Face, half: bool, tolerance: float) -> None:
    _write_ncnn(network, tmp_path / "weights.bin", half)
    _assert_same_heads(network, load_network(tmp_path / "weights.bin"), tolerance)


def _spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_damaged_ncnn_files_say_what_is_wrong(tmp_path: Path, network: YoloV5Face) -> None:
    good = tmp_path / "good.bin"
    _write_ncnn(network, good, half=False)

    def refused(message: str, spoil: object) -> None:
        path = tmp_path / "bad.bin"
        shutil.copy(good, path)
        shutil.copy(good.with_suffix(".param"), path.with_suffix(".param"))
        spoil(path)  # type: ignore[operator]
        with pytest.raises(WeightsError, match=message):
            load_network(path)

    refused(r"bad\.bin: ends inside conv\d+ at byte", lambda path: path.write_bytes(path.read_bytes()[:-100]))
    refused(r"bad\.bin: 4 bytes too many", lambda path: path.write_bytes(path.read_bytes() + b"1234"))
    refused("storage tag 0x01020304.*quantised", lambda path: path.write_bytes(b"\4\3\2\1" + path.read_bytes()[4:]))
    refused(r"bad\.param: no such file", lambda path: path.with_suffix(".param").unlink())
    refused("starts with 'x7767517', expected", lambda path: _spoil(path.with_suffix(".param"), "7767517", "x7767517"))
    refused("layer type LSTM", lambda path: _spoil(path.with_suffix(".param"), "Input data", "LSTM data"))
    refused("cut off", lambda path: _spoil(path.with_suffix(".param"), "Input data 0 1 in0\n", ""))
    refused(
        "conv0 has 649 weights, expected a multiple", lambda path: _spoil(path.with_suffix(".param"), "=648", "=649")
    )
    refused("cannot read the convolution", lambda path: _spoil(path.with_suffix(".param"), "6=648", "6=many"))


# other damaged and foreign files


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
def test_truncated_files_are_refused(tmp_path: Path, network: YoloV5Face, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_network(network, path)
    data = path.read_bytes()
    for n_bytes in (0, 10, 5000, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:n_bytes])
        with pytest.raises(WeightsError, match=f"weights{suffix}: "):
            load_network(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".onnx", ".param", ".bin"])
def test_a_saved_web_page_is_called_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_text("\n<!DOCTYPE html><html><body>Sign in to download</body></html>")
    with pytest.raises(WeightsError, match="a web page, not weights"):
        load_network(path)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".safetensors", r"(tensor model\S* of yolov5n-face is missing|is not one of yolov5n-face's|has shape)"),
        (".pt", r"(tensor model\S* of yolov5n-face is missing|is not one of yolov5n-face's|has shape)"),
        (".onnx", "convolution .* is 24x3x3x3 stride 2 groups 1, expected 32x3x3x3 stride 2 groups 1"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, network: YoloV5Face, suffix: str, message: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_network(network, path)
    with pytest.raises(WeightsError, match=message):
        load_network(path, network="yolov5n-face")


def test_weights_of_no_network_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 4)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"its 1 tensors fit none of the networks yolov5n-0\.5-face"):
        load_network(tmp_path / "weights.pt")


def test_unknown_networks_suffixes_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weight file"):
        load_network(tmp_path / "none.pt")
    (tmp_path / "weights.tflite").write_bytes(b"1")
    with pytest.raises(WeightsError, match=r"type '.tflite' are not read; known: .param"):
        load_network(tmp_path / "weights.tflite")
    with pytest.raises(SettingsError, match="no YOLOv5-Face network"):
        load_network(tmp_path / "none.pt", network="yolov9")


def test_onnx_with_its_arrays_in_another_file(tmp_path: Path, random_network: BuildNetwork) -> None:
    """pytorch-pfn-extras#809 and onnx#3157: the model was moved and the file with its arrays was left behind."""
    network = random_network("yolov5n-0.5-face")
    whole, path = tmp_path / "whole.onnx", tmp_path / "weights.onnx"
    save_network(network, whole)
    onnx.save(onnx.load(whole), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    for one, other in zip(read_onnx(path), read_onnx(whole), strict=True):
        assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "weights.onnx")
    with pytest.raises(WeightsError) as missing:
        load_network(moved)
    assert str(missing.value) == (
        f"{tmp_path / 'moved' / 'weights.data'}: no such file, but weights.onnx keeps its arrays in it; copy the two "
        "files together, or save the model again as a single file"
    )
    model = onnx.load(moved, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights.data" if entry.key == "location" else entry.value
    onnx.save(model, moved)
    with pytest.raises(WeightsError, match=r"its arrays are in '\.\./weights\.data', outside its folder"):
        load_network(moved)


def test_onnx_runtime_keeps_to_the_cpus_of_the_process(
    random_network: BuildNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime#8313 and #10113: untold, it takes all cores of the machine and pins threads outside those allowed."""
    import onnxruntime

    options: list[onnxruntime.SessionOptions] = []
    session = onnxruntime.InferenceSession

    def open_session(model: bytes, given: onnxruntime.SessionOptions, **settings: Any) -> onnxruntime.InferenceSession:
        options.append(given)
        return session(model, given, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    network = random_network("yolov5n-0.5-face")
    build_detector(network, backend="onnx")
    build_detector(network, backend="onnx", n_threads=2)
    assert [one.intra_op_num_threads for one in options] == [3, 2]


def test_onnx_with_shared_or_computed_biases(tmp_path: Path, network: YoloV5Face) -> None:
    path = tmp_path / "weights.onnx"
    save_network(network, path)
    model = onnx.load(path)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    bias, conv.input[2] = conv.input[2], "elsewhere"
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [bias], ["elsewhere"]))
    onnx.save(model, path)
    _assert_same_heads(network, load_network(path), 1e-4)
    model.graph.node[0].op_type = "Neg"
    onnx.save(model, path)
    with pytest.raises(WeightsError, match=r"elsewhere of convolution .* is computed at run time"):
        read_onnx(path)


# official checkpoints: pickles of whole model objects

_OFFICIAL = """
import sys, types
import torch
from torch import nn

import emoface.yolov5face.blocks as blocks
from emoface.yolov5face import build_network
from emoface.yolov5face.network import Concat, Detect, YoloV5Face

state_path, name, legacy, zipped = sys.argv[1:5]
network = build_network(name)
network.load_state_dict(torch.load(state_path))
models, common, yolo = (types.ModuleType(n) for n in ("models", "models.common", "models.yolo"))
sys.modules.update({"models": models, "models.common": common, "models.yolo": yolo})
for kind in (blocks.Conv, blocks.Stem, blocks.Blaze, blocks.DoubleBlaze, blocks.C3, blocks.Bottleneck, blocks.Shuffle,
             blocks.SPP, Concat):
    kind.__module__ = "models.common"
    setattr(common, kind.__name__, kind)
for kind in (Detect, YoloV5Face):
    kind.__module__ = "models.yolo"
    setattr(yolo, kind.__name__, kind)
network.yaml = {"nc": 1, "anchors": [[4, 5]]}
network.names = ["face"]
network.detect.grid = [torch.zeros(1)] * 2
network.detect.stride = torch.tensor([8.0, 16.0])
model = network.half()
for parameter in model.parameters():
    parameter.requires_grad = False
for out in (legacy, zipped):
    torch.save(
        {"epoch": -1, "best_fitness": None, "training_results": "0/1 ...", "model": model, "ema": None,
         "optimizer": None, "wandb_id": None},
        out,
        _use_new_zipfile_serialization=out == zipped,
    )
"""


def test_official_checkpoints_are_read_without_their_classes(tmp_path: Path, random_network: BuildNetwork) -> None:
    """Files like the official ones: a dictionary around a pickled half-precision model of foreign classes."""
    network = random_network("yolov5n-0.5-face")
    torch.save(network.state_dict(), tmp_path / "state.pt")
    (tmp_path / "write.py").write_text(_OFFICIAL)
    legacy, zipped = tmp_path / "legacy.pt", tmp_path / "zipped.pt"
    arguments = [tmp_path / "state.pt", network.name, legacy, zipped]
    subprocess.run([sys.executable, tmp_path / "write.py", *map(str, arguments)], check=True)
    assert not zipfile.is_zipfile(legacy) and zipfile.is_zipfile(zipped)
    for path in (legacy, zipped):
        with pytest.raises(ModuleNotFoundError, match="models"):
            torch.load(path, weights_only=False)
        state = read_checkpoint(path)
        assert set(state) == set(network.state_dict())
        assert state["model.0.stem_1.conv.weight"].dtype == torch.float16
        _assert_same_heads(network.half().float(), load_network(path))
        assert "models" not in sys.modules


def test_averaged_weights_come_before_the_last_ones(tmp_path: Path, random_network: BuildNetwork) -> None:
    averaged, last = random_network(SMALL, seed=1), random_network(SMALL, seed=2)
    torch.save({"model": last.state_dict(), "ema": averaged.state_dict()}, tmp_path / "run.pt")
    _assert_same_heads(averaged, load_network(tmp_path / "run.pt"))


class _Reduced:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def _os_system(mark: Path) -> object:
    import os

    return _Reduced(os.system, f"touch {mark}")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (_os_system, r"asks for (posix|nt)\.system"),
        (lambda mark: _Reduced(eval, f"open({str(mark)!r}, 'w')"), r"asks for builtins\.eval|__builtin__\.eval"),
        (lambda mark: _Reduced(exec, f"open({str(mark)!r}, 'w')"), r"asks for builtins\.exec|__builtin__\.exec"),
        (lambda mark: _Reduced(open, str(mark), "w"), r"asks for (_?io)\.open"),
        (lambda mark: _Reduced(getattr, "text", "upper"), r"asks for (builtins|__builtin__)\.getattr"),
        (
            lambda mark: _Reduced(subprocess.check_call, ["touch", str(mark)]),
            r"asks for (subprocess|commands)\.check_call",
        ),
        (lambda mark: _Reduced(torch.load, str(mark)), r"asks for torch\.serialization\.load"),
    ],
)
def test_pickles_that_call_anything_are_refused_by_name(
    tmp_path: Path, network: YoloV5Face, harm: object, named: str, legacy: bool
) -> None:
    mark = tmp_path / "ran"
    content = {"model": harm(mark), **network.state_dict()}  # type: ignore[operator]
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=f"{named}.*nothing of it was run"):
        load_network(tmp_path / "bad.pt")
    assert not mark.exists()


def _write_pickle(path: Path, data: bytes) -> None:
    """Puts a pickle where torch's zip format keeps its own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for os\.system"),
        (b"(S'true'\nios\nsystem\n.", r"asks for os\.system"),
        (b"(cos\nsystem\nS'true'\no.", r"asks for os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"asks for os\.system"),
        (b"\x80\x04\x8c\x05torch\x8c\x11hub.os.getcwd.xyz\x93.", r"asks for torch\.hub\.os\.getcwd"),
        (b"ctorch.hub\nos.system\n(S'true'\ntR.", r"asks for torch\.hub\.os\.system"),
        (b"cmodelsx\nConv\n.", r"asks for modelsx\.Conv"),
    ],
)
def test_every_way_to_name_a_function_is_refused(tmp_path: Path, opcodes: bytes, named: str) -> None:
    _write_pickle(tmp_path / "bad.pt", opcodes)
    with pytest.raises(WeightsError, match=named):
        read_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    "opcodes",
    [
        # a state for a class or function of the reader itself: {"__call__": 1}, and (None, {"__new__": 1})
        b"ctorch._utils\n_rebuild_tensor_v2\n(dS'__call__'\nI1\nsb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(N(dS'__new__'\nI1\nstb.",
        b"cmodels.common\nConv\n(N(dS'__new__'\nI1\nstb.",
        b"ccollections\nOrderedDict\n(N(dS'__new__'\nI1\nstb.",
        b"ctorch._utils\n_rebuild_parameter\n(I1\ntR.",
        b"\x82\x01.",  # a name by a number of the extension registry
        b"I1\nQ.",  # a persistent id that is no storage
        b".",
        b"",
    ],
)
def test_pickles_of_nonsense_are_damaged_files_and_change_nothing(
    tmp_path: Path, network: YoloV5Face, opcodes: bytes
) -> None:
    _write_pickle(tmp_path / "bad.pt", opcodes)
    with pytest.raises(WeightsError, match=r"bad\.pt: "):
        read_checkpoint(tmp_path / "bad.pt")
    save_network(network, tmp_path / "good.pt")
    assert load_network(tmp_path / "good.pt").name == SMALL


def test_modules_that_hold_themselves_end_in_an_error(tmp_path: Path) -> None:
    # an object whose _modules hold the object itself
    _write_pickle(tmp_path / "bad.pt", b"(imodels\nM\np0\n(dS'_modules'\n(dS'm'\ng0\nssb.")
    with pytest.raises(WeightsError, match="not a readable torch file"):
        read_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(("offset", "size", "stride"), [(0, (200,), (1,)), (50, (64,), (1,)), (-1, (4,), (1,))])
def test_tensors_cannot_reach_beyond_their_storage(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    class Beyond:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            storage = torch.zeros(64).storage()
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict())

    torch.save({"x": Beyond()}, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="not a readable torch file"):
        read_checkpoint(tmp_path / "bad.pt")


def test_torchscript_and_other_zips_are_named(tmp_path: Path, network: YoloV5Face) -> None:
    save_network(network, tmp_path / "weights.torchscript")
    shutil.move(tmp_path / "weights.torchscript", tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="a TorchScript file, which holds code"):
        load_network(tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as archive:
        archive.writestr("photo.jpg", b"1")
    with pytest.raises(WeightsError, match=r"a zip without one data\.pkl"):
        load_network(tmp_path / "photos.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(WeightsError, match="a compressed zip"):
        load_network(tmp_path / "bomb.pt")


def test_a_pickle_without_tensors_says_so(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="holds no tensors"):
        load_network(tmp_path / "weights.pt")
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match=re.escape("not a file written by torch.save")):
        load_network(plain)
