"""Public weights: key lists of torchvision's files, what is taken and what not, files of Python 2, unsafe files."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from emoface.errors import SettingsError, WeightsError
from emoface.mter import build_model
from emoface.mter.mobilenet import MobileNetV2SE
from emoface.mter.pretrained import (
    PRETRAINED,
    NotTaken,
    load_pretrained,
    read_public_weights,
    take_stream_weights,
    take_weights,
)
from emoface.mter.resnet import ResNet18
from emoface.storage.files import file_sha256
from emoface.storage.weights import read_cards

MOBILENET_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {
        f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")
    }
    return sizes | {f"{name}.num_batches_tracked": ()}


def mobilenet_v2_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in torchvision's mobilenet_v2 files, written down apart from our network."""
    shapes: dict[str, tuple[int, ...]] = {"features.0.0.weight": (32, 3, 3, 3)} | norm_shapes("features.0.1", 32)
    number, width = 1, 32
    for expansion, channels, repeats in MOBILENET_STAGES:
        for _ in range(repeats):
            block, hidden, depthwise = f"features.{number}.conv", width * expansion, 0
            if expansion > 1:
                shapes |= {f"{block}.0.0.weight": (hidden, width, 1, 1)} | norm_shapes(f"{block}.0.1", hidden)
                depthwise = 1
            shapes |= {f"{block}.{depthwise}.0.weight": (hidden, 1, 3, 3)}
            shapes |= norm_shapes(f"{block}.{depthwise}.1", hidden)
            shapes |= {f"{block}.{depthwise + 1}.weight": (channels, hidden, 1, 1)}
            shapes |= norm_shapes(f"{block}.{depthwise + 2}", channels)
            number, width = number + 1, channels
    shapes |= {"features.18.0.weight": (1280, 320, 1, 1)} | norm_shapes("features.18.1", 1280)
    return shapes | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def resnet18_shapes(n_classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes in torchvision's resnet18 files; with 365 classes those of Places365."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | norm_shapes("bn1", 64)
    width = 64
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (channels, width, 3, 3)} | norm_shapes(f"{name}.bn1", channels)
            shapes |= {f"{name}.conv2.weight": (channels, channels, 3, 3)} | norm_shapes(f"{name}.bn2", channels)
            if width != channels:
                shapes |= {f"{name}.downsample.0.weight": (channels, width, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", channels)
            width = channels
    return shapes | {"fc.weight": (n_classes, 512), "fc.bias": (n_classes,)}


def draw_state(shapes: dict[str, tuple[int, ...]]) -> OrderedDict[str, Tensor]:
    return OrderedDict(
        (name, torch.tensor(7) if name.endswith("tracked") else torch.rand(shape)) for name, shape in shapes.items()
    )


def n_trained(shapes: dict[str, tuple[int, ...]]) -> int:
    trained = [shape for name, shape in shapes.items() if not name.endswith(("tracked", "running_mean", "running_var"))]
    return sum(int(torch.tensor(shape).prod()) for shape in trained)


def test_stand_ins_have_the_published_numbers_of_parameters() -> None:
    assert n_trained(mobilenet_v2_shapes()) == 3_504_872
    assert n_trained(resnet18_shapes()) == 11_689_512
    assert len(mobilenet_v2_shapes()) == 314
    assert len(resnet18_shapes()) == 122


def test_mobilenet_takes_all_but_gates_and_the_last_convolution() -> None:
    network = MobileNetV2SE()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = draw_state(mobilenet_v2_shapes())
    report = take_weights(network, state, "body", "mobilenet_v2.pth", "ab12")
    assert (report.network, report.source, report.sha256) == ("body", "mobilenet_v2.pth", "ab12")
    # 314 tensors less 52 counters, less the last convolution, its BatchNorm, and the classifier
    assert report.n_tensors == 314 - 52 - 5 - 2
    # trained numbers but for the last 1280 x 320, 2 x 1280 and the classifier, and running statistics
    n_statistics = sum(2 * shape[0] for name, shape in mobilenet_v2_shapes().items() if name.endswith("running_var"))
    expected = 3_504_872 - 1280 * 320 - 2 * 1280 - 1281 * 1000 + n_statistics - 2 * 1280
    assert report.n_parameters == expected
    assert report.unused == ("classifier.1.bias", "classifier.1.weight")
    gates = [one for one in report.not_taken if ".se." in one.name]
    assert len(gates) == 17 * 4
    assert {one.reason for one in gates} == {"not in the file"}
    rest = [one for one in report.not_taken if ".se." not in one.name]
    assert rest[0] == NotTaken("features.18.0.weight", "shape (1000, 320, 1, 1), in the file (1280, 320, 1, 1)")
    assert [one.name.split(".", 3)[-1] for one in rest[1:]] == ["weight", "bias", "running_mean", "running_var"]
    not_taken = {one.name for one in report.not_taken}
    for name, value in network.state_dict().items():
        if name in not_taken:
            assert torch.equal(value, before[name]), name
        elif not name.endswith("tracked"):
            assert torch.equal(value, state[name]), name


def test_resnet_takes_everything_from_imagenet_and_all_but_fc_from_places() -> None:
    state = draw_state(resnet18_shapes())
    network = ResNet18()
    report = take_weights(network, state, "context")
    assert (report.n_tensors, report.not_taken, report.unused) == (122 - 20, (), ())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items() if "tracked" not in name)
    report = take_weights(ResNet18(), draw_state(resnet18_shapes(365)), "context")
    assert [one.name for one in report.not_taken] == ["fc.weight", "fc.bias"]
    assert report.not_taken[0].reason == "shape (1000, 512), in the file (365, 512)"
    report = take_weights(ResNet18(n_features=None), state, "body")
    assert report.unused == ("fc.bias", "fc.weight")


def test_files_of_another_network_are_refused_and_change_nothing() -> None:
    network = ResNet18()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"x.pth: 0 of the 102 tensors of the context stream's ResNet18 .*another net"
    ):
        take_weights(network, draw_state(mobilenet_v2_shapes()), "context", "x.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_all_streams_of_a_model_are_filled_from_files_by_card_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_cards(tmp_path, monkeypatch)
    model = build_model("mter2")
    reports = load_pretrained(model)
    assert [report.network for report in reports] == ["face", "body", "context"]
    assert [report.source for report in reports] == [
        "mobilenet_v2-b0353104.pth",
        "mobilenet_v2-b0353104.pth",
        "resnet18-f37072fd.pth",
    ]
    assert reports[0].sha256 == file_sha256(tmp_path / "weights" / "mobilenet_v2-b0353104.pth")
    state = read_public_weights(tmp_path / "weights" / "resnet18-f37072fd.pth")
    assert torch.equal(model.state_dict()["stream.context.backbone.fc.weight"], state["fc.weight"])
    faces, bodies = (
        model.state_dict()[f"stream.{name}.backbone.features.3.conv.1.0.weight"] for name in ("face", "body")
    )
    assert torch.equal(faces, bodies)
    places = load_pretrained(build_model("mter2"), "places365")
    assert [report.source for report in places][1:] == ["mobilenet_v2-b0353104.pth", "resnet18_places365.pth"]
    kosti = load_pretrained(build_model("kosti"), "places365")
    assert [report.source for report in kosti] == ["resnet18-f37072fd.pth", "resnet18_places365.pth"]


def put_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lays stand-ins under the names of the cards, and cards that know their sha256."""
    from dataclasses import replace

    shapes = {
        "mobilenet_v2-b0353104": mobilenet_v2_shapes(),
        "resnet18-f37072fd": resnet18_shapes(),
        "resnet18_places365": resnet18_shapes(365),
    }
    cards = read_cards()
    for name, wanted in shapes.items():
        path = tmp_path / "weights" / f"{name}.pth"
        torch.save(draw_state(wanted), path)
        cards[name] = replace(cards[name], files=(replace(cards[name].files[0], sha256=file_sha256(path)),))
    monkeypatch.setattr("emoface.storage.weights.read_cards", lambda: cards)


def test_a_file_under_a_card_name_with_other_bytes_is_refused(tmp_path: Path) -> None:
    torch.save(draw_state(resnet18_shapes()), tmp_path / "weights" / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match=r"sha256 is .*, expected f37072fd47e89c5e"):
        load_pretrained(build_model("task3"))


def test_a_file_by_path_serves_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": draw_state(resnet18_shapes(365)), "arch": "resnet18", "epoch": 3}, path)
    (report,) = load_pretrained(build_model("task3"), files={"context": path})
    assert (report.source, report.n_tensors) == ("mine.pth", 100)
    with pytest.raises(SettingsError, match="given for 'face', task3 has context"):
        load_pretrained(build_model("task3"), files={"face": path})
    with pytest.raises(WeightsError, match="no such weight file"):
        load_pretrained(build_model("task3"), files={"context": tmp_path / "gone.pth"})


def test_what_has_no_public_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=r"no weights 'resnet18-f37072fd' .*weights fetch resnet18-f37072fd"):
        load_pretrained(build_model("task3"))
    with pytest.raises(SettingsError, match="no public imagenet weights fit the face stream of caer-net-s"):
        load_pretrained(build_model("caer-net-s"))
    with pytest.raises(SettingsError, match="no public weights are called 'imagnet'; did you mean 'imagenet'"):
        load_pretrained(build_model("task3"), "imagnet")


def test_places365_for_a_mobilenet_context_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_cards(tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match="no public places365 weights fit the context stream of mter1"):
        load_pretrained(build_model("mter1"), "places365")


def test_fetches_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    path = tmp_path / "published.pth"
    torch.save(draw_state(resnet18_shapes()), path)
    cards = read_cards()
    name = "resnet18-f37072fd"
    file = replace(cards[name].files[0], address=path.as_uri(), sha256=file_sha256(path), n_bytes=path.stat().st_size)
    cards[name] = replace(cards[name], files=(file,))
    monkeypatch.setattr("emoface.storage.weights.read_cards", lambda: cards)
    with pytest.raises(WeightsError, match="no weights"):
        load_pretrained(build_model("task3"))
    (report,) = load_pretrained(build_model("task3"), fetch=True)
    assert report.sha256 == file_sha256(path)
    assert (tmp_path / "cache" / "weights" / "resnet18-f37072fd.pth").is_file()
    load_pretrained(build_model("task3"))


def test_cards_name_torchvisions_files_whose_name_begins_their_sha256() -> None:
    cards = read_cards()
    for names in PRETRAINED.values():
        for name in names.values():
            (published,) = cards[name].files
            assert cards[name].task == "backbone"
            assert Path(published.file).stem == name  # or find_weights would not see it
            assert len(published.sha256) == 64
            if "-" in name:
                assert published.sha256.startswith(name.split("-")[1])
    assert cards["mobilenet_v2-7ebf99e0"].files[0].sha256.startswith("7ebf99e0")


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes strings as Python 2 did: bytes of no stated encoding."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: str) -> None:
        data = text.encode("latin1")
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        self.memoize(text)

    dispatch[str] = save_str

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, torch.storage.TypedStorage):
            return ("storage", torch.FloatStorage, str(value._untyped_storage._cdata), "cpu", value._size(), None)
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch._utils._rebuild_tensor, (value._typed_storage(), 0, tuple(value.shape), value.stride())
        return NotImplemented


def write_as_python_2(path: Path, content: dict[str, Any], tensors: list[Tensor]) -> None:
    """The file format of torch 0.1: pickles one after the other, then the numbers of each storage."""
    storages = {str(tensor.untyped_storage()._cdata): tensor for tensor in tensors}
    with path.open("wb") as stream:
        for part in (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": sys.byteorder == "little", "type_sizes": {"int": 4}},
        ):
            pickle.dump(part, stream, protocol=2)
        body = io.BytesIO()
        _Python2Pickler(body, protocol=2).dump(content)
        stream.write(body.getvalue())
        keys = io.BytesIO()
        _Python2Pickler(keys, protocol=2).dump(sorted(storages))
        stream.write(keys.getvalue())
        for key in sorted(storages):
            stream.write(struct.pack("<q", storages[key].numel()) + storages[key].numpy().tobytes())


def test_checkpoint_as_places365_was_written_is_read(tmp_path: Path) -> None:
    """Python 2, torch 0.1, data-parallel names, no counters, and a name that promises an archive."""
    shapes = {name: shape for name, shape in resnet18_shapes(365).items() if not name.endswith("tracked")}
    state = draw_state(shapes)
    path = tmp_path / "resnet18_places365.pth.tar"
    named = OrderedDict((f"module.{name}", value) for name, value in state.items())
    content = {"state_dict": named, "arch": "resnet18", "epoch": 90, "best_prec1": 54.7}
    write_as_python_2(path, content, list(state.values()))
    read = read_public_weights(path)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], value) for name, value in state.items())
    (report,) = load_pretrained(build_model("task3"), files={"context": path})
    assert report.n_tensors == 100
    write_as_python_2(path, {**content, "note": "\xc3"}, list(state.values()))  # a byte of no known encoding
    with pytest.raises(WeightsError, match=r"not a readable torch file .*can't decode byte 0xc3"):
        read_public_weights(path)


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_legacy", [True, False])
def test_a_file_that_asks_for_code_is_refused_and_runs_nothing(tmp_path: Path, is_legacy: bool) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"conv1.weight": torch.zeros(1), "x": _Attack(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
    with pytest.raises(
        WeightsError, match=r"evil.pth: not a file of plain weights \(it asks for .*nothing of it was run"
    ):
        read_public_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"PK\x03\x04 cut", pickle.dumps(3, protocol=2)])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cut.pth: "):
        read_public_weights(path)


def test_a_file_cut_in_the_middle_and_one_without_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    for is_new in (True, False):
        torch.save(draw_state(resnet18_shapes(5)), path, _use_new_zipfile_serialization=is_new)
        path.write_bytes(path.read_bytes()[:-100_000])
        with pytest.raises(WeightsError, match=r"cut.pth: "):
            read_public_weights(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read_public_weights(path)


def test_task1_goes_into_mter2_whole_and_nothing_else_changes() -> None:
    task1, mter2 = build_model("task1"), build_model("mter2")
    before = {name: value.clone() for name, value in mter2.state_dict().items()}
    (report,) = take_stream_weights(mter2, task1.state_dict(), "runs/task1")
    assert (report.network, report.not_taken, report.unused) == ("face", (), ())
    for name, value in mter2.state_dict().items():
        expected = task1.state_dict()[name] if name.startswith("stream.face.") else before[name]
        assert torch.equal(value, expected), name


def test_streams_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"runs/task2: no stream of task3 \(context\) is in them"):
        take_stream_weights(build_model("task3"), build_model("task2").state_dict(), "runs/task2")
    with pytest.raises(WeightsError, match="no stream of kosti"):
        take_stream_weights(build_model("kosti"), build_model("task2").state_dict())
    state = build_model("mter1").state_dict()
    only_context = {name: value for name, value in state.items() if name.startswith("stream.context.")}
    with pytest.raises(WeightsError, match="another network"):
        take_stream_weights(build_model("mter2"), only_context)
    thin = build_model("task2", reductions=(32,) * 7).state_dict()
    with pytest.raises(WeightsError, match=r"stream 'body' is not that of mter2 .*se.fc1.weight: shape"):
        take_stream_weights(build_model("mter2"), thin, "thin")
