"""WIDER FACE's protocol on files in its layout, against a slow walk written from its evaluation code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from emoface.datasets.wider_truth import read_wider_truth
from emoface.errors import AnnotationsError
from emoface.metrics.wider_face import SETTINGS, WiderTruth, wider_average_precision
from emoface.vision.detections import Detections

EVENTS = {"0--Parade": ["0_Parade_1", "0_Parade_2"], "1--Handshaking": ["1_Handshaking_5"]}
BOXES = {
    "0--Parade/0_Parade_1": [[10, 10, 20, 30], [60, 12, 8, 8]],
    "0--Parade/0_Parade_2": [],
    "1--Handshaking/1_Handshaking_5": [[0, 0, 50, 40], [70, 5, 30, 30], [120, 5, 30, 30]],
}
KEPT = {
    "easy": {"1--Handshaking/1_Handshaking_5": [1]},
    "medium": {"0--Parade/0_Parade_1": [1], "1--Handshaking/1_Handshaking_5": [1, 3]},
    "hard": {"0--Parade/0_Parade_1": [1, 2], "1--Handshaking/1_Handshaking_5": [1, 2, 3]},
}


def _cells(values: list[object]) -> np.ndarray:
    cells = np.empty((len(values), 1), object)
    for place, value in enumerate(values):
        cells[place, 0] = value
    return cells


def _write(folder: Path) -> None:
    images = {event: [f"{event}/{photo}" for photo in photos] for event, photos in EVENTS.items()}
    of_event = {
        "event_list": _cells(list(EVENTS)),
        "file_list": _cells([_cells(list(photos)) for photos in EVENTS.values()]),
        "face_bbx_list": _cells(
            [_cells([np.array(BOXES[i], float).reshape(-1, 4) for i in ids]) for ids in images.values()]
        ),
    }
    scipy.io.savemat(str(folder / "wider_face_val.mat"), of_event)
    for name, kept in KEPT.items():
        numbers = [_cells([np.array(kept.get(i, []), np.uint8).reshape(-1, 1) for i in ids]) for ids in images.values()]
        scipy.io.savemat(str(folder / f"wider_{name}_val.mat"), {"gt_list": _cells(numbers)})


def test_truth_is_read_by_event_and_photo(tmp_path: Path) -> None:
    _write(tmp_path)
    truth = read_wider_truth(tmp_path)
    assert truth.images == tuple(BOXES)
    assert [one.tolist() for one in truth.xywh] == list(BOXES.values())
    for name in SETTINGS:
        for image, mask in zip(truth.images, truth.counts[name], strict=True):
            assert (np.flatnonzero(mask) + 1).tolist() == KEPT[name].get(image, [])


def test_missing_and_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsError, match=r"wider_face_val\.mat: no such file"):
        read_wider_truth(tmp_path)
    _write(tmp_path)
    (tmp_path / "wider_hard_val.mat").write_bytes(b"<html>no</html>" * 20)
    with pytest.raises(
        AnnotationsError, match=r"wider_hard_val\.mat: starts with b'<html>no</html><'.*expected a MATLAB file"
    ):
        read_wider_truth(tmp_path)
    scipy.io.savemat(str(tmp_path / "wider_hard_val.mat"), {"other": 1})
    with pytest.raises(AnnotationsError, match=r"wider_hard_val\.mat: variables gt_list are missing, found other"):
        read_wider_truth(tmp_path)
    scipy.io.savemat(str(tmp_path / "wider_hard_val.mat"), {"gt_list": _cells([_cells([])])})
    with pytest.raises(AnnotationsError, match="do not belong together"):
        read_wider_truth(tmp_path)


def _found(rows: list[tuple[float, float, float, float, float]]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], np.zeros((len(table), 5, 2), np.float32), table[:, 4])


def test_every_face_of_a_setting_found_is_one_and_faces_of_other_settings_do_not_hurt(tmp_path: Path) -> None:
    _write(tmp_path)
    truth = read_wider_truth(tmp_path)
    found = [
        _found([(x, y, x + w, y + h, 0.5 + 0.1 * place) for place, (x, y, w, h) in enumerate(boxes)])
        for boxes in BOXES.values()
    ]
    for name in SETTINGS:
        assert wider_average_precision(found, truth, name) == pytest.approx(1.0)
    assert wider_average_precision([Detections.empty()] * 3, truth, "hard") == 0.0


def _slow(found: list[Detections], truth: WiderTruth, setting: str) -> float:
    """Photo by photo, threshold by threshold, as ``evaluation.py`` of WIDER FACE's Python port goes about it."""
    every = [float(score) for one in found for score in one.conf]
    low, high = min(every), max(every)
    curve = np.zeros((1000, 2))
    n_faces = 0
    for one, boxes, counts in zip(found, truth.xywh, truth.counts[setting], strict=True):
        n_faces += int(counts.sum())
        if len(one) == 0 or len(boxes) == 0:
            continue
        rows = sorted(zip(one.xyxy.tolist(), one.conf.tolist(), strict=True), key=lambda row: -row[1])
        recalled, proposal, n_recalled = [0] * len(boxes), [1] * len(rows), []
        for h, (box, _) in enumerate(rows):
            overlaps = []
            for x, y, w, height in boxes.tolist():
                iw = min(box[2], x + w) - max(box[0], x) + 1
                ih = min(box[3], y + height) - max(box[1], y) + 1
                shared = iw * ih if iw > 0 and ih > 0 else 0.0
                area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                overlaps.append(shared / (area + (w + 1) * (height + 1) - shared))
            best = overlaps.index(max(overlaps))
            if overlaps[best] >= 0.5:
                if not counts[best]:
                    recalled[best] = -1
                    proposal[h] = -1
                elif recalled[best] == 0:
                    recalled[best] = 1
            n_recalled.append(sum(value == 1 for value in recalled))
        scores = [(score - low) / (high - low) for _, score in rows]
        for t in range(1000):
            above = [k for k, score in enumerate(scores) if score >= 1 - (t + 1) / 1000]
            if above:
                curve[t, 0] += sum(proposal[k] == 1 for k in above)
                curve[t, 1] += n_recalled[above[-1]]
    recall = [0.0, *(curve[:, 1] / n_faces), 1.0]
    precision = [0.0, *(true / n if n else 0.0 for n, true in curve), 0.0]
    for k in range(len(precision) - 1, 0, -1):
        precision[k - 1] = max(precision[k - 1], precision[k])
    return sum(
        (recall[k + 1] - recall[k]) * precision[k + 1] for k in range(len(recall) - 1) if recall[k] != recall[k + 1]
    )


