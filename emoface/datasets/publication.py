"""A copy of a data set for others: tables without the crops of faces, and a manifest without paths of this machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from emoface.datasets.manifest import MANIFEST_NAME, Manifest, SplitFile, write_manifest
from emoface.schema import FACE_IMAGE, SPLIT_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.tables import read_table, write_table

PUBLIC_IMAGE_ROOT = "photos"
"""Where the manifest of a copy says that the photos are: who reads it has to have them."""
_REMEDY = "rebuild it with 'emoface split DIR'"


def write_public_copy(manifest: Manifest, folder: Path, has_crops: bool) -> Manifest:
    """Writes the tables of a data set and its manifest into a folder.

    Args:
        manifest: The data set.
        folder: Folder to write to.
        has_crops: Whether the crops of the faces stay in the tables; else the column ``face`` is null everywhere. The
            boxes of the faces stay.

    Returns:
        The manifest of the copy.
    """
    splits = {name: _write_split(manifest, name, folder, has_crops) for name in manifest.splits}
    for file in (manifest.balance.get("file"), manifest.split.get("leaks", {}).get("file")):
        if file is not None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(manifest.path.parent / file, folder / file)
    public = replace(
        manifest,
        path=folder / MANIFEST_NAME,
        splits=splits,
        image_root=str((folder / PUBLIC_IMAGE_ROOT).resolve()),
        annotations=_without_folders(manifest.annotations),
    )
    write_manifest(public)
    return public


def _write_split(manifest: Manifest, name: str, folder: Path, has_crops: bool) -> SplitFile:
    described, source = manifest.splits[name], manifest.split_path(name)
    path = folder / described.file
    if has_crops:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        return described
    kept = [column for column in SPLIT_SCHEMA.names if column != "face"]
    table = read_table(source, SPLIT_SCHEMA, _REMEDY, kept)
    nothing = pa.nulls(table.num_rows, FACE_IMAGE)
    table = table.add_column(SPLIT_SCHEMA.names.index("face"), SPLIT_SCHEMA.field("face"), nothing)
    write_table(path, table, SPLIT_SCHEMA)
    return SplitFile(**{**asdict(described), "sha256": file_sha256(path)})


def _without_folders(annotations: dict[str, Any]) -> dict[str, Any]:
    """The description of the annotations with the names of the files alone."""
    files = {last_name(path): sha256 for path, sha256 in annotations.get("files", {}).items()}
    kept = {name: value for name, value in annotations.items() if name != "path"}
    return {**kept, "files": files}


def last_name(path: str) -> str:
    r"""The last part of a path of any system.

    Example:
        >>> last_name("C:\\EMOTIC\\Annotations.mat"), last_name("sim/train.csv")
        ('Annotations.mat', 'train.csv')
    """
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
