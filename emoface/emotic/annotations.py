"""What EMOTIC says of a photo and its people, as it stands in the file: nothing is mended here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Vad = tuple[float, ...]
"""Valence, arousal, dominance, each 1-10, nan where EMOTIC has none."""


_LONGEST_SIDE = 2**31 - 1


@dataclass(frozen=True)
class PersonAnnotation:
    """One annotated person, as stored.

    Attributes:
        body_bbox: Four numbers, xyxy in original pixels; other lengths where the file is damaged.
        annotator_categories: Per annotator, the categories chosen; empty where the file holds no single annotators.
        annotator_vad: Per annotator, valence, arousal and dominance.
        categories: All annotators together; for train, whose people have one annotator, that annotator's.
        vad: All annotators together.
        gender: EMOTIC's word, None where there is none.
        age: EMOTIC's word, None where there is none.
        squeezed: Fields whose one-element cell was stored as its element.
        unreadable: Values of a CSV file that are no list, each with its column.
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


@dataclass(frozen=True)
class PhotoAnnotation:
    """One photo with its people, as stored.

    Attributes:
        filename: Name of the photo; empty where the file has none.
        folder: Its folder below the image root, ``mscoco/images``.
        image_wh: Annotated width and height, pixels; None where the file has none.
        source_split: EMOTIC's own split: ``train``, ``val`` or ``test``.
        database_name: The collection that the photo came from.
        database_info: What that collection says of the photo.
        people: In the order of the file.
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


def to_image_wh(width: float, height: float) -> tuple[int, int] | None:
    """An annotated size in whole pixels; None where it cannot be one.

    Example:
        >>> to_image_wh(640.0, 480.0), to_image_wh(float("nan"), 480.0), to_image_wh(0, 480)
        ((640, 480), None, None)
    """
    return (int(width), int(height)) if 1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE else None


def to_folder(text: str) -> str:
    r"""A folder as the tables spell it: slashes, none at the ends.

    Example:
        >>> to_folder("mscoco\\images/")
        'mscoco/images'
    """
    return text.strip().replace("\\", "/").strip("/")