@pytest.mark.parametrize("seed", range(6))
def test_protocol_agrees_with_the_slow_walk(seed: int) -> None:
    generator = np.random.default_rng(seed)
    boxes, found, counts = [], [], []
    for _ in range(8):
        xywh = np.round(generator.uniform([0, 0, 8, 12], [160, 90, 40, 60], (int(generator.integers(0, 6)), 4)))
        near = np.repeat(xywh, 2, axis=0) + generator.normal(0, 3, (2 * len(xywh), 4))
        stray = generator.uniform([0, 0, 8, 12], [160, 90, 40, 60], (int(generator.integers(0, 3)), 4))
        rows = np.concatenate([near, stray])
        conf = generator.permutation(len(rows)) / 37 + generator.uniform(0, 0.01)
        xyxy = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
        boxes.append(xywh)
        found.append(_found([(*box, score) for box, score in zip(xyxy.tolist(), conf.tolist(), strict=True)]))
        counts.append(generator.random(len(xywh)) < 0.6)
    truth = WiderTruth(tuple(map(str, range(8))), tuple(boxes), dict.fromkeys(SETTINGS, tuple(counts)))
    expected = _slow(found, truth, "easy")
    assert 0.1 < expected < 1
    assert wider_average_precision(found, truth, "easy") == pytest.approx(expected, abs=1e-9)
