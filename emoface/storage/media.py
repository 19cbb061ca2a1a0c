"""The photos and videos that a user names: files, folders, patterns and URLs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoface.errors import SettingsError
from emoface.storage.urls import Place, name_of

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif"),
)
"""Suffixes of the photos that are taken from a folder; a photo that is named itself may have any suffix."""
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".ogv")


@dataclass(frozen=True)
class Media:
    """Photos and videos.

    Attributes:
        photos: The photos in the order in which they were named; those of a folder or a pattern are sorted.
        videos: The videos, in the same order.
    """

    photos: tuple[Place, ...]
    videos: tuple[Path, ...]


def list_media(given: Sequence[Place], out: Path) -> Media:
    """Lists the photos and videos that a user named.

    A folder stands for all photos in it and in the folders below it, not for its videos. A pattern such as
    ``photos/*.jpg`` or ``photos/**/*.png`` stands for all photos and videos that match it. Hidden files are left out of
    both, and each file that they find is listed once. A pattern that matches nothing is listed as a photo, which is
    missing.

    Args:
        given: Paths, patterns and URLs.
        out: The folder of the results; its files are not taken from a folder or a pattern.

    Raises:
        SettingsError: A folder has no photos, or it is the folder of the results; or a video is given as a URL.
    """
    photos: list[Place] = []
    videos: list[Path] = []
    found: set[Path] = set()
    for place in given:
        matches = None if isinstance(place, str) else _expand(place, out)
        if matches is not None:
            new = [path for path in matches if path not in found]
            found.update(new)
            photos += [path for path in new if not is_video(path)]
            videos += [path for path in new if is_video(path)]
        elif not is_video(place):
            photos.append(place)
        elif isinstance(place, Path):
            videos.append(place)
        else:
            raise SettingsError(f"{place}: videos are read from files of this machine; copy the video first")
    return Media(tuple(photos), tuple(videos))


def is_video(place: Place) -> bool:
    """Whether a file is taken as a video, by its suffix."""
    return Path(name_of(place)).suffix.lower() in VIDEO_SUFFIXES


def _expand(path: Path, out: Path) -> list[Path] | None:
    """Lists the files of a folder or pattern, sorted; None for the path of one file."""
    if path.is_dir():
        if path.resolve() == out.resolve():
            raise SettingsError(f"{path}: the results would be written among the photos; choose another folder")
        photos = sorted(_leave_out(path.rglob("*"), path, out, PHOTO_SUFFIXES))
        if not photos:
            raise SettingsError(
                f"{path}: no photos in this folder or below it; expected files that end in {', '.join(PHOTO_SUFFIXES)}"
            )
        return photos
    if path.exists() or glob.escape(str(path)) == str(path):
        return None
    matches = (Path(name) for name in glob.iglob(str(path), recursive=True))  # noqa: PTH207 any text is a pattern
    return sorted(_leave_out(matches, path, out, (*PHOTO_SUFFIXES, *VIDEO_SUFFIXES))) or None


def _leave_out(paths: Iterable[Path], given: Path, out: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yields the files with known suffixes that are neither hidden nor results."""
    results = out.resolve()
    for path in paths:
        is_hidden = any(part.startswith(".") for part in path.parts if part not in given.parts)
        is_known = path.suffix.lower() in suffixes and not is_hidden
        if is_known and path.is_file() and not path.resolve().is_relative_to(results):
            yield path
