"""A photo inside a network's input: one object carries pixels, boxes and points there and back.

A name that ends in ``_net`` is in pixels of the network's input; without it, in pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PAD_VALUE = 114


@dataclass(frozen=True)
class Letterbox:
    """How one photo is scaled and padded.

    Attributes:
        image_wh: Width and height of the photo.
        scaled_wh: Width and height of the photo inside the network's input.
        net_wh: Width and height of the network's input, multiples of the stride.
        offset: Left and top padding.
    """

    image_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    net_wh: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def fit(cls, image_wh: tuple[int, int], image_size: int, stride: int) -> Letterbox:
        """Scales a photo until its longer side is ``image_size``, and pads to the next stride on both sides.

        Args:
            image_wh: Width and height of the photo, each at least 1.
            image_size: Longer side in network pixels; small photos are enlarged.
            stride: The network's coarsest stride.

        Raises:
            ValueError: A side is below 1, or ``image_size`` is no positive multiple of ``stride``.

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
        """(2,): network pixels per photo pixel; the two differ by rounding alone."""
        scale: NDArray[np.float32] = np.divide(self.scaled_wh, self.image_wh, dtype=np.float32)
        return scale

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scales and pads the photo; shrinking averages over areas, as faces of few pixels need it.

        Args:
            image: (height, width, 3), of ``image_wh``.

        Returns:
            (net_height, net_width, 3); channels stay in their order.
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
        """Moves points or boxes from the photo to the network's input.

        Args:
            coordinates: (..., 2k): x, y pairs, so (n, 2) points, (n, 5, 2) landmarks or (n, 4) xyxy boxes.

        Returns:
            The same shape.
        """
        pairs = coordinates.reshape(-1, 2) * self.scale_xy + np.array(self.offset, np.float32)
        return pairs.astype(np.float32).reshape(coordinates.shape)

    def to_image(self, coordinates_net: NDArray[np.float32]) -> NDArray[np.float32]:
        """Moves points or boxes from the network's input to the photo; the way back of ``to_net``."""
        pairs = (coordinates_net.reshape(-1, 2) - np.array(self.offset, np.float32)) / self.scale_xy
        return pairs.astype(np.float32).reshape(coordinates_net.shape)
