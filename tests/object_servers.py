"""What the tests of all object stores share: a folder uploaded by a client, and clients that are forgotten."""

from __future__ import annotations

from pathlib import Path

from fsspec import AbstractFileSystem

from emoface.storage import objects


def upload_folder(filesystem: AbstractFileSystem, folder: Path, url: str) -> None:
    """Writes every file of a folder below a URL, whose bucket is made if there is none."""
    bucket = url.partition("://")[2].partition("/")[0]
    if not filesystem.exists(bucket):
        filesystem.mkdir(bucket)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    filesystem.pipe({f"{url}/{name}": path.read_bytes() for name, path in files.items()})


def forget_filesystem(filesystem: type[AbstractFileSystem]) -> None:
    """Lets the next command make its client of this kind anew, with the environment of that time."""
    filesystem.clear_instance_cache()
    objects._make_filesystem.cache_clear()
    objects._SEEN_BUCKETS.clear()
    objects.FOLDER_SIZES.clear()
