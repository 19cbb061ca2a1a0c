"""From the boxes of any annotation program to people as EMOTIC's readers give them: who is a person, what is a label.

A box is a person if its class is a word for a person or a label, or if one of its attributes is a label. A label is the
name of an attribute that is true, a word in the value of an attribute, or the class of the box.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from emoface.emotic import Note, PersonAnnotation, PhotoAnnotation
from emoface.emotic.annotations import to_folder
from emoface.emotic.corrections import find_label
from emoface.errors import AnnotationsError
from emoface.schema import DIMENSIONS, SPLITS

FORM_NOTES: dict[str, str] = {
    "class_unknown": "the class of a box is neither a person nor a label, nor is an attribute: the box has no row",
}
"""Irregularities that only the exports of other programs have, and the correction of each."""

PERSON_CLASSES: frozenset[str] = frozenset(
    ("person", "persons", "people", "human", "pedestrian", "body", "man", "woman", "boy", "girl", "child", "rider")
)
"""Classes of boxes, in lower case, that are people."""

VOTES, ANNOTATORS = "votes", "annotators"
"""Attributes that ``write_coco`` adds: by label the number of annotators who chose it, and the number of annotators."""

_WORDS = ("gender", "age")
_TECHNICAL = frozenset(
    (
        *(
            "occluded",
            "truncated",
            "difficult",
            "outside",
            "keyframe",
            "rotation",
            "iscrowd",
            "crowd",
            "pose",
            "z_order",
        ),
        *("id", "track_id", "group_id", "person_id", "score", "confidence", "source", "type", "is_annotation"),
    )
)
"""Attributes, in lower case, that programs add by themselves; their values are no labels."""
_EMPTY = frozenset(("", "-", "none", "null", "__undefined__", "unknown", "n/a"))
_TRUE, _FALSE = frozenset(("true", "yes", "1")), frozenset(("false", "no", "0"))
_SEPARATORS = re.compile(r"[,;|\n]")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_MOST_NAMED = 8


@dataclass(frozen=True)
class AnnotatedBox:
    """One box of an export.

    Attributes:
        class_name: Its class.
        xyxy: Four numbers, pixels; empty where there is no box.
        attributes: What else is said about it: numbers, truth values, text, lists of text.
    """

    class_name: str
    xyxy: tuple[float, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BoxedPhoto:
    """One photo of an export.

    Attributes:
        image: Path of the photo, as the export has it.
        image_wh: Width and height, pixels; None where they are not known.
        boxes: Its boxes.
        split: ``train``, ``val`` or ``test``.
        source: The collection that the photo is from; empty where the export does not say.
    """

    image: str
    image_wh: tuple[int, int] | None
    boxes: Sequence[AnnotatedBox]
    split: str = SPLITS[0]
    source: str = ""


@dataclass(frozen=True)
class FoundPeople:
    """The people of an export.

    Attributes:
        photos: The photos with their people.
        left_out: A note for each box that is no person.
        is_unlabelled: Whether there is no word about anybody's emotions, so that labels are still to be filled in.
    """

    photos: list[PhotoAnnotation]
    left_out: list[Note]
    is_unlabelled: bool


@dataclass(frozen=True)
class _Words:
    """What the attributes of a box say."""

    labels: tuple[str, ...]
    numbers: Mapping[str, float]
    words: Mapping[str, str]
    votes: Mapping[str, object]
    unreadable: tuple[str, ...]


def find_people(place: str, boxed: Sequence[BoxedPhoto], label_names: tuple[str, ...]) -> FoundPeople:
    """Finds the people among the boxes of an export.

    Several boxes at the same place whose labels are their classes are one person with several labels.

    Args:
        place: The file or folder of the export, for messages.
        boxed: The photos.
        label_names: The labels of the data set.

    Raises:
        AnnotationsError: The export has words, but none of them is a label; or no box is a person.
    """
    photos: list[PhotoAnnotation] = []
    left_out: list[Note] = []
    words: Counter[str] = Counter()
    n_known = 0
    for photo in boxed:
        people: list[PersonAnnotation] = []
        for box in _merge_same_boxes(photo.boxes, label_names):
            said = _read_attributes(box.attributes, label_names)
            names = (*_class_labels(box.class_name, label_names), *said.labels)
            is_labelled = any(find_label(name, label_names) for name in names)
            if is_labelled or box.class_name.strip().lower() in PERSON_CLASSES:
                people.append(_to_person(box, said, names, label_names))
                words.update(names)
                n_known += is_labelled
            else:
                left_out.append(Note(photo.image, "class_unknown", box.class_name, ""))
        folder, _, filename = photo.image.strip().replace("\\", "/").rpartition("/")
        photos.append(
            PhotoAnnotation(filename, to_folder(folder), photo.image_wh, photo.split, photo.source, people=people)
        )
    n_people = sum(len(photo.people) for photo in photos)
    unknown = words + Counter(note.before for note in left_out)
    if not n_known and (words or (left_out and not n_people)):
        raise AnnotationsError(
            f"{place}: none of its words is a label, found {_list_words(unknown)}; expected a class 'person' or labels "
            f"among {_list_names(label_names)}; name the labels of your own with --labels FILE"
        )
    return FoundPeople(photos, left_out, is_unlabelled=not words)


def find_split(*names: str) -> str:
    """Finds the split that a path names: a folder or file called train, val or test; train if none is.

    Example:
        >>> find_split("labels/valid/a.txt"), find_split("instances_val2017.json"), find_split("party.json")
        ('val', 'val', 'train')
    """
    words = [word for name in names for word in re.findall(r"[a-z]+", name.lower())]
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), SPLITS[0])


def _merge_same_boxes(boxes: Sequence[AnnotatedBox], label_names: tuple[str, ...]) -> list[AnnotatedBox]:
    merged: list[AnnotatedBox] = []
    place_of: dict[tuple[float, ...], int] = {}
    for box in boxes:
        says_more = any(name.strip().lower() not in _TECHNICAL for name in box.attributes)
        is_plain = not says_more and find_label(box.class_name, label_names) is not None
        if is_plain and box.xyxy in place_of:
            first = merged[place_of[box.xyxy]]
            names = [*_names(first.attributes.get("labels"), label_names), box.class_name]
            merged[place_of[box.xyxy]] = replace(first, attributes={**first.attributes, "labels": names})
            continue
        if is_plain:
            place_of[box.xyxy] = len(merged)
        merged.append(box)
    return merged


def _class_labels(class_name: str, label_names: tuple[str, ...]) -> tuple[str, ...]:
    return (class_name,) if find_label(class_name, label_names) is not None else ()


def _to_person(
    box: AnnotatedBox, said: _Words, names: tuple[str, ...], label_names: tuple[str, ...]
) -> PersonAnnotation:
    vad = tuple(said.numbers.get(name, math.nan) for name in DIMENSIONS)
    single = _to_single_annotators(said.votes, label_names)
    return PersonAnnotation(
        body_bbox=box.xyxy,
        annotator_categories=single,
        annotator_vad=(vad,) * len(single),
        categories=tuple(dict.fromkeys(names)),
        vad=vad,
        gender=said.words.get("gender"),
        age=said.words.get("age"),
        unreadable=said.unreadable,
    )


def _to_single_annotators(votes: Mapping[str, object], label_names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Choices of single annotators that add up to the votes of a file that ``write_coco`` wrote."""
    n, chosen = votes.get(ANNOTATORS), votes.get(VOTES)
    if not isinstance(n, int) or not isinstance(chosen, Mapping):
        return ()
    counts = {name: count for name, count in chosen.items() if name in label_names and isinstance(count, int)}
    return tuple(tuple(name for name, count in counts.items() if count > one) for one in range(n))


