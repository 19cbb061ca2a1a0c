"""Region proposals of a photo, with a feature vector each: the nodes of ``affective-graph``.

Torch and torchvision are imported when a provider is loaded and not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emoface.errors import WeightsError
from emoface.storage.weights import find_weights
from emoface.vision.crops import Photo

N_STORED = 20
"""Regions that are stored per photo, more than a person uses: those that overlap the person are left out later."""
N_FEATURES = 1024
FASTER_RCNN = "fasterrcnn_resnet50_fpn_coco-258fb6c6"
"""Name of the weights of torchvision's Faster R-CNN, trained on COCO."""

_OVERLAP = 0.7


class RegionProvider(Protocol):
    """Interface of a provider.

    Attributes:
        name: Name of the provider, for the table and for the pages of results.
        sha256: Digest of its weights.
    """

    name: str
    sha256: str

    def find(self, photo: Photo) -> NDArray[np.float32]:
        """Finds the regions of a photo, best first.

        Args:
            photo: (height, width, 3), RGB.

        Returns:
            (k, 1024 + 4) for k of at most ``N_STORED``: features, and x1, y1, x2, y2 as shares of the photo.
        """
        ...


class FasterRcnn:
    """torchvision's Faster R-CNN with a ResNet50: proposals of highest objectness, and the features of its box head.

    Source: Ren et al. 2015, "Faster R-CNN"; ``torchvision.models.detection.fasterrcnn_resnet50_fpn``.
    """

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        import torch
        from torchvision.models.detection import fasterrcnn_resnet50_fpn

        self.name, self.sha256 = name, sha256
        model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, ValueError, KeyError, AttributeError, TypeError, EOFError) as error:
            raise WeightsError(
                f"{path}: not the weights of torchvision's fasterrcnn_resnet50_fpn ({error}); see "
                f"'emoface weights list' for their address"
            ) from error
        model.rpn.nms_thresh = _OVERLAP
        self._model: Any = model.eval()

    def find(self, photo: Photo) -> NDArray[np.float32]:
        """Finds the regions of a photo, see ``RegionProvider.find``."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1))).float() / 255
        with torch.inference_mode():
            images, _ = self._model.transform([pixels])
            maps = self._model.backbone(images.tensors)
            proposals, _ = self._model.rpn(images, maps)  # best first
            boxes = proposals[0][:N_STORED]
            pooled = self._model.roi_heads.box_roi_pool(maps, [boxes], images.image_sizes)
            features = self._model.roi_heads.box_head(pooled)
        height, width = images.image_sizes[0]
        shares = boxes / boxes.new_tensor([width, height, width, height])
        return torch.cat((features, shares), dim=1).numpy()


def load_region_provider(name: str, path: Path | None = None) -> RegionProvider:
    """Loads a provider.

    Args:
        name: Name of weights on this machine.
        path: A weight file to use instead.

    Raises:
        WeightsError: The file is missing, or holds other weights.
    """
    weights = find_weights(name, path)
    return FasterRcnn(weights.path, weights.name, weights.sha256)


def split_regions(regions: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Splits what ``RegionProvider.find`` returns, in the precision of ``regions.parquet``.

    Args:
        regions: (k, 1024 + 4).

    Returns:
        Boxes (k, 4) as shares of the photo, and features (k, 1024), little-endian.
    """
    stored = regions.astype("<f2")
    return stored[:, N_FEATURES:].astype(np.float32), np.ascontiguousarray(stored[:, :N_FEATURES])
