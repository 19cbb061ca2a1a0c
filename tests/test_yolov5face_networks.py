"""The published networks: their parameters, the names of their tensors, and what their heads compute."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from emoface.errors import SettingsError
from emoface.vision.letterbox import Letterbox
from emoface.yolov5face import ARCHITECTURES, YoloV5Face, build_network
from emoface.yolov5face.decoding import HeadLevel, Thresholds, decode_level, decode_photo, sigmoid
from emoface.yolov5face.folding import conv_slots, fold_batch_norms, network_weights
from emoface.yolov5face.graph import ConvForm, describe_graph
from emoface.yolov5face.network_weights import tensor_shapes
from emoface.yolov5face.onnx_files import to_onnx

BuildNetwork = Callable[..., YoloV5Face]

# Per network: tensors in the state dict, parameters, and the first 16 digits of the sha256 of its sorted lines
# "name 64x3x3x3". They were taken from the reference repository's own networks (deepcam-cn/yolov5-face@84ef013).
PUBLISHED = {
    "yolov5n-0.5-face": (500, 447456, "e89bdeccaba432fe"),
    "yolov5n-face": (500, 1725744, "ffd720cd5b5aaf50"),
    "yolov5s-face": (374, 7074640, "2afbd2056b4a4311"),
    "yolov5m-face": (518, 21063024, "b883ac25fc584c37"),
    "yolov5l-face": (662, 46626832, "0ae39afab2022005"),
    "yolov5n6-face": (658, 2548832, "de0a81b75298fdf8"),
    "yolov5s6-face": (484, 12386176, "f44858041502cca8"),
    "yolov5m6-face": (664, 35484960, "1575ed44d17a6af2"),
    "yolov5l6-face": (844, 76674112, "c904fddbcb094aea"),
    "yolov5-blazeface": (283, 181736, "ffc6d8f394228cda"),
    "yolov5-blazeface-fpn": (289, 182280, "23bded4f688939f5"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_state_dict_has_the_names_and_shapes_of_the_official_one(name: str) -> None:
    network = build_network(name)
    state = network.state_dict()
    lines = sorted(f"{key} {'x'.join(map(str, value.shape))}" for key, value in state.items())
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (len(state), n_parameters, digest) == PUBLISHED[name]


def test_all_networks_are_there() -> None:
    assert set(PUBLISHED) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ["yolov5n-0.5-face", "yolov5s-face", "yolov5n6-face", "yolov5-blazeface-fpn"])
def test_heads_have_one_cell_per_stride_on_photos_that_are_not_square(name: str) -> None:
    network = build_network(name).eval()
    height, width = 128, 192
    with torch.inference_mode():
        heads = network.heads(torch.rand(2, 3, height, width))
        predictions = network(torch.rand(2, 3, height, width))
    shapes = [tuple(head.shape) for head in heads]
    assert shapes == [(2, 3, height // stride, width // stride, 16) for stride in network.strides]
    assert predictions.shape == (2, sum(3 * height * width // stride**2 for stride in network.strides), 16)


def test_heads_start_with_few_faces() -> None:
    network = build_network("yolov5n-0.5-face").eval()
    with torch.inference_mode():
        predictions = network(torch.rand(1, 3, 128, 192))
    assert predictions[..., 4].max() < 0.1


def test_anchors_are_kept_in_cells_and_in_pixels() -> None:
    detect = build_network("yolov5n-face").detect
    assert detect.anchor_grid[2, 0, :, 0, 0].tolist() == [[146, 217], [231, 300], [335, 433]]
    assert detect.anchors[2, 0].tolist() == [146 / 32, 217 / 32]


def test_decode_follows_the_formula_by_hand() -> None:
    detect = build_network("yolov5n-face").detect
    heads = [torch.zeros(1, 3, 4 * 4 // n, 6 * 4 // n, 16) for n in (4, 8, 16)]
    heads[0][0, 1, 2, 5, :] = torch.tensor([0.0] * 4 + [2.0] + [1.0, -1.0] * 5 + [-1.0])
    rows = detect.decode(heads)
    row = rows[0, 1 * 4 * 6 + 2 * 6 + 5].tolist()  # anchor 1 of stride 8: 8 x 10 pixels
    assert row[:4] == [(0.5 + 5) * 8, (0.5 + 2) * 8, 8, 10]
    assert row[5:15] == [5 * 8 + 8, 2 * 8 - 10] * 5
    assert row[4] == pytest.approx(1 / (1 + np.exp(-2)))
    assert row[15] == pytest.approx(1 / (1 + np.exp(1)))


def test_numpy_decoding_agrees_with_the_networks_own() -> None:
    network = build_network("yolov5n-face").eval()
    generator = torch.Generator().manual_seed(3)
    heads = [torch.randn(1, 3, 96 // s, 160 // s, 16, generator=generator) for s in network.strides]
    expected = network.detect.decode(heads)[0].numpy()
    expected_conf = expected[:, 4] * expected[:, 15]
    start = 0
    for head, stride, anchors in zip(heads, network.strides, network.detect.anchor_grid, strict=True):
        raw = head[0].permute(0, 3, 1, 2).flatten(0, 1).numpy()
        found = decode_level(raw, HeadLevel(stride, anchors[0, :, 0, 0].numpy()), conf_threshold=0.4)
        own = slice(start, start + head[0, ..., 0].numel())
        sure = expected[own][expected_conf[own] >= 0.4]
        start = own.stop
        assert len(found) == len(sure) > 0
        centre, half = sure[:, :2], sure[:, 2:4] / 2
        np.testing.assert_allclose(found.xyxy, np.hstack([centre - half, centre + half]), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.landmarks.reshape(-1, 10), sure[:, 5:15], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.conf, sure[:, 4] * sure[:, 15], rtol=1e-5)


def _one_face(row: int, column: int) -> np.ndarray:
    """A head of stride 8 for a 96 x 64 input: one sure face of the anchor's size in one cell."""
    head = np.zeros((3, 16, 8, 12), np.float32)
    head[:, 4] = -20
    head[2, 4, row, column] = head[2, 15, row, column] = 20
    return head.reshape(48, 8, 12)


