"""Places that a setting may name: a path of this machine, or the URL of a folder or file in an object store."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

Place = Path | str
"""A path of this machine, or a URL as text; ``Path`` would take a slash out of ``s3://``."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://.")  # two letters at least: C:// is a drive of Windows
_URL_AS_PATH = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]")


def is_url(text: object) -> bool:
    """Whether a text is the URL of an object store, such as ``s3://bucket/photos``.

    Example:
        >>> [is_url(one) for one in ("s3://bucket/photos", "gs://b", "C://photos", "photos", Path("s3://bucket"))]
        [True, True, False, False, False]
    """
    return isinstance(text, str) and _URL.match(text) is not None


def to_place(value: Any) -> Any:
    """Converts a text to a place: a URL stays text, without a slash at its end; any other text becomes a path.

    Args:
        value: A text; any other value is returned unchanged.

    Raises:
        ValueError: A URL was converted to a path before, which has taken a slash away.

    Example:
        >>> to_place("s3://bucket/photos/"), to_place("photos/") == Path("photos")
        ('s3://bucket/photos', True)
    """
    if isinstance(value, Path) and _URL_AS_PATH.match(value.as_posix()):
        scheme, _, rest = value.as_posix().partition(":/")
        raise ValueError(f"{value}: a URL as a path has lost a slash; give it as the text '{scheme}://{rest}'")
    if not isinstance(value, str):
        return value
    return value.rstrip("/") if is_url(value) else Path(value)


def resolve_place(place: Place) -> Place:
    """Makes a path absolute; a URL is absolute."""
    return place if is_url(place) else Path(place).resolve()


def to_portable(place: Place, folder: Path) -> str:
    """Writes a place for a file in ``folder`` so that both may move together.

    Args:
        place: A path or URL.
        folder: The folder of the file that names the place.

    Returns:
        A path relative to ``folder``, with ``/`` between its parts, if the place is below it or below its parent;
        otherwise the absolute path. The root of a disk is no such parent. A URL stays as it is.

    Example:
        >>> [to_portable(Path(one), Path("/data/work")) for one in ("/data/work/a", "/data/emotic", "/other")]
        ['a', '../emotic', '/other']
    """
    if isinstance(place, str):
        return place
    path, folder = place.resolve(), folder.resolve()
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    if path.is_relative_to(folder.parent) and folder.parent != Path(folder.anchor):
        return (Path("..") / path.relative_to(folder.parent)).as_posix()
    return str(path)


def from_portable(text: str, folder: Place) -> Place:
    """Reads a place that ``to_portable`` wrote, where the file that names it lies now.

    Args:
        text: A URL, or a path, which if relative starts at ``folder``.
        folder: The folder of the file that names the place, or its URL.

    Example:
        >>> from_portable("../emotic", Path("/moved/work")) == Path("/moved/emotic")
        True
        >>> from_portable("../emotic", "s3://bucket/work"), from_portable("s3://photos", Path("/work"))
        ('s3://bucket/emotic', 's3://photos')
    """
    if is_url(text) or Path(text).is_absolute():
        place: Place = to_place(text)
        return place
    if isinstance(folder, Path):
        return (folder / text).resolve()
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(f'{rest}/{text}')}"


def name_of(place: Place) -> str:
    """The last part of a path or URL: the name of a file."""
    return place.name if isinstance(place, Path) else PurePosixPath(place).name


def find_below(place: Place, root: Place) -> str | None:
    """The path of a file below a folder, with ``/`` between its parts; None if it is elsewhere.

    Example:
        >>> find_below("s3://bucket/emotic/a/b.jpg", "s3://bucket/emotic"), find_below("s3://c/b.jpg", "s3://bucket")
        ('a/b.jpg', None)
    """
    if isinstance(place, str) or isinstance(root, str):
        return str(place).removeprefix(f"{root}/") if str(place).startswith(f"{root}/") else None
    path = place.resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else None


def parent_of(place: Place) -> Place:
    """The folder of a path or URL; a bucket is its own.

    Example:
        >>> parent_of("s3://bucket/sim/emotic"), parent_of("s3://bucket")
        ('s3://bucket/sim', 's3://bucket')
    """
    if isinstance(place, Path):
        return place.parent
    scheme, _, rest = place.partition("://")
    return f"{scheme}://{rest.rpartition('/')[0] or rest}"
