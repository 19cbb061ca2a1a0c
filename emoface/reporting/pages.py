"""Self-contained HTML pages from the templates of the package."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from emoface.storage.records import hash_inputs

TEMPLATES_DIR = Path(__file__).parent / "templates"


def render_page(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """Fills a template; text is escaped, and a name that the template misses is an error.

    Args:
        template: A file of ``TEMPLATES_DIR``.
        filters: What the template calls its formats.
        values: What it shows.
    """
    environment = _build_environment()
    environment.filters |= filters
    return environment.get_template(template).render(**values)


def list_template_files(template: str) -> list[Path]:
    """The files that decide a page besides its numbers: the template and all that it includes, directly or not.

    Args:
        template: A file of ``TEMPLATES_DIR``.

    Returns:
        The template first, each file once.

    Raises:
        ValueError: A file is missing, or a name to include is worked out only when the page is filled.
    """
    environment = _build_environment()
    found: dict[str, Path] = {}
    waiting = [template]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = TEMPLATES_DIR / name
        if not path.is_file():
            raise ValueError(f"{path}: no such template")
        found[name] = path
        for included in jinja2.meta.find_referenced_templates(environment.parse(path.read_text(encoding="utf-8"))):
            if included is None:
                raise ValueError(f"{path}: includes a file whose name is no plain text, so it cannot be hashed")
            waiting.append(included)
    return list(found.values())


def hash_template(template: str) -> dict[str, str]:
    """What a job's ``inputs`` say of a page: the sha256 of its template and of all that it includes, by path."""
    return hash_inputs(list_template_files(template))


def _build_environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def svg_address(path: Path) -> str:
    """A picture as an address that holds it, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def format_count(value: int | None) -> str:
    """A whole number with its thousands apart, a dash for None."""
    return "–" if value is None else f"{value:,}"


def format_number(value: float | None, digits: int = 2) -> str:
    """A number with its thousands apart, a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def format_percent(value: float | None, digits: int = 1, undefined: str = "–") -> str:
    """A share of 0-1 in percent, without its sign; ``undefined`` for None and nan.

    Example:
        >>> format_percent(0.1234), format_percent(None, undefined="undefined")
        ('12.3', 'undefined')
    """
    return undefined if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def format_share(value: float | None, digits: int = 1) -> str:
    """A share of 0-1 in percent, with its sign; a dash for None and nan."""
    return "–" if value is None or math.isnan(value) else f"{format_percent(value, digits)}%"


def format_signed_percent(value: float | None) -> str:
    """A difference of two shares in percent, with plus or minus; a dash for None.

    Example:
        >>> format_signed_percent(0.012)
        '+1.2'
    """
    return "–" if value is None else f"{100 * value:+.1f}"
