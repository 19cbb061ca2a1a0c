"""Renders self-contained HTML pages from the package's templates."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoface.storage.records import hash_inputs

if TYPE_CHECKING:
    import jinja2

TEMPLATES_DIR = Path(__file__).parent / "templates"


def render_page(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """Renders a template; text is escaped, and an undefined name in the template is an error.

    Args:
        template: Name of a file in ``TEMPLATES_DIR``.
        filters: Functions that the template uses to format values, by the name of their filter.
        values: Variables of the template.
    """
    environment = _build_environment(TEMPLATES_DIR, tuple(filters.items()))
    return environment.get_template(template).render(**values)


def list_template_files(template: str) -> list[Path]:
    """Lists the files that a page is rendered from: the template and all files it includes, directly or indirectly.

    Args:
        template: Name of a file in ``TEMPLATES_DIR``.

    Returns:
        Their paths, the template first, each file once.

    Raises:
        ValueError: A file is missing, or the name of an included file is known only when the page is rendered.
    """
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
        for included in _list_included(path.read_text(encoding="utf-8")):
            if included is None:
                raise ValueError(f"{path}: includes a file whose name is no plain text, so it cannot be hashed")
            waiting.append(included)
    return list(found.values())


def hash_template(template: str) -> dict[str, str]:
    """The sha256 of a page's template and of all files it includes, by path, for the ``inputs`` of a job's record."""
    return hash_inputs(list_template_files(template))


@cache
def _list_included(source: str) -> tuple[str | None, ...]:
    """The names of the files that a template includes; None for a name that is known only when it is rendered."""
    from jinja2.meta import find_referenced_templates

    return tuple(find_referenced_templates(_build_environment(TEMPLATES_DIR).parse(source)))


@cache
def _build_environment(folder: Path, filters: tuple[tuple[str, Callable[..., Any]], ...] = ()) -> jinja2.Environment:
    """Builds the environment that compiles templates; it keeps those it has compiled, as long as their files stay."""
    import jinja2  # only what writes or hashes a page needs it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment


def svg_address(path: Path) -> str:
    """Converts an SVG file to a data URL, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def format_count(value: int | None) -> str:
    """Formats a whole number with thousands separators; None becomes a dash."""
    return "–" if value is None else f"{value:,}"


def format_number(value: float | None, digits: int = 2) -> str:
    """Formats a number with thousands separators and ``digits`` decimals; None becomes a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def format_percent(value: float | None, digits: int = 1, undefined: str = "–") -> str:
    """Formats a share (0-1) in percent, without the percent sign; None and nan become ``undefined``.

    Example:
        >>> format_percent(0.1234), format_percent(None, undefined="undefined")
        ('12.3', 'undefined')
    """
    return undefined if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def format_share(value: float | None, digits: int = 1) -> str:
    """Formats a share (0-1) in percent, with the percent sign; None and nan become a dash."""
    return "–" if value is None or math.isnan(value) else f"{format_percent(value, digits)}%"


def to_percent(share: float | None) -> float | None:
    """Converts a share (0-1) to percent, rounded to two decimals, for tables; None stays None.

    Example:
        >>> to_percent(0.123456)
        12.35
    """
    return None if share is None else round(100 * share, 2)


def format_signed_percent(value: float | None) -> str:
    """Formats a difference of two shares in percentage points, with plus or minus; None becomes a dash.

    Example:
        >>> format_signed_percent(0.012)
        '+1.2'
    """
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0: no "-0.0"


def format_si(value: float | None) -> str:
    """Formats a large number with three digits and its SI prefix; None becomes a dash.

    Example:
        >>> format_si(11_715_538), format_si(299_494_272), format_si(1_813_561_344), format_si(640)
        ('11.7 M', '299 M', '1.81 G', '640')
    """
    if value is None:
        return "–"
    number, prefixes = float(f"{value:.3g}"), ["", " k", " M", " G", " T"]
    while abs(number) >= 1000 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:#.3g}".rstrip(".") + prefixes[0]


def format_duration(seconds: float | None) -> str:
    """Formats a time with its unit; None becomes a dash.

    Example:
        >>> format_duration(4.2), format_duration(75), format_duration(11_400)
        ('4 s', '1 min 15 s', '3 h 10 min')
    """
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_p_value(value: float | None) -> str:
    """Formats a p-value with three decimals; None, where no test can be made, becomes empty.

    Example:
        >>> format_p_value(0.0004), format_p_value(0.0317), format_p_value(None)
        ('< 0.001', '0.032', '')
    """
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
