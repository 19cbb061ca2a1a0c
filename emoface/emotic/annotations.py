"""EMOTIC's annotations of a photo and its people exactly as stored in the file, without any correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Vad = tuple[float, ...]
"""Valence, arousal, dominance, each 1-10, nan where EMOTIC has none."""

_LONGEST_SIDE = 2**31 - 1
_MIN_ROWS = 5
"""A smaller number of rows does not tell a file of another form from single faulty rows."""


@dataclass(frozen=True, slots=True)
class PersonAnnotation:
    """One annotated person, as stored.

    Attributes:
        body_bbox: Four numbers, xyxy in original pixels; another number of values where the file is damaged.
        annotator_categories: The categories that each annotator chose; empty if the file has no single annotators.
        annotator_vad: Valence, arousal and dominance from each annotator; empty if the file has no single annotators.
        categories: The combined categories of all annotators; in train, where a person has one annotator, the
            categories of that annotator.
        vad: The combined valence, arousal and dominance of all annotators.
        gender: The gender as written in EMOTIC; None where there is none.
        age: The age as written in EMOTIC; None where there is none.
        squeezed: Names of fields whose one-element cell was stored as its element.
        unreadable: Values of a CSV file that are not a list, each with its column.
    """

    body_bbox: tuple[float, ...]
    annotator_categories: tuple[tuple[str, ...], ...]
    annotator_vad: tuple[Vad, ...]
    categories: tuple[str, ...]
    vad: Vad
    gender: str | None
    age: str | None
    squeezed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhotoAnnotation:
    """One photo with its people, as stored.

    Attributes:
        filename: Name of the photo; empty where the annotation file has none.
        folder: Folder of the photo below the image root, such as ``mscoco/images``.
        image_wh: Annotated width and height, pixels; None where the annotation file has none.
        source_split: EMOTIC's own split: ``train``, ``val`` or ``test``.
        database_name: The collection that the photo is from.
        database_info: Information from that collection about the photo.
        people: The people of the photo, in the order of the annotation file.
        is_size_doubtful: ``image_wh`` was listed with its sides exchanged; only the photo itself can confirm it.
    """

    filename: str
    folder: str
    image_wh: tuple[int, int] | None
    source_split: str
    database_name: str
    database_info: dict[str, object] = field(default_factory=dict)
    people: Sequence[PersonAnnotation] = ()
    is_size_doubtful: bool = False

    @property
    def image(self) -> str:
        """The photo's path below the image root."""
        return f"{self.folder}/{self.filename}" if self.folder else self.filename


def is_most(n_faulty: int, n_rows: int) -> bool:
    """Whether so many values of a column are faulty, more than half, that the file is at fault, not single rows.

    Example:
        >>> is_most(3, 5), is_most(2, 5), is_most(4, 4)
        (True, False, False)
    """
    return n_rows >= _MIN_ROWS and 2 * n_faulty > n_rows


def to_image_wh(width: float, height: float) -> tuple[int, int] | None:
    """Converts an annotated size to whole pixels; None if it is not a valid size.

    Example:
        >>> to_image_wh(640.0, 480.0), to_image_wh(float("nan"), 480.0), to_image_wh(0, 480)
        ((640, 480), None, None)
    """
    return (int(width), int(height)) if 1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE else None


def to_folder(text: str) -> str:
    r"""Converts a folder to its form in the tables: with forward slashes, and none at either end.

    Example:
        >>> to_folder("mscoco\\images/")
        'mscoco/images'
    """
    return text.strip().replace("\\", "/").strip("/")
