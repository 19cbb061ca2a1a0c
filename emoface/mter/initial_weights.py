"""Which weights each stream of a model starts from, as a setting: torch is not needed to read it.

A setting is a list of ``SOURCE``, for all streams, and ``STREAM=SOURCE``, for one. A source is ``auto``, ``imagenet``,
``places365``, ``library``, ``none`` or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emoface.errors import SettingsError
from emoface.mter.features import LIBRARY
from emoface.mter.names import STREAM_SIZES

AUTO, NONE = "auto", "none"
DATA_SETS = ("imagenet", "places365")
_ALL = ""


def parse_pretrained(sources: str | Sequence[str]) -> tuple[str, ...]:
    """Reads the sources of initial weights.

    Args:
        sources: As a list, or as one text with commas between the parts.

    Raises:
        SettingsError: A stream is unknown or named twice, or a source is empty.

    Example:
        >>> parse_pretrained("mobilenet_v2.pth, context=none")
        ('mobilenet_v2.pth', 'context=none')
    """
    parts = tuple(part.strip() for part in (sources.split(",") if isinstance(sources, str) else sources))
    streams = [_split(part)[0] for part in parts]
    for part, stream in zip(parts, streams, strict=True):
        if not _split(part)[1]:
            raise SettingsError(f"pretrained is '{part}', expected auto, imagenet, places365, library, none or a file")
        if streams.count(stream) > 1:
            who = f"the {stream} stream" if stream else "all streams"
            raise SettingsError(f"pretrained gives {who} two sources: {', '.join(parts)}; give one")
    return parts


def source_of(sources: Sequence[str], stream: str) -> str:
    """The source of a stream's initial weights.

    Args:
        sources: As ``parse_pretrained`` gives them.
        stream: ``face``, ``body`` or ``context``.

    Returns:
        A word or the path of a file; ``auto`` where nothing is said of the stream.

    Example:
        >>> [source_of(("mobilenet_v2.pth", "context=none"), stream) for stream in ("face", "context")]
        ['mobilenet_v2.pth', 'none']
    """
    given = dict(map(_split, sources))
    return given.get(stream, given.get(_ALL, AUTO))


def named_streams(sources: Sequence[str]) -> list[str]:
    """The streams that have a source of their own."""
    return [stream for stream, _ in map(_split, sources) if stream]


def is_file_source(source: str) -> bool:
    """Whether a source names a file and is none of the words."""
    return source not in (AUTO, NONE, LIBRARY, *DATA_SETS)


def _split(part: str) -> tuple[str, str]:
    stream, equals, source = part.partition("=")
    if equals and stream in STREAM_SIZES:
        return stream, source
    if equals and not Path(part).is_file():
        raise SettingsError(
            f"pretrained is '{part}': no stream is called '{stream}', expected {', '.join(STREAM_SIZES)}"
        )
    return _ALL, part