def test_a_face_comes_back_in_pixels_of_the_photo() -> None:
    letterbox = Letterbox.fit((48, 20), image_size=96, stride=32)  # twice as large, 12 rows of padding above
    assert letterbox.offset == (0, 12)
    level = HeadLevel(8, np.array([[4, 4], [4, 4], [16, 8]], np.float32))
    found = decode_photo([_one_face(row=3, column=4)], (level,), letterbox, Thresholds(0.5, 0.5))
    # centre (4.5 * 8, 3.5 * 8) = (36, 28) in the network, (18, 8) in the photo; size 8 x 4 there
    np.testing.assert_allclose(found.xyxy, [[14, 6, 22, 10]], atol=1e-4)
    np.testing.assert_allclose(found.landmarks, [[[16, 6]] * 5], atol=1e-4)
    np.testing.assert_allclose(found.conf, [1])


def test_boxes_are_cut_at_the_border_and_those_in_the_padding_go() -> None:
    letterbox = Letterbox.fit((48, 20), image_size=96, stride=32)
    level = HeadLevel(8, np.array([[4, 4], [4, 4], [16, 8]], np.float32))
    in_padding = decode_photo([_one_face(row=0, column=4)], (level,), letterbox, Thresholds(0.5, 0.5))
    at_border = decode_photo([_one_face(row=3, column=0)], (level,), letterbox, Thresholds(0.5, 0.5))
    assert len(in_padding) == 0
    np.testing.assert_allclose(at_border.xyxy, [[0, 6, 6, 10]], atol=1e-4)


def test_nothing_above_the_threshold_is_no_face_at_all() -> None:
    letterbox = Letterbox.fit((48, 20), image_size=96, stride=32)
    level = HeadLevel(8, np.ones((3, 2), np.float32))
    found = decode_photo([np.full((48, 8, 12), -20, np.float32)], (level,), letterbox, Thresholds(0.5, 0.5))
    assert len(found) == 0 and found.xyxy.shape == (0, 4) and found.landmarks.shape == (0, 5, 2)


def test_sigmoid_of_large_numbers_is_quiet() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-200, 200], np.float32)).tolist() == pytest.approx([0, 1], abs=1e-30)


@pytest.mark.parametrize("name", ["yolov5n-0.5-face", "yolov5s-face", "yolov5-blazeface"])
def test_folding_batch_norms_changes_no_output(random_network: BuildNetwork, name: str) -> None:
    network = random_network(name)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        for a, b in zip(network.eval().raw_heads(images), folded.raw_heads(images), strict=True):
            assert a.std(dim=(2, 3)).max() > 0.01, "the heads see nothing of the photo"
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_convolutions_are_listed_in_the_order_in_which_they_run(name: str) -> None:
    ran: list[str] = []
    with torch.device("meta"):
        network = build_network(name)
        for slot in conv_slots(network):
            slot.conv.register_forward_hook(lambda *_, own=slot.name: ran.append(own))
        network.raw_heads(torch.zeros(1, 3, 128, 192))
    assert ran == [slot.name for slot in conv_slots(network)]


def test_unknown_network_suggests_a_near_one() -> None:
    with pytest.raises(SettingsError, match="did you mean 'yolov5s-face'"):
        build_network("yolov5s-fase")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_description_without_torch_has_the_tensors_and_convolutions_of_the_network(name: str) -> None:
    with torch.device("meta"):
        network = build_network(name)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    expected = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    assert tensor_shapes(ARCHITECTURES[name]) == expected
    described = [(conv.name, conv.norm_name, conv.form, conv.has_bias) for conv in describe_graph(name).convs]
    assert described == [
        (
            slot.name,
            slot.norm_name,
            ConvForm(tuple(slot.conv.weight.shape), slot.conv.stride[0], slot.conv.groups),
            slot.conv.bias is not None,
        )
        for slot in conv_slots(network)
    ]


@pytest.mark.parametrize(
    "name", ["yolov5n-0.5-face", "yolov5s-face", "yolov5n6-face", "yolov5-blazeface", "yolov5-blazeface-fpn"]
)
def test_onnx_computes_what_torch_computes(random_network: BuildNetwork, name: str) -> None:
    import onnxruntime

    network = random_network(name)
    session = onnxruntime.InferenceSession(to_onnx(network_weights(network)), providers=["CPUExecutionProvider"])
    images = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval().raw_heads(images)
    found = session.run(None, {"images": images.numpy()})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)


def test_parameters_are_counted_without_torch(random_network: BuildNetwork) -> None:
    network = random_network("yolov5-blazeface")
    assert network_weights(network).n_parameters == sum(parameter.numel() for parameter in network.parameters())
