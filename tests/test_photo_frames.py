"""Photos with an orientation, in every format and both frames: everybody gets their own face, and a crop of it upright.

The two people of a real photo were boxed by hand; the photo is stored in every orientation and format, and annotated
in the frame of the stored pixels or in that of a viewer.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_images import encode, store

from emoface.datasets.manifest import read_manifest
from emoface.datasets.people import find_annotated_people, read_annotated_photo
from emoface.datasets.stream_cache import open_stream_cache
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.split import SplitConfig, run_split
from emoface.schema import PARSE_NOTE_COLUMNS
from emoface.vision.boxes import box_iou
from emoface.vision.crops import Photo, crop_face
from emoface.vision.images import decode_photo
from emoface.vision.orientation import Frame, Turn

KINDS = (*(("JPEG", "exif"), ("PNG", "exif"), ("WEBP", "exif"), ("AVIF", "exif"), ("TIFF", "tag")),
         *(("JPEG", "xmp"), ("PNG", "xmp")))  # fmt: skip
BODIES = np.array([[61, 101, 577, 360], [375, 21, 555, 360]], np.float32)
FACES = np.array([[268, 116, 335, 227], [455, 48, 529, 142]], np.float32)
"""Body boxes of zidane.jpg at half its size, 640 x 360, upright; its faces are those of the reference network."""


def _write_photos(folder: Path, shared_dir: Path, kinds: tuple[tuple[str, str], ...], side: int | None = None) -> Photo:
    """Writes the photo, or the square of its right part, in all kinds and orientations: ``JPEG-exif-6``.

    Returns:
        The upright photo.
    """
    with Image.open(shared_dir / "photos" / "zidane.jpg") as photo:
        upright = np.asarray(photo.convert("RGB").resize((640, 360)))
    upright = upright if side is None else upright[:, -side:]
    folder.mkdir(parents=True)
    for kind, where in kinds:
        for orientation in range(1, 9):
            stored = store(upright, orientation)
            (folder / f"{kind}-{where}-{orientation}").write_bytes(encode(stored, kind, orientation, where))
    return upright


def _annotate(root: Path, frame: Frame, wh: tuple[int, int], bodies: np.ndarray, only: str = "") -> None:
    """Writes train.csv with the boxes in one frame; every name ends with its photo's orientation."""
    rows = []
    for path in sorted((root / "emotic/mscoco/images").iterdir()):
        turn = _turn(path.name, wh)
        size = turn.stored_wh if frame == "stored" else turn.upright_wh
        for box in bodies if frame == "upright" else turn.to_stored(bodies):
            if path.name.endswith(only):
                place = [len(rows), "mscoco/images", path.name, list(size), [float(v) for v in box]]
                rows.append([*place, ["Engagement"], [5, 5, 5], "Male", "Adult"])
    names = ["Index", "Folder", "Filename", "Image Size", "BBox"]
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, "Categorical_Labels", "Continuous_Labels", "Gender", "Age"])
        writer.writerows(rows)


def _turn(name: str, upright_wh: tuple[int, int]) -> Turn:
    orientation = int(name[-1])
    return Turn(orientation, upright_wh[::-1] if orientation >= 5 else upright_wh)


def _parse(root: Path, frame: Literal["auto", "stored", "upright"] = "auto") -> Path:
    run_parse(
        ParseConfig(
            emotic_root=root,
            out=root / "out",
            annotations=root / "train.csv",
            images=root / "emotic",
            frame=frame,
        )
    )
    return root / "out"


def _notes(out: Path) -> Counter[tuple[str, str, str]]:
    notes = pd.read_csv(out / "parse_notes.csv", keep_default_na=False)
    assert tuple(notes.columns) == PARSE_NOTE_COLUMNS
    return Counter(zip(notes["what"], notes["before"], notes["after"], strict=True))


