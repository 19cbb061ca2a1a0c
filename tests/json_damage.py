"""Damaged JSON for the tests of what reads it: one value removed or of another type, texts that were cut."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

OTHERS: tuple[Any, ...] = (None, "text", 7.5, True, [], {}, [None], {"a": None})


def change_each_value(content: Any) -> Iterator[tuple[str, Any]]:
    """Yields copies of a JSON value, each with one part removed or of another type, and a description of the change.

    Of a list, only the first entry is changed.
    """
    for path in _paths(content, ()):
        *above, last = path
        for other in (*OTHERS, ...):
            changed = copy.deepcopy(content)
            holder = changed
            for part in above:
                holder = holder[part]
            if other is ...:
                del holder[last]
            elif type(holder[last]) is type(other) and other not in ([None], {"a": None}):
                continue  # another text or number, or an empty list or object, may be as good
            else:
                holder[last] = other
            yield f"{'.'.join(map(str, path))}: {'removed' if other is ... else repr(other)}", changed


def damage_text(text: str) -> Iterator[bytes]:
    """Yields texts that are no JSON, or not an object: cut, empty, nested too deeply, no UTF-8."""
    for share in (0, 0.3, 0.9):
        yield text[: int(len(text) * share)].encode()
    yield from (b"[]", b"null", b"7", b'"text"', b"{}", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000)


def damage(text: str) -> Iterator[tuple[str, bytes]]:
    """Yields both kinds of damage to the text of a JSON file, each with a description."""
    for content in damage_text(text):
        yield repr(content[:30]), content
    for name, changed in change_each_value(json.loads(text)):
        yield name, json.dumps(changed).encode()


def _paths(value: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*above, key)
        yield from _paths(part, (*above, key))
