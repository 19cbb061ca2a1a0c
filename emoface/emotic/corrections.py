"""Rules for irregularities in EMOTIC's annotations: each is corrected or rejected, and each is noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from emoface.emotic.annotations import PersonAnnotation
from emoface.schema import CATEGORIES, DIMENSIONS

PEOPLE_NOTES: dict[str, str] = {
    "box_corners_swapped": "x1 above x2 or y1 above y2: the corners are sorted",
    "box_outside_photo": "part of the box is beyond the photo: it is clipped",
    "box_fractional": "the box has fractions of pixels: it is not changed",
    "box_refused": "not four finite numbers, or no area inside the photo: body_bbox is null",
    "category_spelling": "another spelling of a category (case, spaces): EMOTIC's spelling is used",
    "category_unknown": "the word is not a category: it is left out",
    "category_repeated": "one annotator chose a category twice: it counts once",
    "categories_missing": "no category is left: labels are all 0",
    "categories_uncombined": "the combined categories are missing: those of all annotators are used",
    "value_unreadable": "a value in a CSV file is not a list: it counts as missing",
    "cell_squeezed": "a one-element cell was stored as its element: it is read as the cell",
    "dimension_missing": "valence, arousal or dominance is not a number: it is null",
    "dimension_out_of_range": "valence, arousal or dominance is not within 1-10: it is null",
    "dimensions_uncombined": "the combined dimensions are missing: the mean over the annotators is used",
    "gender_missing": "there is no gender: it is null",
    "gender_spelling": "another spelling of a gender: EMOTIC's spelling is used",
    "gender_unknown": "the word is not one of EMOTIC's genders: it is null",
    "age_missing": "there is no age: it is null",
    "age_spelling": "another spelling of an age: EMOTIC's spelling is used",
    "age_unknown": "the word is not one of EMOTIC's ages: it is null",
    "person_repeated": "an earlier row of the photo has the same box: same_person_as is its index",
    "person_nearly_repeated": "an earlier row has nearly the same box, gender and age: same_person_as is its index",
}
"""Irregularities of a person, and the correction of each."""

PHOTO_NOTES: dict[str, str] = {
    "photo_unnamed": "the photo has no filename: its people have no row",
    "photo_without_people": "no person is annotated: the photo has no row",
    "photo_repeated": "the photo is listed again: the numbering of its people continues",
    "photo_missing": "the photo is not below the image root: the annotated size is used; a similar name is noted",
    "photo_unreadable": "the photo cannot be opened: the annotated size is used",
    "photo_turned": "the annotated size and boxes are those of the photo turned upright by its orientation",
    "frame_unknown": "the size does not tell whether boxes are of the stored or the upright photo: --frame decides",
    "image_size_differs": "the photo has another size than annotated: its own size is used, boxes are not scaled",
    "image_size_missing": "no size is annotated: the photo's own size is used; without a photo 0, 0 and no clipping",
    "image_size_doubtful": "a CSV file lists height before width and there is no photo: boxes are not clipped",
    "source_unknown": "the first folder is not one of EMOTIC's collections: it is used as the source",
}
"""Irregularities of a photo, and the correction of each."""

Noter = Callable[[str, object, object], None]
"""Adds a note: the kind of irregularity, the value in the file, and the corrected value."""

GENDERS = ("Male", "Female")
AGES = ("Kid", "Teenager", "Adult")
_LEAST, _MOST = 1.0, 10.0


@dataclass(frozen=True)
class Note:
    """One irregularity.

    Attributes:
        person_id: The person; for an irregularity of a photo, the photo's path.
        what: A key of ``PEOPLE_NOTES`` or ``PHOTO_NOTES``.
        before: The value in the file.
        after: The corrected value.
    """

    person_id: str
    what: str
    before: str
    after: str


@dataclass(frozen=True)
class CorrectedPerson:
    """One person after all corrections.

    Attributes:
        body_bbox: xyxy in original pixels, clipped to the photo; None where the box was rejected.
        categories: In the data set's spelling, in the order of the annotations.
        labels: (n_labels,) indicator, n_labels being 26 for EMOTIC.
        annotator_votes: (n_labels,) number of annotators who chose each category; None where the choices of single
            annotators are not known.
        n_annotators: Number of annotators; None where the choices of single annotators are not known.
        vad: Valence, arousal, dominance, each 1-10 or None.
        gender: ``Male``, ``Female`` or None.
        age: ``Kid``, ``Teenager``, ``Adult`` or None.
    """

    body_bbox: tuple[float, ...] | None
    categories: tuple[str, ...]
    labels: tuple[int, ...]
    annotator_votes: tuple[int, ...] | None
    n_annotators: int | None
    vad: tuple[float | None, ...]
    gender: str | None
    age: str | None


def correct_person(
    person: PersonAnnotation,
    person_id: str,
    image_wh: tuple[int, int] | None,
    label_names: tuple[str, ...] = CATEGORIES,
) -> tuple[CorrectedPerson, list[Note]]:
    """Applies every rule to one person.

    Args:
        person: As stored.
        person_id: The person's identifier in the notes.
        image_wh: Width and height of the photo, pixels, by which the box is clipped; None if it is not known.
        label_names: The labels of the data set, in their order.

    Returns:
        The corrected person, and one note per irregularity.

    Example:
        >>> stored = PersonAnnotation((8, 9, 2, 3), (("Peace",),), ((5, 5, 5),), ("Peace",), (5, 5, 5), "Male", "Adult")
        >>> person, notes = correct_person(stored, "a/b.jpg#0", (640, 480))
        >>> person.body_bbox, [note.what for note in notes]
        ((2.0, 3.0, 8.0, 9.0), ['box_corners_swapped'])
    """
    notes: list[Note] = []

    def note(what: str, before: object, after: object) -> None:
        notes.append(Note(person_id, what, _to_text(before), _to_text(after)))

    for name in person.squeezed:
        note("cell_squeezed", name, f"cell of {name}")
    for text in person.unreadable:
        note("value_unreadable", text, "")
    body_bbox = _correct_box(person.body_bbox, image_wh, note)
    chosen = [_correct_categories(names, label_names, note) for names in person.annotator_categories]
    combined = _correct_categories(person.categories, label_names, note, tuple(person.annotator_categories))
    if not person.categories and any(chosen):
        combined = tuple(name for name in label_names if any(name in names for names in chosen))
        note("categories_uncombined", "", combined)
    if not combined:
        note("categories_missing", person.categories, "")
    votes = tuple(map(sum, zip(*(_to_indicator(names, label_names) for names in chosen), strict=True)))
    return (
        CorrectedPerson(
            body_bbox=body_bbox,
            categories=combined,
            labels=_to_indicator(combined, label_names),
            annotator_votes=votes if chosen else None,
            n_annotators=len(chosen) or None,
            vad=_correct_dimensions(person, note),
            gender=_correct_word("gender", person.gender, GENDERS, note),
            age=_correct_word("age", person.age, AGES, note),
        ),
        notes,
    )


def _correct_box(box: tuple[float, ...], image_wh: tuple[int, int] | None, note: Noter) -> tuple[float, ...] | None:
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        note("box_refused", box, "")
        return None
    x1, y1, x2, y2 = map(float, box)
    ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    if ordered != box:
        note("box_corners_swapped", box, ordered)
    if any(value != int(value) for value in ordered):
        note("box_fractional", ordered, ordered)
    clipped = ordered if image_wh is None else _clip(ordered, image_wh)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        note("box_refused", box, "")
        return None
    if clipped != ordered:
        note("box_outside_photo", ordered, clipped)
    return clipped


def _clip(xyxy: Sequence[float], image_wh: tuple[int, int]) -> tuple[float, ...]:
    """``clip_boxes`` for one box of any precision: float32 would change fractional boxes."""
    return tuple(min(max(value, 0.0), float(side)) for value, side in zip(xyxy, image_wh * 2, strict=True))


def _correct_categories(
    names: Iterable[str], label_names: tuple[str, ...], note: Noter, noted: tuple[tuple[str, ...], ...] = ()
) -> tuple[str, ...]:
    """The labels among ``names``; words that an annotator in ``noted`` wrote too are not noted again."""
    known: list[str] = []
    for name in names:
        found = find_label(name, label_names)
        is_noted = any(name in others for others in noted)
        if found is None:
            if not is_noted:
                note("category_unknown", name, "")
        elif found in known:
            if not is_noted:
                note("category_repeated", name, found)
        else:
            if found != name and not is_noted:
                note("category_spelling", name, found)
            known.append(found)
    return tuple(known)


def _correct_dimensions(person: PersonAnnotation, note: Noter) -> tuple[float | None, ...]:
    stored = person.vad
    if all(math.isnan(value) for value in stored) and len(person.annotator_vad) > 1:
        means = [_mean([vad[k] for vad in person.annotator_vad]) for k in range(len(DIMENSIONS))]
        if not all(math.isnan(value) for value in means):
            note("dimensions_uncombined", "", means)
            stored = tuple(means)
    values: list[float | None] = []
    for name, value in zip(DIMENSIONS, stored, strict=True):
        if not math.isfinite(value):
            note("dimension_missing", f"{name} {value}", "")
        elif not _LEAST <= value <= _MOST:
            note("dimension_out_of_range", f"{name} {value:g}", "")
        values.append(value if math.isfinite(value) and _LEAST <= value <= _MOST else None)
    return tuple(values)


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _correct_word(name: str, word: str | None, known: tuple[str, ...], note: Noter) -> str | None:
    if word is None or not word.strip():
        note(f"{name}_missing", "", "")
        return None
    found = find_word(word, known)
    if found is None:
        note(f"{name}_unknown", word, "")
    elif found != word:
        note(f"{name}_spelling", word, found)
    return found


def find_word(word: str, known: Iterable[str]) -> str | None:
    """EMOTIC's spelling of a gender or age; None if the word is none."""
    return next((one for one in known if one.lower() == word.strip().lower()), None)


def plain_name(name: str) -> str:
    """The letters and digits of a name in lower case, by which spellings of a label are compared."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@lru_cache(maxsize=1024)  # nearly all words of a file are the same few
def find_label(word: str, label_names: tuple[str, ...] = CATEGORIES) -> str | None:
    """The data set's spelling of a label, whatever the case, spaces and signs of the word; None if it is no label.

    Example:
        >>> find_label("doubt / confusion"), find_label("Confusion"), find_label("calm", ("Calm", "Tense"))
        ('Doubt/Confusion', 'Doubt/Confusion', 'Calm')
    """
    return _spellings(label_names).get(plain_name(word))


@lru_cache(maxsize=8)
def _spellings(label_names: tuple[str, ...]) -> dict[str, str]:
    halves = {"doubt": "Doubt/Confusion", "confusion": "Doubt/Confusion"} if label_names == CATEGORIES else {}
    return {plain_name(name): name for name in label_names} | halves


def _to_indicator(names: Iterable[str], label_names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(name in names) for name in label_names)


def _to_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(f"{one:g}" if isinstance(one, float | int) else str(one) for one in value)
    return str(value)