@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_everybody_gets_their_own_face_in_every_format_orientation_and_frame(
    shared_dir: Path, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: Frame
) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
    upright = _write_photos(tmp_path / "emotic/mscoco/images", shared_dir, KINDS)
    _annotate(tmp_path, frame, (640, 360), BODIES)
    out = _parse(tmp_path)
    n = len(KINDS)
    expected = Counter({("frame_unknown", f"orientation {flipped}", frame): n for flipped in (2, 3, 4)})
    if frame == "upright":
        expected["photo_turned", "360 640", "640 360"] = 4 * n
    assert _notes(out) == expected

    record = run_faces(FacesConfig(dir=out, image_size=320))
    rows = pq.read_table(out / "faces.parquet").to_pylist()
    images = pq.read_table(out / "people.parquet")["image"].to_pylist()
    assert len(rows) == 2 * 8 * n
    for k, (row, image) in enumerate(zip(rows, images, strict=True)):
        assert row["face_status"] == "found", image
        turn, own = _turn(image, (640, 360)), FACES[k % 2]
        box, landmarks = np.array(row["face_bbox"], np.float32), np.array(row["landmarks"], np.float32).reshape(5, 2)
        if frame == "stored":
            box, landmarks = turn.to_upright(box), turn.points_to_upright(landmarks)
        assert box_iou(box[None], own[None])[0, 0] > 0.6, image
        eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
        assert mouth[1] - eyes[1] > 0.2 * (box[3] - box[1]), image
        crop = decode_photo(row["face"]["bytes"], image).astype(int)
        assert np.abs(crop - crop_face(upright, box, landmarks, margin=0.15, align=False)).mean() < 8, image
    assert record.counts[f"photos_oriented_boxes_{frame}"] == 7 * n
    assert "photos_of_other_size" not in record.counts


@pytest.mark.parametrize("given", ["stored", "upright"])
def test_option_decides_the_frame_of_squares_and_flipped_photos_in_all_stages(
    shared_dir: Path, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Frame
) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
    _write_photos(tmp_path / "emotic/mscoco/images", shared_dir, (("JPEG", "exif"),), side=360)
    left = np.array([280, 0, 280, 0], np.float32)
    _annotate(tmp_path, given, (360, 360), (BODIES - left)[1:])
    out = _parse(tmp_path, given)
    assert _notes(out) == Counter({("frame_unknown", f"orientation {k}", given): 1 for k in range(2, 9)})
    run_faces(FacesConfig(dir=out, image_size=320))
    run_split(SplitConfig(dir=out, by="emotic"))
    manifest = read_manifest(out / "manifest.json")
    assert manifest.undecided_frame == given
    cache = open_stream_cache(manifest, "train")
    assert len(cache) == 8
    own = (FACES - left)[1]
    bodies = [cache.read(k, "body") for k in range(8)]
    for k, person in enumerate(find_annotated_people(manifest, "index", range(8))):
        assert person.face_xyxy is not None, person.image
        photo, (upright,) = read_annotated_photo(manifest, [person])
        assert photo.shape == (360, 360, 3) and upright.face_xyxy is not None
        assert box_iou(upright.face_xyxy[None], own[None])[0, 0] > 0.6, person.image
        assert np.abs(cache.people.face_in_context[k] * 360 - upright.face_xyxy).max() < 0.01
        assert np.abs(bodies[k].astype(int) - bodies[0]).mean() < 8, person.image


def test_stored_frame_is_taken_where_no_size_tells_and_the_record_says_so(shared_dir: Path, tmp_path: Path) -> None:
    _write_photos(tmp_path / "emotic/mscoco/images", shared_dir, (("JPEG", "exif"),))
    _annotate(tmp_path, "upright", (640, 360), BODIES, only="-3")
    out = _parse(tmp_path)
    assert _notes(out) == Counter({("frame_unknown", "orientation 3", "stored"): 1})
    assert json.loads((out / "records/parse.json").read_text())["info"]["undecided_frame"] == "stored"
