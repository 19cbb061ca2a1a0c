"""Fits and cross-validates the weights of ``HeadPrior`` on people of EMOTIC whose faces were labelled by eye.

    EMOFACE_WEIGHTS=FOLDER python docs/benchmarks/head_prior.py EMOTIC_ROOT --labels LABELS.json --out DIR \\
        [--annotations FOLDER] [--images FOLDER] [--detector yolov5n-face] [--image-size 640] [--min-face-size 10] \\
        [--compare-sizes 640 960 1280]

LABELS.json is a list of annotated people whose faces were labelled by eye, each an object with

- ``filename``: name of the photo's file, unique in the data set
- ``bbox``: the person's body box x1, y1, x2, y2, pixels, as annotated
- ``faces``: boxes of the detected faces near that person, x1, y1, x2, y2, pixels
- ``face``: position in ``faces`` of the person's own face; or ``none`` (it cannot be seen), ``missed`` (it can be seen,
  but was not detected) or ``unsure`` (the person is left out)

The script parses the annotations, detects the faces of the labelled photos and of photos of one person (it keeps the
detections in DIR and reads them in the next run), and fits the weights by logistic regression of whether a face is a
person's own. Its rows are all pairs of a labelled person and a face of the list that is inside the person's body box;
and, with a small weight, people who are the only annotated person of a photo with a single detected face, whose face it
must be. Cross-validation is over photos: the people of a fifth of the labelled photos are scored with the weights of
the other four fifths. Lone people are in every fit; no labelled photo is among theirs. The tables are Markdown, with
95 % Wilson intervals. The faces of the list are detections at one image size: a face that only another size finds has
no label, so ``--compare-sizes`` favours that size.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from emoface.datasets.photos import PhotoFolder
from emoface.inference.faces import (
    DetectorSettings,
    FaceSettings,
    assign_detections,
    find_detector_weights,
    load_face_detector,
)
from emoface.jobs.faces import AnnotatedPhoto, list_photos
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.schema import PEOPLE_SCHEMA
from emoface.storage.tables import read_table
from emoface.vision.assignment import DEFAULT_HEAD_PRIOR, UNASSIGNED, HeadPrior, face_costs, head_features
from emoface.vision.boxes import box_iou
from emoface.vision.detections import Detections
from emoface.vision.orientation import Turn

N_FOLDS = 5
MIN_IOU = 0.5
"""Overlap from which a detected face is the labelled one."""
DETECTED_CONF = 0.15
"""Faces of lower scores are not kept."""
LONE_WEIGHT = 0.05
"""Weight of a lone person's row in the fit; a labelled person's rows have weight 1."""
INVERSE_REGULARIZATION = 0.1
"""``C`` of the logistic regression, on terms divided by their standard deviation."""
ACCEPTED_LOG_ODDS = -2.0
"""A face may be a person's if the logarithm of its odds is this or more."""
TERMS = ("side", "above", "below", "smaller")
OWN, OTHER, FALSE, LOST, EMPTY = "own", "another's", "false", "lost", "rightly none"


@dataclass(frozen=True)
class LabelledPerson:
    """A person whose face was labelled by eye.

    Attributes:
        photo: Position of the photo in the data set.
        person: Position of the person in the photo.
        body_xyxy: (1, 4) body box as the data set has it.
        face_xyxy: (m, 4) the faces among which the person's own was sought.
        own: Position of the own face in ``face_xyxy``; None if it cannot be seen or was not detected.
        is_missed: Whether the face can be seen but was not detected.
    """

    photo: int
    person: int
    body_xyxy: NDArray[np.float32]
    face_xyxy: NDArray[np.float32]
    own: int | None
    is_missed: bool

    @property
    def own_side(self) -> float:
        """Shorter side of the own face, pixels; nan without one."""
        return (
            float("nan") if self.own is None else float(np.diff(self.face_xyxy[self.own].reshape(2, 2), axis=0).min())
        )


@dataclass(frozen=True)
class FitRows:
    """Rows of the logistic regression.

    Attributes:
        terms: (n, 4) ``head_features`` of a person and a face.
        is_own: (n,) whether the face is the person's.
        weights: (n,).
    """

    terms: NDArray[np.float64]
    is_own: NDArray[np.bool_]
    weights: NDArray[np.float64]


