"""Self-contained HTML pages from the templates of the package."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES_DIR = Path(__file__).parent / "templates"


def render_page(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """Fills a template; text is escaped, and a name that the template misses is an error.

    Args:
        template: A file of ``TEMPLATES_DIR``.
        filters: What the template calls its formats.
        values: What it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**values)


def svg_address(path: Path) -> str:
    """A picture as an address that holds it, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def format_count(value: int | None) -> str:
    """A whole number with its thousands apart, a dash for None."""
    return "–" if value is None else f"{value:,}"


def format_number(value: float | None, digits: int = 2) -> str:
    """A number with its thousands apart, a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"
