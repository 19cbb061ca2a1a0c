"""Near-duplicate photos, and faces that are blurred or dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet, read_crops
from emoface.auditing.faces import quantiles
from emoface.datasets.photos import PhotoFolder, PhotoRows, group_photos, read_ahead
from emoface.errors import ImageError
from emoface.progress import Progress
from emoface.schema import PHOTO_HASHES_SCHEMA, SPLITS
from emoface.storage.records import to_json_number
from emoface.storage.tables import read_table, vectors_to_array, write_table
from emoface.vision.images import decode_photo
from emoface.vision.photo_checks import MOST_DIFFERENT_BITS, brightness, find_near_duplicates, photo_hash, sharpness

HASHES_NAME = "photo_hashes.parquet"

_N_PAIRS, _N_FACES = 12, 12
_SMALL_SIDE = 36
"""Least side of the photos that are hashed, pixels: 4 times the 9 of the hash."""
_SHAPE_OF_HASH = 16
_HASHES_REMEDY = "delete it and run 'emoface report' again"


def audit_near_duplicates(data: DataSet, report_dir: Path, progress: Progress) -> dict[str, Any] | None:
    """Finds photos that show nearly the same, above all those in different splits.

    The hashes are kept in ``photo_hashes.parquet``, so that only new and changed photos are read again.

    Args:
        data: The data set.
        report_dir: Folder of the kept hashes.
        progress: Receives one step per photo.

    Returns:
        None where the folder of the photos is not known or holds none of them.
    """
    if data.photos is None:
        return None
    states = {image: state for image, state in data.photos.read_states(data.images).of.items() if state is not None}
    if not states:
        return None
    hashes = _hash_photos(data, data.photos, states, report_dir / HASHES_NAME, progress)
    images = [image for image, value in hashes.items() if value is not None]
    values = np.frombuffer(b"".join(filter(None, hashes.values())), np.uint8).reshape(-1, _SHAPE_OF_HASH)
    pairs, bits = find_near_duplicates(values)
    splits_of = _find_splits(data)
    rows = [
        {"images": [images[a], images[b]], "different_bits": n, "splits": [splits_of[images[a]], splits_of[images[b]]]}
        for (a, b), n in zip(pairs.tolist(), bits.tolist(), strict=True)
    ]
    across: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row in rows:
        (across if len({name for names in row["splits"] for name in names}) > 1 else others).append(row)
    return {
        "photos": len(images),
        "photos_without_hash": len(hashes) - len(images),
        "photos_missing": len(data.images) - len(states),
        "most_different_bits": MOST_DIFFERENT_BITS,
        "pairs": len(rows),
        "photos_in_pairs": len(np.unique(pairs)),
        "pairs_across_splits": len(across),
        "shown": sorted(across, key=_bits_of)[:_N_PAIRS]
        + sorted(others, key=_bits_of)[: max(0, _N_PAIRS - len(across))],
    }


def _bits_of(row: dict[str, Any]) -> int:
    return int(row["different_bits"])


def _find_splits(data: DataSet) -> dict[str, list[str]]:
    """The splits of each photo's people, in the order of ``SPLITS``."""
    splits_of: dict[str, list[str]] = {image: [] for image in data.images}
    images = data.people["image"]
    for name in SPLITS:
        for image in set(images.take(pa.array(data.rows_of[name])).to_pylist()):
            splits_of[image].append(name)
    return splits_of


def _hash_photos(
    data: DataSet, folder: PhotoFolder, states: dict[str, str], kept_path: Path, progress: Progress
) -> dict[str, bytes | None]:
    """The hash of each photo that is there; None for one that cannot be read or is of nearly one colour."""
    kept: dict[tuple[str, str], bytes | None] = {}
    if kept_path.is_file():
        table = read_table(kept_path, PHOTO_HASHES_SCHEMA, _HASHES_REMEDY)
        columns = (table[name].to_pylist() for name in PHOTO_HASHES_SCHEMA.names)
        kept = {(image, state): value for image, state, value in zip(*columns, strict=True)}
    hashes = {image: kept[image, state] for image, state in states.items() if (image, state) in kept}
    image_wh = vectors_to_array(data.people["image_wh"], 2)
    wanted = [
        photo
        for photo in group_photos(data.people["image"].to_pylist(), image_wh)
        if photo.image in states and photo.image not in hashes
    ]
    progress.start("photo checks", len(wanted))
    for image, value in _read_hashes(folder, wanted):
        hashes[image] = value
        progress.advance()
    ordered = {image: hashes[image] for image in states}
    if wanted or len(kept) != len(ordered):
        written = [list(ordered), list(states.values()), list(ordered.values())]
        write_table(kept_path, pa.table(written, schema=PHOTO_HASHES_SCHEMA), PHOTO_HASHES_SCHEMA)
    return ordered


def _read_hashes(folder: PhotoFolder, photos: list[PhotoRows]) -> Iterator[tuple[str, bytes | None]]:
    with read_ahead(folder, photos) as (ahead, ahead_photos):
        for photo in ahead_photos:
            try:
                value = photo_hash(ahead.store.read_small(photo.image, _SMALL_SIDE))
            except ImageError:
                value = None  # faces.parquet has the reason
            yield photo.image, None if value is None else value.tobytes()


def audit_face_quality(data: DataSet) -> dict[str, Any] | None:
    """Measures the sharpness and the brightness of every face crop, and finds the most blurred and the darkest.

    Returns:
        None before the faces were detected.
    """
    if data.has_face is None:
        return None
    measured = np.full((data.people.num_rows, 2), np.nan)
    rows = np.flatnonzero(data.has_face)
    for row, face in zip(rows.tolist(), read_crops(data.dir, rows), strict=True):
        if face is None:
            continue
        try:
            photo = decode_photo(face, "face")
        except ImageError:
            continue  # its thumbnail says so
        measured[row] = sharpness(photo), brightness(photo)
    measured[np.setdiff1d(np.arange(len(measured)), data.once)] = np.nan
    return {
        "faces": int((~np.isnan(measured[:, 0])).sum()),
        "sharpness_quantiles": quantiles(measured[:, 0]),
        "brightness_quantiles": quantiles(measured[:, 1]),
        "most_blurred": _lowest(measured[:, 0]),
        "darkest": _lowest(measured[:, 1]),
    }


def _lowest(values: NDArray[np.float64]) -> list[dict[str, Any]]:
    ranked = np.argsort(values, kind="stable")[: min(_N_FACES, int((~np.isnan(values)).sum()))]
    return [{"index": row, "value": to_json_number(values[row])} for row in ranked.tolist()]
