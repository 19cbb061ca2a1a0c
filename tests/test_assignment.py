"""Faces to people: hand-worked photos, and a slow search over every possible assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from emoface.vision.assignment import DEFAULT_HEAD_PRIOR, UNASSIGNED, assign_faces, face_costs


def _boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


STANDING = (100, 50, 200, 400)
ITS_FACE = (132, 62, 168, 106)


def test_no_people_or_no_faces_gives_nobody_a_face() -> None:
    nobody = assign_faces(_boxes(), _boxes(ITS_FACE))
    assert nobody.face_index.tolist() == nobody.lost_to_other.tolist() == nobody.margin.tolist() == []
    faceless = assign_faces(_boxes(STANDING), _boxes())
    assert faceless.face_index.tolist() == [UNASSIGNED] and faceless.lost_to_other.tolist() == [False]
    assert np.isnan(faceless.margin).all()


def test_cost_is_the_weighted_sum_of_place_and_size() -> None:
    # A face 36 wide, 6 right of the middle of a box of 100 x 350, 42 below its top; the expected width is 34.
    prior = DEFAULT_HEAD_PRIOR
    face = (138, 92, 174, 136)
    expected = prior.side * 0.06**2 + prior.below * (42 - 0.08 * 350) / 100
    assert face_costs(_boxes(STANDING), _boxes(face))[0, 0] == pytest.approx(expected, rel=1e-4)
    # A face 17 wide, half of what is expected, in the middle and 7 above the top: 0.02 of the height above 0.
    face = (141.5, 43, 158.5, 63)
    expected = prior.above * (0.02 + 0.02) ** 2 + prior.smaller * np.log(2)
    assert face_costs(_boxes(STANDING), _boxes(face))[0, 0] == pytest.approx(expected, rel=1e-4)


def test_a_face_at_the_knees_or_mostly_outside_is_nobodys() -> None:
    faces = _boxes((132, 300, 168, 344), (80, 62, 116, 106))
    assert assign_faces(_boxes(STANDING), faces).face_index.tolist() == [UNASSIGNED]


def test_two_people_who_overlap_never_share_a_face() -> None:
    people = _boxes(STANDING, (150, 52, 250, 400))
    one_face = _boxes((182, 64, 218, 108))
    found = assign_faces(people, one_face)
    assert found.face_index.tolist() == [UNASSIGNED, 0]
    two_faces = _boxes((182, 64, 218, 108), ITS_FACE)
    assert assign_faces(people, two_faces).face_index.tolist() == [1, 0]
    assert not found.lost_to_other[1]


def test_a_near_face_that_went_to_somebody_else_is_told_apart_from_no_face() -> None:
    people = _boxes((100, 50, 200, 400), (104, 50, 206, 400), (500, 50, 600, 400))
    found = assign_faces(people, _boxes(ITS_FACE))
    face_index = found.face_index
    assert sorted(face_index.tolist()) == [UNASSIGNED, UNASSIGNED, 0]
    assert found.lost_to_other.tolist() == [face_index[0] != 0, face_index[1] != 0, False]


def test_a_person_without_a_box_gets_no_face() -> None:
    people = np.vstack([_boxes(STANDING), np.full((1, 4), np.nan, np.float32)])
    assert assign_faces(people, _boxes(ITS_FACE)).face_index.tolist() == [0, UNASSIGNED]


def test_order_of_people_and_faces_does_not_matter() -> None:
    generator = np.random.default_rng(3)
    people, faces = _crowd(generator, n_people=5, n_faces=6)
    face_index = assign_faces(people, faces).face_index
    person_order, face_order = generator.permutation(5), generator.permutation(6)
    shuffled = assign_faces(people[person_order], faces[face_order]).face_index
    for position, person in enumerate(person_order):
        chosen = shuffled[position]
        assert (UNASSIGNED if chosen == UNASSIGNED else face_order[chosen]) == face_index[person]


@pytest.mark.parametrize("seed", range(12))
def test_total_cost_is_the_least_of_all_assignments(seed: int) -> None:
    people, faces = _crowd(np.random.default_rng(seed), n_people=3, n_faces=4)
    costs, price = face_costs(people, faces), DEFAULT_HEAD_PRIOR.max_cost

    def total(choice: tuple[int, ...]) -> float:
        return sum(
            price if face == UNASSIGNED else (costs[person, face] if costs[person, face] <= price else np.inf)
            for person, face in enumerate(choice)
        )

    choices = [
        choice
        for choice in itertools.product(range(UNASSIGNED, 4), repeat=3)
        if len({face for face in choice if face >= 0}) == sum(face >= 0 for face in choice)
    ]
    face_index = assign_faces(people, faces).face_index
    assert total(tuple(face_index.tolist())) == pytest.approx(min(map(total, choices)))


def _crowd(generator: np.random.Generator, n_people: int, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    corners = generator.uniform(0, 120, (n_people, 2))
    people = np.hstack([corners, corners + generator.uniform([80, 150], [140, 400], (n_people, 2))])
    tops = generator.uniform(0, 200, (n_faces, 2))
    faces = np.hstack([tops, tops + generator.uniform([25, 30], [60, 70], (n_faces, 2))])
    return people.astype(np.float32), faces.astype(np.float32)


def test_margin_is_the_cost_of_the_next_best_assignment() -> None:
    # The person on the right could also take the face of the one on the left, who then would have none.
    people = _boxes(STANDING, (130, 52, 230, 400))
    faces = _boxes(ITS_FACE, (162, 64, 198, 108))
    costs, price = face_costs(people, faces), DEFAULT_HEAD_PRIOR.max_cost
    found = assign_faces(people, faces)
    assert found.face_index.tolist() == [0, 1]
    best = costs[0, 0] + costs[1, 1]
    swapped = costs[0, 1] + costs[1, 0]
    assert found.margin[0] == pytest.approx(min(price + costs[1, 1], swapped, costs[1, 0] + price) - best)
    assert found.margin[1] == pytest.approx(min(costs[0, 0] + price, swapped, costs[0, 1] + price) - best)
    alone = assign_faces(_boxes(STANDING), _boxes(ITS_FACE))
    assert alone.margin[0] == pytest.approx(price - face_costs(_boxes(STANDING), _boxes(ITS_FACE))[0, 0])


def test_a_person_seen_behind_another_gets_the_face_of_fitting_size() -> None:
    """Two faces at the top of one box: a small one in the middle, of a person far away, and a large one beside it."""
    sitting = _boxes((380, 730, 520, 960))
    faces = _boxes((402, 762, 438, 800), (456, 740, 474, 757))
    assert assign_faces(sitting, faces).face_index.tolist() == [0]
