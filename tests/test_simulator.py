"""Drawn photos: the truth that is told of them is what is in their pixels, and what is drawn causes the labels."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from emoface.schema import CATEGORIES
from emoface.simulator import Cause, PersonPlan, PhotoPlan, draw_photo, draw_plan, label_probabilities
from emoface.simulator.bodies import BodyStyle, draw_body_style
from emoface.simulator.brush import Brush, new_canvas, paste
from emoface.simulator.causes import (
    CLOTHES,
    EXPRESSIONS,
    FREQUENCIES,
    OBJECTS,
    PLACES,
    POSTURES,
    draw_cause,
    draw_dimensions,
    draw_labels,
    draw_scene,
)
from emoface.simulator.faces import FACES, FaceStyle, draw_face_style
from emoface.simulator.photos import DrawnPhoto
from emoface.vision.boxes import box_iou

NEUTRAL = Cause("neutral", "standing", "casual", "office", "none")


def _person(x: float, y: float, face_height: float, cause: Cause = NEUTRAL, hidden_by: str = "") -> PersonPlan:
    return PersonPlan(True, cause, "Female", "Adult", _face(), _body(), x, y, face_height, hidden_by, "placard")


def _face() -> FaceStyle:
    return replace(draw_face_style(np.random.default_rng(4), is_male=False), roll=5.0, yaw=0.1)


def _body() -> BodyStyle:
    return draw_body_style(np.random.default_rng(4), "casual", is_male=False, is_kid=False)


def _draw(*people: PersonPlan, width: int = 300, height: int = 420) -> DrawnPhoto:
    plan = PhotoPlan(
        width, height, "office", "laptop", light=0.3, exposure=1.0, warmth=0, blur=0, noise=2, people=people
    )
    return draw_photo(np.random.default_rng(9), plan)


def _changed_box(a: DrawnPhoto, b: DrawnPhoto, threshold: int = 0) -> tuple[int, int, int, int] | None:
    changed = (np.abs(a.photo.astype(int) - b.photo) > threshold).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("posture", list(POSTURES))
@pytest.mark.parametrize(("x", "face_height"), [(150, 44), (10, 44), (150, 90)])
def test_body_box_is_the_box_of_the_pixels_that_a_person_changes(posture: str, x: float, face_height: float) -> None:
    person = _person(x, 120, face_height, replace(NEUTRAL, posture=posture))
    with_person = _draw(person)
    body = with_person.people[0].body_xyxy
    changed = _changed_box(with_person, _draw())
    assert changed is not None
    assert body == pytest.approx(changed, abs=2)  # the box holds what is more than half opaque
    assert 0 <= body[0] < body[2] <= 300 and 0 <= body[1] < body[3] <= 420


@pytest.mark.parametrize("expression", [name for name in EXPRESSIONS if name != "neutral"])
def test_expression_changes_pixels_inside_the_face_box_and_nowhere_else(expression: str) -> None:
    neutral = _draw(_person(150, 120, 90))
    other = _draw(_person(150, 120, 90, replace(NEUTRAL, expression=expression)))
    changed = _changed_box(neutral, other)
    assert changed is not None and neutral.people[0].face_xyxy is not None
    x1, y1, x2, y2 = neutral.people[0].face_xyxy
    assert x1 <= changed[0] and y1 <= changed[1] and changed[2] <= x2 and changed[3] <= y2
    assert (changed[2] - changed[0]) * (changed[3] - changed[1]) > 0.1 * (x2 - x1) * (y2 - y1)
    assert other.people[0].face_xyxy == neutral.people[0].face_xyxy


def test_landmarks_are_in_the_face_and_eyes_are_where_the_gaze_changes_pixels() -> None:
    person = _person(150, 120, 90)
    drawn = _draw(person).people[0]
    assert drawn.face_xyxy is not None and drawn.landmarks is not None
    x1, y1, x2, y2 = drawn.face_xyxy
    assert drawn.landmarks.shape == (5, 2)
    assert (drawn.landmarks > (x1, y1)).all() and (drawn.landmarks < (x2, y2)).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = drawn.landmarks
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    blue_eyed = replace(person, face=replace(person.face, iris=(0, 80, 255)))
    changed = (np.abs(_draw(person).photo.astype(int) - _draw(blue_eyed).photo) > 12).any(axis=2)
    n_eyes, _, _, centroids = cv2.connectedComponentsWithStats(cv2.dilate(changed.astype(np.uint8), np.ones((9, 9))))
    assert n_eyes == 3  # the background and two
    found = centroids[1:][np.argsort(centroids[1:, 0])]
    assert found == pytest.approx(drawn.landmarks[:2], abs=4)


@pytest.mark.parametrize(("hidden_by", "y"), [("turned_away", 120.0), ("covered", 120.0), ("cut_by_border", -46.0)])
def test_hidden_face_changes_no_pixel(hidden_by: str, y: float) -> None:
    photos = [
        _draw(_person(150, y, 90, replace(NEUTRAL, expression=expression), hidden_by=hidden_by))
        for expression in ("neutral", "surprised", "sad")
    ]
    assert _changed_box(photos[0], photos[1]) is None and _changed_box(photos[0], photos[2]) is None
    assert photos[0].people[0].hidden_by == hidden_by and photos[0].people[0].is_clear
    assert (photos[0].people[0].face_xyxy is None) == (hidden_by == "turned_away")


def test_face_behind_somebody_is_hidden_and_the_one_in_front_is_not() -> None:
    behind, front = _person(150, 200, 40), _person(150, 100, 60)
    drawn = _draw(behind, front).people
    assert [person.hidden_by for person in drawn] == ["other_person", ""]
    apart = _draw(replace(behind, x=60), replace(front, x=220)).people
    assert [person.hidden_by for person in apart] == ["", ""] and all(person.is_clear for person in apart)
    surprised = replace(behind, cause=replace(NEUTRAL, expression="surprised"))
    assert _changed_box(_draw(behind, front), _draw(surprised, front)) is None


def test_half_a_face_is_neither_clear_nor_passed_over_in_silence() -> None:
    drawn = _draw(_person(4, 120, 90)).people[0]
    assert drawn.hidden_by == "other_person" and not drawn.is_clear


def test_same_generator_gives_the_same_photo_and_another_gives_another() -> None:
    def photo(seed: int) -> DrawnPhoto:
        random = np.random.default_rng(seed)
        return draw_photo(random, draw_plan(random))

    assert np.array_equal(photo(3).photo, photo(3).photo)
    assert photo(3).photo.shape != photo(4).photo.shape or not np.array_equal(photo(3).photo, photo(4).photo)


def test_plans_are_of_the_size_number_and_hidden_share_that_is_promised() -> None:
    plans = [draw_plan(np.random.default_rng(seed)) for seed in range(1500)]
    sides = np.array([(max(plan.width, plan.height), min(plan.width, plan.height)) for plan in plans])
    assert sides[:, 0].min() >= 320 and sides[:, 0].max() <= 2000 and sides[:, 1].min() >= 240
    assert (sides[:, 0] > 1500).any() and np.mean([plan.width < plan.height for plan in plans]) > 0.15
    people = [person for plan in plans for person in plan.people if person.is_annotated]
    assert np.mean([person.hidden_by != "" for person in people]) == pytest.approx(0.27, abs=0.03)
    assert 1.3 < len(people) / len(plans) < 1.8
    assert {person.cause.expression for person in people} == set(EXPRESSIONS)
    for plan in plans:
        assert {(person.cause.place, person.cause.object) for person in plan.people} <= {(plan.place, plan.object)}
        heights = [person.face_height for person in plan.people]
        assert heights == sorted(heights)  # back to front


def test_every_cause_can_be_drawn() -> None:
    for expression, posture, clothes in itertools.product(FACES, ("slumped", "hand_on_head"), CLOTHES):
        cause = Cause(expression, posture, clothes, "park", "none")
        assert len(_draw(_person(70, 40, 20, cause), width=140, height=180).people) == 1
    for place in PLACES:
        for thing in OBJECTS[place]:
            plan = replace(draw_plan(np.random.default_rng(1)), place=place, object=thing, people=(), noise=0, blur=0)
            bare = replace(plan, object="none")
            photo, without = (draw_photo(np.random.default_rng(2), p).photo for p in (plan, bare))
            assert (thing == "none") == np.array_equal(photo, without)


def test_expected_label_shares_are_those_of_emotic() -> None:
    """The sum over every possible person, one by one."""
    total, weight = np.zeros(26), 0.0
    for (expression, p), (posture, q), (clothes, r) in itertools.product(
        EXPRESSIONS.items(), POSTURES.items(), CLOTHES.items()
    ):
        for place, s in PLACES.items():
            for thing, t in zip(OBJECTS[place], (0.5, 0.25, 0.25), strict=True):
                share = p * q * r * s * t
                total += share * label_probabilities(Cause(expression, posture, clothes, place, thing))
                weight += share
    assert weight == pytest.approx(1)
    assert dict(zip(CATEGORIES, total, strict=True)) == pytest.approx(FREQUENCIES, abs=1e-6)


def test_who_sees_fewer_streams_knows_the_mean_of_what_they_hide() -> None:
    cause = Cause("laugh", "running", "sport", "beach", "ball")
    mean = sum(
        share * label_probabilities(replace(cause, expression=expression)) for expression, share in EXPRESSIONS.items()
    )
    assert label_probabilities(cause, ("body", "context")) == pytest.approx(mean)
    mean = sum(
        p * q * label_probabilities(replace(cause, posture=posture, clothes=clothes), ("face", "context"))
        for (posture, p), (clothes, q) in itertools.product(POSTURES.items(), CLOTHES.items())
    )
    assert label_probabilities(cause, ("face", "context")) == pytest.approx(mean)
    assert label_probabilities(cause, ()) == pytest.approx([FREQUENCIES[name] for name in CATEGORIES])


def test_each_stream_holds_something_that_the_others_lack() -> None:
    random = np.random.default_rng(0)
    causes = [draw_cause(random, *draw_scene(random)) for _ in range(6000)]
    labels = np.stack([draw_labels(random, label_probabilities(cause)) for cause in causes])

    def mean_average_precision(*streams: str) -> float:
        seen = np.stack([label_probabilities(cause, streams) for cause in causes])
        return float(np.mean([average_precision_score(labels[:, k], seen[:, k]) for k in range(26)]))

    everything = mean_average_precision("face", "body", "context")
    assert everything > mean_average_precision("body", "context") + 0.1
    assert everything > mean_average_precision("face", "context") + 0.05
    assert everything > mean_average_precision("face", "body") + 0.05
    assert mean_average_precision("body", "context") > mean_average_precision("body") + 0.05


def test_everybody_has_a_label_and_dimensions_follow_from_labels() -> None:
    random = np.random.default_rng(0)
    nothing = np.zeros(26)
    nothing[7] = 1e-9
    assert draw_labels(random, nothing).nonzero()[0].tolist() == [7]
    happy, suffering = np.zeros(26, np.uint8), np.zeros(26, np.uint8)
    happy[CATEGORIES.index("Happiness")] = happy[CATEGORIES.index("Excitement")] = 1
    suffering[CATEGORIES.index("Pain")] = suffering[CATEGORIES.index("Fear")] = 1
    glad = np.array([draw_dimensions(random, happy) for _ in range(200)])
    sore = np.array([draw_dimensions(random, suffering) for _ in range(200)])
    assert set(np.unique(glad)) <= set(range(1, 11))
    assert glad[:, 0].mean() > sore[:, 0].mean() + 2 and glad[:, 2].mean() > sore[:, 2].mean() + 2


def test_moved_brush_turns_clockwise_and_ellipse_has_its_area() -> None:
    canvas = new_canvas(300, 200)
    brush = Brush(canvas, np.array([[20.0, 0, 100], [0, 20, 80]]))
    turned = brush.moved(2, 1, degrees=90)
    assert turned.to_canvas(np.array([[0.0, 0], [1, 0], [0, 1]])) == pytest.approx(
        np.array([[140.0, 100], [140, 120], [120, 100]])
    )
    brush.ellipse(0, 0, 3, 1.5, (255, 255, 255))
    assert canvas[..., 3].sum() / 255 == pytest.approx(
        np.pi * 60 * 30, rel=0.04
    )  # the soft edge is half a pixel outside


@pytest.mark.parametrize(("left", "top"), [(2, 1), (-3, -2), (6, 3), (50, 0)])
def test_paste_agrees_with_pixel_by_pixel(left: int, top: int) -> None:
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (4, 5, 1), dtype=np.uint8)
    color = (random.random((4, 5, 3)) * alpha).astype(np.uint8)
    canvas = np.dstack([color, alpha])
    expected = photo.astype(float)
    for row, column in itertools.product(range(4), range(5)):
        if 0 <= top + row < 6 and 0 <= left + column < 9:
            through = 1 - canvas[row, column, 3] / 255
            expected[top + row, left + column] = canvas[row, column, :3] + through * photo[top + row, left + column]
    paste(photo, canvas, left, top)
    assert photo == pytest.approx(expected, abs=1)


def test_real_detector_finds_what_is_visible_and_nothing_that_is_hidden(weights_dir: Path) -> None:
    from emoface.yolov5face import load_detector

    detector = load_detector(weights_dir / "yolov5n-face.param", conf_threshold=0.5, n_threads=1)
    n_visible, n_found, n_stray = 0, 0, 0
    for seed in range(60):
        random = np.random.default_rng((77, seed))
        drawn = draw_photo(random, draw_plan(random))
        if not all(person.is_clear for person in drawn.people):
            continue
        visible = np.array([p.face_xyxy for p in drawn.people if not p.hidden_by], np.float32).reshape(-1, 4)
        iou = box_iou(visible, detector.detect([drawn.photo])[0].xyxy)
        n_visible += len(visible)
        n_found += int((iou.max(axis=1, initial=0) > 0.5).sum())
        n_stray += int((iou.max(axis=0, initial=0) <= 0.5).sum())
    assert n_visible > 50 and n_found >= 0.95 * n_visible
    assert n_stray == 0