def find_labelled(labels: list[dict[str, Any]], photos: Sequence[AnnotatedPhoto]) -> list[LabelledPerson]:
    """Finds the labelled people in the data set, without those that are unsure."""
    photo_of = {Path(photo.image).name: number for number, photo in enumerate(photos)}
    people = []
    for label in labels:
        if label["face"] == "unsure":
            continue
        number = photo_of[label["filename"]]
        bodies = photos[number].body_xyxy
        person = int(np.nanargmin(np.abs(bodies - np.array(label["bbox"], np.float32)).max(axis=1)))
        faces = np.array(label["faces"], np.float32).reshape(-1, 4)
        own = label["face"] if isinstance(label["face"], int) else None
        people.append(LabelledPerson(number, person, bodies[[person]], faces, own, label["face"] == "missed"))
    return people


def detect_all(
    photos: Sequence[AnnotatedPhoto], folder: PhotoFolder, settings: DetectorSettings, cache: Path
) -> list[Detections]:
    """Detects the faces of all photos, or reads those of an earlier run with the same photos and weights."""
    key = json.dumps([settings.to_json(), find_detector_weights(settings).sha256, [photo.image for photo in photos]])
    if cache.is_file():
        with np.load(cache) as kept:
            if str(kept["key"]) == key:
                ends = np.cumsum(kept["n_faces"])[:-1]
                columns = [np.split(kept[name], ends) for name in ("xyxy", "landmarks", "conf")]
                return [Detections(*one) for one in zip(*columns, strict=True)]
    detector = load_face_detector(settings)
    found = []
    for photo in photos:
        one = folder.try_read(photo.image, photo.image_wh).photo
        faces = Detections.empty() if one is None else detector.detect([one.pixels])[0]
        found.append(faces if one is None else to_boxes_frame(faces, one.turn))
    stacked = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("xyxy", "landmarks", "conf")}
    np.savez(cache, key=key, n_faces=[len(one) for one in found], **stacked)
    return found


def to_boxes_frame(faces: Detections, turn: Turn) -> Detections:
    """Takes the faces of an upright photo to the frame of its annotated boxes."""
    return Detections(turn.to_stored(faces.xyxy), turn.points_to_stored(faces.landmarks), faces.conf)


def labelled_rows(people: Sequence[LabelledPerson]) -> FitRows:
    """Makes the rows of all pairs of a labelled person and a face that is inside the person's body box."""
    terms, is_own = [np.empty((0, len(TERMS)))], [np.empty(0, np.bool_)]
    for person in people:
        is_possible = np.isfinite(face_costs(person.body_xyxy, person.face_xyxy)[0])
        terms.append(head_features(person.body_xyxy, person.face_xyxy)[0][is_possible])
        is_own.append((np.arange(len(person.face_xyxy)) == person.own)[is_possible])
    n = sum(map(len, is_own))
    return FitRows(np.concatenate(terms), np.concatenate(is_own), np.ones(n))


def lone_rows(photos: Sequence[AnnotatedPhoto], found: Sequence[Detections], labelled: set[int]) -> FitRows:
    """Makes the rows of people who are alone in their photo, with its only face, in photos without labels."""
    terms = [np.empty((0, len(TERMS)))]
    for number, (photo, faces) in enumerate(zip(photos, found, strict=True)):
        is_alone = len(np.unique(photo.first_row)) == 1 and len(faces) == 1
        if is_alone and number not in labelled and np.isfinite(face_costs(photo.body_xyxy[:1], faces.xyxy)).all():
            terms.append(head_features(photo.body_xyxy[:1], faces.xyxy)[0])
    rows = np.concatenate(terms)
    return FitRows(rows, np.ones(len(rows), np.bool_), np.full(len(rows), LONE_WEIGHT))


def fit_prior(*parts: FitRows) -> HeadPrior:
    """Fits the weights of a ``HeadPrior`` and its price of having no face."""
    terms = np.concatenate([rows.terms for rows in parts])
    std = terms.std(axis=0)
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=5000)
    model.fit(
        terms / std,
        np.concatenate([rows.is_own for rows in parts]),
        np.concatenate([rows.weights for rows in parts]),
    )
    weights = dict(zip(TERMS, (-model.coef_[0] / std).tolist(), strict=True))
    return HeadPrior(**weights, max_cost=float(model.intercept_[0]) - ACCEPTED_LOG_ODDS)


@dataclass(frozen=True)
class Case:
    """What became of one labelled person.

    Attributes:
        person: The person.
        outcome: ``OWN``: got the own face; ``OTHER``: has one but got another; ``FALSE``: has none but got one;
            ``LOST``: has one but got none; ``EMPTY``: neither has nor got one.
        margin: ``FaceAssignment.margin``, nan without a face.
    """

    person: LabelledPerson
    outcome: str
    margin: float


