"""A small data set with photos, tables and a manifest, for the tests of the stream cache and of training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.jobs.split import SplitConfig, run_split
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.schema import CATEGORIES, FACES_SCHEMA, PEOPLE_SCHEMA, SPLITS
from emoface.storage.records import JobRecord, write_record
from emoface.storage.tables import write_table
from emoface.vision.images import encode_jpeg

PHOTO_WH = (200, 120)
LABELS = (0, 5, 16)
"""Labels that the data set has: one that the face shows, one that the body shows, one that the photo shows."""


def write_photos_and_tables(root: Path, n_photos: int, balance: str = "none") -> Path:
    """Two people in each photo, every fifth without a face; returns the manifest.

    A person's face is bright for label 0, the body for 5, the photo's ground for 16.
    """
    rng = np.random.default_rng(0)
    people, faces = [], []
    for number in range(n_photos):
        image = f"framesdb/images/{number:03d}.jpg"
        in_place = number // 4 % 2 == 0
        photo = np.full((PHOTO_WH[1], PHOTO_WH[0], 3), 180 if in_place else 40, np.uint8)
        for k, left in enumerate((10, 110)):
            index = len(people)
            has_face, shown = index % 5 != 3, rng.random(2) < 0.5
            face_xyxy = np.array([left + 20, 15, left + 44, 39], np.float32)
            body_xyxy = np.array([left, 10, left + 70, 115], np.float32)
            cv2.rectangle(photo, (left, 40), (left + 69, 114), (200, 60, 60) if shown[1] else (60, 60, 200), -1)
            face = np.full((24, 24, 3), 230 if shown[0] else 90, np.uint8)
            photo[15:39, left + 20 : left + 44] = face if has_face else 10
            labels = np.zeros(len(CATEGORIES), np.uint8)
            labels[list(LABELS)] = (*shown, in_place)
            key = {"index": index, "person_id": f"{image}#{k}"}
            people.append(
                {
                    **key,
                    "image": image,
                    "source": "framesdb",
                    "source_split": SPLITS[0 if number % 4 < 2 else number % 4 - 1],
                    "image_wh": list(PHOTO_WH),
                    "body_bbox": body_xyxy.tolist(),
                    "categories": [CATEGORIES[label] for label in np.flatnonzero(labels)],
                    "labels": labels.tolist(),
                    "annotator_votes": labels.tolist(),
                    "n_annotators": 1,
                    "valence": 8.0 if shown[0] else 3.0,
                    "arousal": 5.0,
                    "dominance": None if k else 4.0,
                }
            )
            found = {
                "face": {"bytes": encode_jpeg(face), "path": None},
                "face_bbox": face_xyxy.tolist(),
                "landmarks": [1.0] * 10,
                "conf": 0.9,
            }
            faces.append({**key, **(found if has_face else {}), "face_status": "found" if has_face else "no_face"})
        path = root / "photos" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(photo))
    out = root / "work"
    write_table(out / "people.parquet", pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    write_table(out / "faces.parquet", pa.Table.from_pylist(faces, schema=FACES_SCHEMA), FACES_SCHEMA, 7)
    write_record(out, JobRecord("parse", {}, {}, {}, {}, info={"image_root": str(root / "photos")}))
    write_record(out, JobRecord("faces", {}, {}, {}, {}, info={"detector": "drawn", "margin": 0.0}))
    run_split(SplitConfig(dir=out, by="emotic", balance=balance))
    return out / "manifest.json"


def to_pixels(inputs: Tensor) -> NDArray[np.uint8]:
    """The pixels, (b, side, side, 3), of normalised inputs of a network, (b, 3, side, side)."""
    pixels = inputs.permute(0, 2, 3, 1) * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    return np.asarray((255 * pixels).round().numpy(), np.uint8)
