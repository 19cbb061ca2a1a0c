"""Letterboxing: one object scales and pads a photo to a network's input, and converts boxes and points both ways.

Names that end in ``_net`` are in pixels of the network's input; other names are in pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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
    def scale_xy(self) -> NDArray[np.float32]:
        """Network pixels per photo pixel in x and y, (2,); the two values differ only by rounding."""
        scale: NDArray[np.float32] = np.divide(self.scaled_wh, self.image_wh, dtype=np.float32)
        return scale

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scales and pads the photo; downscaling averages over areas, which keeps faces of few pixels visible.

        Args:
            image: (height, width, 3), of size ``image_wh``.

        Returns:
            (net_height, net_width, 3); the order of the channels is unchanged.

        Raises:
            ValueError: The photo has another shape.
        """
        if image.shape != (self.image_wh[1], self.image_wh[0], 3):
            raise ValueError(f"image has shape {image.shape}, expected (height, width, 3) of {self.image_wh}")
        net_width, net_height = self.net_wh
        (left, top), (width, height) = self.offset, self.scaled_wh
        interpolation = cv2.INTER_AREA if max(self.scaled_wh) < max(self.image_wh) else cv2.INTER_LINEAR
        fits = self.scaled_wh == self.image_wh
        scaled = image if fits else cv2.resize(image, self.scaled_wh, interpolation=interpolation)
        borders = (top, net_height - height - top, left, net_width - width - left)
        return np.asarray(cv2.copyMakeBorder(scaled, *borders, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3), np.uint8)

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
