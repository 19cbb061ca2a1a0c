"""Self-contained HTML pages from the templates of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2


def render_page(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """Fills a template; text is escaped, and a name that the template misses is an error.

    Args:
        template: A file of ``emoface/templates``.
        filters: What the template calls its formats.
        values: What it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("emoface"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**values)
