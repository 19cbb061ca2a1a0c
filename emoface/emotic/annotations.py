"""What EMOTIC says of a photo and its people, as it stands in the file: nothing is mended here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Vad = tuple[float, ...]
"""Valence, arousal, dominance, each 1-10, nan where EMOTIC has none."""


@dataclass(frozen=True)
class PersonAnnotation:
    """One annotated person, as stored.

    Attributes:
        body_bbox: Four numbers, xyxy in original pixels; other lengths where the file is damaged.
        annotator_categories: Per annotator, the categories chosen.
        annotator_vad: Per annotator, valence, arousal and dominance.
        categories: All annotators together; for train, whose people have one annotator, that annotator's.
        vad: All annotators together.
        gender: EMOTIC's word, None where there is none.
        age: EMOTIC's word, None where there is none.
        squeezed: Fields whose one-element cell was stored as its element.
    """

    body_bbox: tuple[float, ...]
    annotator_categories: tuple[tuple[str, ...], ...]
    annotator_vad: tuple[Vad, ...]
    categories: tuple[str, ...]
    vad: Vad
    gender: str | None
    age: str | None
    squeezed: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhotoAnnotation:
    """One photo with its people, as stored.

    Attributes:
        filename: Name of the photo.
        folder: Its folder below the image root, ``mscoco/images``.
        image_wh: Annotated width and height, pixels; None where the file has none.
        source_split: EMOTIC's own split: ``train``, ``val`` or ``test``.
        database_name: The collection that the photo came from.
        database_info: What that collection says of the photo.
        people: In the order of the file.
    """

    filename: str
    folder: str
    image_wh: tuple[int, int] | None
    source_split: str
    database_name: str
    database_info: dict[str, object] = field(default_factory=dict)
    people: Sequence[PersonAnnotation] = ()

    @property
    def image(self) -> str:
        """The photo's path below the image root."""
        return f"{self.folder}/{self.filename}"