def score_people(
    people: Sequence[LabelledPerson],
    photos: Sequence[AnnotatedPhoto],
    found: Sequence[Detections],
    settings: FaceSettings,
    prior: HeadPrior,
) -> list[Case]:
    """Assigns the faces of the labelled photos, and compares each labelled person's face with the label."""
    cases = []
    for person in people:
        photo, faces = photos[person.photo], found[person.photo]
        faces = faces[faces.conf >= settings.conf_threshold]
        assigned = assign_detections(photo.image_wh, photo.body_xyxy, faces, settings, photo.first_row, prior)
        given = int(assigned.face_index[person.person])
        has_face = person.own is not None or person.is_missed
        if given == UNASSIGNED:
            outcome = LOST if has_face else EMPTY
        elif not has_face:
            outcome = FALSE
        else:
            own_xyxy = person.face_xyxy[[] if person.own is None else [person.own]]
            is_own = bool((box_iou(assigned.found.xyxy[[given]], own_xyxy) > MIN_IOU).any())
            outcome = OWN if is_own else OTHER
        cases.append(Case(person, outcome, float(assigned.margin[person.person])))
    return cases


def cross_validate(
    people: Sequence[LabelledPerson],
    lone: FitRows,
    photos: Sequence[AnnotatedPhoto],
    found: Sequence[Detections],
    settings: FaceSettings,
) -> list[Case]:
    """Scores the labelled people of each fifth of the photos with weights fitted without them."""
    fold_of = {photo: k % N_FOLDS for k, photo in enumerate(sorted({person.photo for person in people}))}
    cases = []
    for fold in range(N_FOLDS):
        prior = fit_prior(labelled_rows([one for one in people if fold_of[one.photo] != fold]), lone)
        cases += score_people([one for one in people if fold_of[one.photo] == fold], photos, found, settings, prior)
    return cases


def outcome_rows(title: str, cases: Sequence[Case], min_face_size: float) -> list[str]:
    """Makes the table rows of one prior: people by the size of their face, and the share of wrong faces."""
    groups = {
        f"face of {min_face_size:g} px and more": [case for case in cases if case.person.own_side >= min_face_size],
        f"face under {min_face_size:g} px": [case for case in cases if case.person.own_side < min_face_size],
        "face not detected": [case for case in cases if case.person.is_missed],
        "no face to see": [case for case in cases if case.person.own is None and not case.person.is_missed],
    }
    rows = []
    for group, members in groups.items():
        counts = Counter(case.outcome for case in members)
        cells = [interval(counts[outcome], len(members)) for outcome in (OWN, OTHER, FALSE, LOST)]
        if members:
            rows.append(f"| {title} | {group} | {len(members)} | {' | '.join(cells)} |")
    return rows


def wrong_share(cases: Sequence[Case]) -> str:
    """Formats the share of given faces that are not the person's own, with its interval."""
    counts = Counter(case.outcome for case in cases)
    n_wrong = counts[OTHER] + counts[FALSE]
    return interval(n_wrong, counts[OWN] + n_wrong)


def margin_rows(cases: Sequence[Case], min_face_size: float) -> list[str]:
    """Makes a table row for each least margin of a given face, if faces of smaller margins were refused."""
    n_large = sum(case.person.own_side >= min_face_size for case in cases)
    rows = []
    for min_margin in (0, 0.5, 1, 2, 3):
        kept = [case for case in cases if case.margin >= min_margin]
        n_own = sum(case.outcome == OWN and case.person.own_side >= min_face_size for case in kept)
        rows.append(f"| {min_margin:g} | {interval(n_own, n_large)} | {wrong_share(kept)} |")
    return rows


def interval(n: int, n_of: int) -> str:
    """Formats a share with its 95 % Wilson interval; the count alone if it is 0 or the share of nothing."""
    if n == 0:
        return "0" if n_of == 0 else f"0 (0 - {100 * binomtest(0, n_of).proportion_ci(method='wilson').high:.1f} %)"
    limits = binomtest(n, n_of).proportion_ci(method="wilson")
    return f"{n}: {100 * n / n_of:.1f} % ({100 * limits.low:.1f} - {100 * limits.high:.1f} %)"


def has_same_digits(fitted: float, stated: float) -> bool:
    """Tells whether a fitted number is the stated one when rounded to two significant digits."""
    return float(f"{fitted:.2g}") == stated


