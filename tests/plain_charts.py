"""Charts that are not drawn, for tests of the numbers and words around them: drawing one takes about half a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emoface.storage.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def without_drawing() -> Iterator[None]:
    """Within it, every chart is written as empty files."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emoface.reporting.charts._write_figure", _write_empty)
        yield


def _write_empty(_: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    for path in paths:
        write_bytes(path, b"")
    return paths
