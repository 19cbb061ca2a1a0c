"""Orientation of a photo: its two frames, and the change of pixels, boxes and points between them.

A camera stores the pixels as its sensor lay and adds an orientation, 1-8, that tells a viewer how to turn them. So a
photo has two frames: ``stored``, the pixels as they lie in the file, and ``upright``, as a viewer shows them. Boxes may
be annotated in either. Detectors and networks get the upright photo; ``Turn`` takes boxes to it and back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoface.vision.crops import Photo

Frame = Literal["stored", "upright"]
"""``stored``: the pixels as they lie in the file. ``upright``: turned by the orientation, as a viewer shows them."""

NO_TURN = 1

_MATRICES: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}
"""What each orientation does to the axes x (to the right) and y (down) of the stored pixels.

Source: Exif 2.32, tag 0x0112, and TIFF 6.0, tag 274.
"""


@dataclass(frozen=True)
class Turn:
    """The change from the stored frame to the upright one.

    Attributes:
        orientation: 1-8; 1 changes nothing.
        stored_wh: Width and height of the stored frame, pixels.

    Example:
        >>> turn = Turn(6, (60, 40))  # a quarter turn clockwise
        >>> turn.upright_wh, turn.to_upright(np.array([[0, 0, 30, 20]], np.float32)).tolist()
        ((40, 60), [[20.0, 0.0, 40.0, 30.0]])
        >>> turn.to_stored(np.array([[20, 0, 40, 30]], np.float32)).tolist()
        [[0.0, 0.0, 30.0, 20.0]]
    """

    orientation: int
    stored_wh: tuple[int, int]

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return _MATRICES[self.orientation][0][0] == 0

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height of the upright frame, pixels."""
        width, height = self.stored_wh
        return (height, width) if self.swaps_sides else (width, height)

    @cached_property
    def _matrix(self) -> NDArray[np.float32]:
        return np.array(_MATRICES[self.orientation], np.float32)

    @cached_property
    def _offset(self) -> NDArray[np.float32]:
        """Moves the turned photo's top left corner to 0, 0."""
        far_corner = self._matrix @ np.array(self.stored_wh, np.float32)
        return np.maximum(0, -far_corner)

    def turn_pixels(self, stored: Photo) -> Photo:
        """Turns a stored photo upright; (height, width, 3) in either frame."""
        if self.orientation == NO_TURN:
            return stored
        turned = stored.swapaxes(0, 1) if self.swaps_sides else stored
        flips_x, flips_y = (sum(row) < 0 for row in _MATRICES[self.orientation])
        return np.ascontiguousarray(turned[:: -1 if flips_y else 1, :: -1 if flips_x else 1])

    def points_to_upright(self, xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes points (..., 2) of the stored frame to the upright one, pixels."""
        if self.orientation == NO_TURN:
            return xy
        return np.asarray(xy @ self._matrix.T + self._offset, np.float32)

    def points_to_stored(self, xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes points (..., 2) of the upright frame to the stored one, pixels."""
        if self.orientation == NO_TURN:
            return xy
        return np.asarray((xy - self._offset) @ self._matrix, np.float32)

    def to_upright(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes boxes (..., 4) of the stored frame to the upright one, pixels; a box of nan stays one."""
        return _sort_corners(self.points_to_upright(_corners(xyxy)), xyxy.shape)

    def to_stored(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes boxes (..., 4) of the upright frame to the stored one, pixels; a box of nan stays one."""
        return _sort_corners(self.points_to_stored(_corners(xyxy)), xyxy.shape)


@dataclass(frozen=True)
class PhotoSize:
    """Size and orientation of a photo, from its header.

    Attributes:
        stored_wh: Width and height of the stored pixels.
        orientation: 1-8; 1 if the file has none.
    """

    stored_wh: tuple[int, int]
    orientation: int = NO_TURN

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height of the upright photo."""
        return self.turn_from("stored").upright_wh

    def wh(self, frame: Frame) -> tuple[int, int]:
        """Width and height of the photo in a frame."""
        return self.stored_wh if frame == "stored" else self.upright_wh

    def turn_from(self, frame: Frame) -> Turn:
        """The change from a frame to the upright one."""
        if frame == "stored":
            return Turn(self.orientation, self.stored_wh)
        return Turn(NO_TURN, self.upright_wh)

    def find_frame(self, annotated_wh: tuple[int, int] | None) -> Frame | None:
        """Finds the frame of a photo's annotations by their width and height.

        Args:
            annotated_wh: Width and height of the photo in the annotations; None if they are unknown.

        Returns:
            The frame; None if it cannot be told, because the photo has an orientation and the size fits both frames
            (orientations 2-4, square photos) or neither. Without an orientation the frames are the same: ``stored``.

        Example:
            >>> PhotoSize((640, 480), 6).find_frame((480, 640))
            'upright'
            >>> PhotoSize((640, 480), 3).find_frame((640, 480)) is None
            True
        """
        if self.orientation == NO_TURN:
            return "stored"
        fits_stored, fits_upright = annotated_wh == self.stored_wh, annotated_wh == self.upright_wh
        if fits_stored == fits_upright:
            return None
        return "stored" if fits_stored else "upright"


def find_usual_frame(frames: Iterable[Frame | None]) -> Frame:
    """Finds the frame that most photos of a data set are annotated in, for those whose size does not tell.

    Args:
        frames: The frame of each photo that has an orientation, see ``PhotoSize.find_frame``.

    Returns:
        The more frequent one; ``stored`` if both are equally frequent, since EMOTIC's own tools ignored orientations.

    Example:
        >>> find_usual_frame(["upright", None, "upright", "stored"]), find_usual_frame([None])
        ('upright', 'stored')
    """
    known = [frame for frame in frames if frame is not None]
    return "upright" if 2 * known.count("upright") > len(known) else "stored"


def _corners(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return xyxy.reshape(*xyxy.shape[:-1], 2, 2)


def _sort_corners(corners: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Boxes whose first corner is the top left one; a turn by 0 keeps the corners' order."""
    return np.asarray(np.sort(corners, axis=-2).reshape(shape), np.float32)