def size_rows(
    people: Sequence[LabelledPerson],
    photos: Sequence[AnnotatedPhoto],
    folder: PhotoFolder,
    settings: FaceSettings,
    cache: Path,
) -> list[str]:
    """Makes the table rows of one image size of the detector: each smallest face size, with the package's prior."""
    labelled = sorted({person.photo for person in people})
    faces = detect_all([photos[number] for number in labelled], folder, settings, cache)
    found = dict(zip(labelled, faces, strict=True))
    in_order = [found.get(number, Detections.empty()) for number in range(len(photos))]
    rows = []
    for min_face_size in (8.0, 10.0, 12.0):
        at = settings.replace(min_face_size=min_face_size, conf_threshold=FaceSettings().conf_threshold)
        cases = score_people(people, photos, in_order, at, DEFAULT_HEAD_PRIOR)
        n_own = sum(case.outcome == OWN for case in cases)
        n_with = sum(case.person.own is not None or case.person.is_missed for case in cases)
        rows.append(f"| {at.image_size} | {min_face_size:g} | {interval(n_own, n_with)} | {wrong_share(cases)} |")
    return rows


def main() -> None:
    """Reads the options, fits and cross-validates the weights, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--detector", default="yolov5n-face")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--min-face-size", type=float, default=10.0)
    parser.add_argument("--compare-sizes", type=int, nargs="*", default=[], help="Image sizes of a second table.")
    options = parser.parse_args()
    record = run_parse(
        ParseConfig(emotic_root=options.root, annotations=options.annotations, images=options.images, out=options.out)
    )
    folder = PhotoFolder.of_record(record.info, options.out)
    photos = list_photos(read_table(options.out / "people.parquet", PEOPLE_SCHEMA, ""))
    people = find_labelled(json.loads(options.labels.read_text()), photos)
    labelled = {person.photo for person in people}
    needed = [n for n, one in enumerate(photos) if n in labelled or len(np.unique(one.first_row)) == 1]
    photos = [photos[n] for n in needed]
    people = find_labelled(json.loads(options.labels.read_text()), photos)
    labelled = {person.photo for person in people}

    kept = FaceSettings(
        detector=options.detector,
        image_size=options.image_size,
        min_face_size=options.min_face_size,
        conf_threshold=DETECTED_CONF,
    )
    settings = kept.replace(conf_threshold=FaceSettings().conf_threshold)
    found = detect_all(photos, folder, kept, options.out / f"detections_{options.image_size}.npz")
    lone = lone_rows(photos, [faces[faces.conf >= settings.conf_threshold] for faces in found], labelled)
    rows = labelled_rows(people)
    fitted = fit_prior(rows, lone)
    print(
        f"{len(people)} labelled people of {len(labelled)} photos, {len(rows.terms)} pairs with a face "
        f"({rows.is_own.sum()} own); {len(lone.terms)} lone people\n"
    )
    print("| | fitted | in the package | same to two digits |\n|---|---:|---:|---|")
    for name in (*TERMS, "max_cost"):
        values = getattr(fitted, name), getattr(DEFAULT_HEAD_PRIOR, name)
        print(f"| {name} | {values[0]:.3f} | {values[1]:g} | {'yes' if has_same_digits(*values) else 'no'} |")

    print("\n| weights | people | number | own face | another's | false | lost |\n|---|---|---:|---|---|---|---|")
    cases_of = {
        "fitted, cross-validated": cross_validate(people, lone, photos, found, settings),
        "in the package": score_people(people, photos, found, settings, DEFAULT_HEAD_PRIOR),
    }
    for title, cases in cases_of.items():
        print("\n".join(outcome_rows(title, cases, options.min_face_size)))
    print()
    for title, cases in cases_of.items():
        print(f"{title}, given faces that are wrong: {wrong_share(cases)}")

    print(f"\n| least margin | own face, of {options.min_face_size:g} px and more | wrong, of given faces |")
    print("|---:|---|---|")
    print("\n".join(margin_rows(cases_of["fitted, cross-validated"], options.min_face_size)))

    if options.compare_sizes:
        print("\n| image size | smallest face, px | own face, of all who have one | wrong, of given faces |")
        print("|---:|---:|---|---|")
    for image_size in options.compare_sizes:
        sized = kept.replace(image_size=image_size)
        print("\n".join(size_rows(people, photos, folder, sized, options.out / f"labelled_{image_size}.npz")))


if __name__ == "__main__":
    main()
