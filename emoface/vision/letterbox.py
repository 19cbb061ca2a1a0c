"""Letterboxing: one object scales and pads a photo to a network's input, and converts boxes and points both ways.

Names that end in ``_net`` are in pixels of the network's input; other names are in pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.vision.arrays import Float32Array

PAD_VALUE = 114


@dataclass(frozen=True)
class Letterbox:
    """Scale and padding of one photo.

    Attributes:
        image_wh: Width and height of the photo.
        scaled_wh: Width and height of the scaled photo inside the network's input.
        net_wh: Width and height of the network's input, multiples of the stride.
        offset: Left and top padding, in pixels of the network's input.
    """

    image_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    net_wh: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def fit(cls, image_wh: tuple[int, int], image_size: int, stride: int) -> Letterbox:
        """Computes the scale that makes the longer side ``image_size``, and the padding to multiples of the stride.

        Args:
            image_wh: Width and height of the photo, each at least 1.
            image_size: Longer side in network pixels; small photos are enlarged.
            stride: The network's coarsest stride.

        Raises:
            ValueError: A side is below 1, or ``image_size`` is not a positive multiple of ``stride``.

        Example:
            >>> Letterbox.fit((1280, 720), image_size=640, stride=32)
            Letterbox(image_wh=(1280, 720), scaled_wh=(640, 360), net_wh=(640, 384), offset=(0, 12))
        """
        if min(image_wh) < 1:
            raise ValueError(f"image_wh is {image_wh}, expected sides of at least 1")
        if image_size < stride or image_size % stride:
            raise ValueError(f"image_size is {image_size}, expected a positive multiple of {stride}")
        scale = image_size / max(image_wh)
        width, height = (max(1, round(side * scale)) for side in image_wh)
        net_width, net_height = (-(-side // stride) * stride for side in (width, height))
        offset = ((net_width - width) // 2, (net_height - height) // 2)
        return cls(image_wh, (width, height), (net_width, net_height), offset)

    @property
    def n_halvings(self) -> int:
        """How often the photo is halved before the last step of scaling: as often as it stays twice as large.

        With less than that, halving would blur small faces: it changes scores in crowds by more than 0.02.
        """
        ratio = min(side // scaled for side, scaled in zip(self.image_wh, self.scaled_wh, strict=True))
        return max(0, ratio.bit_length() - 2)

    @property
    def covered_wh(self) -> tuple[int, int]:
        """Width and height of the part of the photo that is scaled.

        Halving leaves out the last column or row of an odd number. All together that is less than half a network pixel
        at the right and lower border, and the coordinates take it into account.
        """
        width, height = (side >> self.n_halvings << self.n_halvings for side in self.image_wh)
        return width, height

    @property
    def scale_xy(self) -> NDArray[np.float32]:
        """Network pixels per photo pixel in x and y, (2,); the two values differ only by rounding."""
        scale: NDArray[np.float32] = np.divide(self.scaled_wh, self.covered_wh, dtype=np.float32)
        return scale

    def write_input(self, image: NDArray[np.uint8], planes: Float32Array) -> None:
        """Scales and pads the photo, and writes it as one photo of a network's input, 0-1.

        Args:
            image: (height, width, 3), of size ``image_wh``.
            planes: (3, net_height, net_width), is overwritten; the order of the channels is unchanged.

        Raises:
            ValueError: The photo or the planes have another shape.
        """
        net_width, net_height = self.net_wh
        for name, array, expected in (
            ("image", image, (self.image_wh[1], self.image_wh[0], 3)),
            ("planes", planes, (3, net_height, net_width)),
        ):
            if array.shape != expected:
                raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
        (left, top), (width, height) = self.offset, self.scaled_wh
        pad = PAD_VALUE / 255
        planes[:, :top], planes[:, top + height :] = pad, pad
        planes[:, :, :left], planes[:, :, left + width :] = pad, pad
        inside = planes[:, top : top + height, left : left + width]
        for plane, channel in zip(inside, cv2.split(self._scale(image)), strict=True):
            np.divide(channel, np.float32(255), out=plane, dtype=np.float32)

    def _scale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scales the photo; downscaling averages over areas, which keeps faces of few pixels visible.

        Halving is many times faster than OpenCV's averaging over areas of any other size, which remains for the last
        step, from less than four times the size.
        """
        for _ in range(self.n_halvings):
            height, width = image.shape[0] // 2, image.shape[1] // 2
            halved = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
            image = np.asarray(halved, np.uint8)
        wh = (image.shape[1], image.shape[0])
        if wh == self.scaled_wh:
            return image
        interpolation = cv2.INTER_AREA if max(self.scaled_wh) < max(wh) else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, self.scaled_wh, interpolation=interpolation), np.uint8)

    def to_net(self, coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Converts points or boxes from pixels of the photo to pixels of the network's input.

        Args:
            coordinates: (..., 2k) x, y pairs: (n, 2) points, (n, 5, 2) landmarks or (n, 4) xyxy boxes.

        Returns:
            Array of the same shape.
        """
        pairs = coordinates.reshape(-1, 2) * self.scale_xy + np.array(self.offset, np.float32)
        return pairs.astype(np.float32).reshape(coordinates.shape)

    def to_image(self, coordinates_net: NDArray[np.float32]) -> NDArray[np.float32]:
        """Converts points or boxes from pixels of the network's input to pixels of the photo; inverts ``to_net``."""
        pairs = (coordinates_net.reshape(-1, 2) - np.array(self.offset, np.float32)) / self.scale_xy
        return pairs.astype(np.float32).reshape(coordinates_net.shape)