def _read_attributes(attributes: Mapping[str, object], label_names: tuple[str, ...]) -> _Words:
    labels: list[str] = []
    numbers: dict[str, float] = {}
    words: dict[str, str] = {}
    unreadable: list[str] = []
    for name, given in attributes.items():
        key = name.strip().lower()
        value = given[0] if isinstance(given, list) and len(given) == 1 else given
        if key in DIMENSIONS:
            number = _to_number(value)
            if number is not None:
                numbers[key] = number
            elif not _is_empty(value):
                unreadable.append(f"{name} {value}")
        elif key in _WORDS:
            words |= {key: str(value)} if not _is_empty(value) else {}
        elif key in _TECHNICAL or key in (VOTES, ANNOTATORS):
            continue
        elif (flag := _to_flag(value)) is not None:
            labels += [name] * (flag and (isinstance(value, bool) or find_label(name, label_names) is not None))
        else:
            labels += _names(value, label_names)
    votes = {name: attributes[name] for name in (VOTES, ANNOTATORS) if name in attributes}
    return _Words(tuple(labels), numbers, words, votes, tuple(unreadable))


def _names(value: object, label_names: tuple[str, ...]) -> list[str]:
    """The words of an attribute: of a list its texts, of a text its parts, unless the whole is a label."""
    if isinstance(value, list | tuple):
        return [word for one in value for word in _names(one, label_names)]
    if not isinstance(value, str) or _is_empty(value):
        return []
    if find_label(value, label_names) is not None:
        return [value]
    return [part.strip() for part in _SEPARATORS.split(value) if part.strip().lower() not in _EMPTY]


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)


def _to_flag(value: object) -> bool | None:
    """Whether an attribute is true; None if it is no truth value."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def _to_number(value: object) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _list_words(words: Mapping[str, int]) -> str:
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"'{word}' ({count:,})" for word, count in ranked[:_MOST_NAMED])
    return named + (f" and {len(ranked) - _MOST_NAMED:,} more" if len(ranked) > _MOST_NAMED else "")


def _list_names(label_names: Sequence[str]) -> str:
    named = ", ".join(label_names[:_MOST_NAMED])
    return named + (f" and {len(label_names) - _MOST_NAMED:,} more" if len(label_names) > _MOST_NAMED else "")
