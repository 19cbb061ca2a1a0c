"""Makes batches of training crops: labelled photos, randomly cropped, mirrored and recoloured.

The sample at position k of epoch e depends only on the seed, e and k, not on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from emoface.datasets.face_labels import LabelledPhoto
from emoface.metrics.detection import LabelledFaces
from emoface.prefetch import count_usable_cpus, in_batches, map_ahead
from emoface.vision.augmentation import crop_faces_square, distort_colors, mirror_faces, paint_ignored
from emoface.vision.crops import Photo
from emoface.vision.threads import one_opencv_thread
from emoface.yolov5face.losses import FaceTargets

_MIRROR_PROBABILITY = 0.5
_DISTORT_PROBABILITY = 0.5


@dataclass(frozen=True)
class PhotoBatch:
    """The input of one training step of the detector.

    Attributes:
        images: (b, 3, size, size), RGB, 0-1.
        faces: True faces of each image, in network pixels. Ignored faces are painted over in the image, and
            ``to_targets`` leaves them out.
    """

    images: Tensor
    faces: list[LabelledFaces]

    def to_targets(self, device: torch.device) -> FaceTargets:
        """Returns the faces that are not ignored, as tensors on a device."""
        return FaceTargets(
            [torch.from_numpy(one.xyxy[~one.ignored]).to(device) for one in self.faces],
            [torch.from_numpy(one.landmarks[~one.ignored]).to(device) for one in self.faces],
        )


@dataclass(frozen=True)
class TrainingCrops:
    """Makes square training crops from labelled photos, one crop per photo and epoch.

    Attributes:
        photos: The photos with their true faces.
        image_size: Side of a crop in pixels.
        batch_size: Crops per training step; the last batch of an epoch may be smaller.
        seed: Random seed for the order of the photos, the crops, the mirroring and the colours.
    """

    photos: Sequence[LabelledPhoto]
    image_size: int
    batch_size: int
    seed: int

    def iterate_batches(self, epoch: int, n_threads: int | None = None) -> Iterator[PhotoBatch]:
        """Iterates over one crop of every photo, in the shuffled order of an epoch.

        Args:
            epoch: Number of the epoch, counted from 0.
            n_threads: Threads that prepare crops ahead; None is one thread less than there are CPU cores.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photos)).tolist()
        with one_opencv_thread(), ThreadPoolExecutor(n_threads or max(1, count_usable_cpus() - 1)) as pool:
            samples = map_ahead(pool, partial(self._make_crop, epoch), order, ahead=3 * self.batch_size)
            for batch in in_batches(samples, self.batch_size):
                pixels = np.stack([photo for photo, _ in batch]).transpose(0, 3, 1, 2)
                images = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
                yield PhotoBatch(images, [faces for _, faces in batch])

    def _make_crop(self, epoch: int, position: int) -> tuple[Photo, LabelledFaces]:
        """Makes a random crop of one photo; it is mirrored with probability 0.5 and recoloured with probability 0.5."""
        rng = np.random.default_rng((self.seed, epoch, position))
        one = self.photos[position]
        photo, faces = crop_faces_square(rng, one.read(), one.faces, self.image_size)
        if rng.random() < _MIRROR_PROBABILITY:
            photo, faces = mirror_faces(photo, faces)
        if rng.random() < _DISTORT_PROBABILITY:
            photo = distort_colors(rng, photo)
        return paint_ignored(photo, faces)
