"""Draws ``docs/architecture.svg``: the packages of emoface by layer; a test checks that the picture is up to date.

Run it with ``make docs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SVG_PATH = Path(__file__).with_name("architecture.svg")


@dataclass(frozen=True)
class Layer:
    """One layer of the picture.

    Attributes:
        title: What the layer is about.
        names: Packages and modules of the layer, below ``emoface``.
        color: Fill colour of their boxes.
    """

    title: str
    names: tuple[str, ...]
    color: str


LAYERS: tuple[Layer, ...] = (
    Layer("Command line", ("cli",), "#fde2e4"),
    Layer("Jobs (one file each)", ("jobs",), "#fbe7c6"),
    Layer("Detector and model together", ("inference",), "#f6efbf"),
    Layer("Networks and training (torch)", ("learning", "yolov5face", "mter"), "#dcefd2"),
    Layer(
        "Files and pages",
        ("storage", "emotic", "annotations", "datasets", "reporting", "auditing", "pipeline"),
        "#cfeae6",
    ),
    Layer("Arrays (numpy, OpenCV)", ("vision", "labels", "metrics", "simulator"), "#d4e4f7"),
    Layer(
        "Basics", ("errors", "schema", "progress", "prefetch", "ray_tasks", "worker_processes", "version"), "#e3def5"
    ),
)
"""The layers from the highest to the lowest."""

_WIDTH, _MARGIN, _PAD, _GAP = 360, 8, 10, 8
_TITLE_HEIGHT, _BOX_HEIGHT, _ARROW_HEIGHT = 28, 32, 26
_MAX_PER_ROW = 3


def render_architecture() -> str:
    """Renders the picture as SVG, 360 pixels wide so that it can be read on a phone."""
    parts: list[str] = []
    y = _MARGIN
    for number, layer in enumerate(LAYERS):
        if number:
            parts.append(_arrow(y))
            y += _ARROW_HEIGHT
        rows = _split_into_rows(layer.names)
        height = _TITLE_HEIGHT + len(rows) * (_BOX_HEIGHT + _GAP) + _PAD - _GAP
        parts.append(_rectangle(_MARGIN, y, _WIDTH - 2 * _MARGIN, height, "#ffffff", "#8a94a3"))
        parts.append(_text(_MARGIN + _PAD, y + 19, layer.title, 'font-weight="600" font-size="14"'))
        for row, names in enumerate(rows):
            top = y + _TITLE_HEIGHT + row * (_BOX_HEIGHT + _GAP)
            parts += _draw_row(names, top, layer.color)
        y += height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + _MARGIN}" width="{_WIDTH}" '
        f'height="{y + _MARGIN}" font-family="system-ui, sans-serif" font-size="15" fill="#17202b" role="img">\n'
        "<title>The packages of emoface by layer; each layer may import the layers below it</title>\n"
        f'<rect width="{_WIDTH}" height="{y + _MARGIN}" fill="#ffffff"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _split_into_rows(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Splits the names of a layer into rows of equal length, the last row possibly shorter."""
    n_rows = -(-len(names) // _MAX_PER_ROW)
    per_row = -(-len(names) // n_rows)
    return [names[start : start + per_row] for start in range(0, len(names), per_row)]


def _draw_row(names: tuple[str, ...], top: int, color: str) -> list[str]:
    """Draws a row of boxes that fills the width of the layer."""
    width = (_WIDTH - 2 * _MARGIN - 2 * _PAD - (len(names) - 1) * _GAP) / len(names)
    parts = []
    for number, name in enumerate(names):
        left = _MARGIN + _PAD + number * (width + _GAP)
        parts.append(_rectangle(left, top, width, _BOX_HEIGHT, color, "#5b6675"))
        parts.append(_text(left + width / 2, top + 21, name, 'text-anchor="middle"'))
    return parts


def _rectangle(left: float, top: float, width: float, height: float, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:.4g}" height="{height:g}" rx="6" fill="{fill}" '
        f'stroke="{stroke}"/>'
    )


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.5g}" y="{y:g}" {attributes}>{text}</text>'


def _arrow(top: int) -> str:
    """Draws an arrow from one layer down to the next."""
    middle, bottom = _WIDTH // 2, top + _ARROW_HEIGHT
    return (
        f'<path d="M{middle} {top + 3}V{bottom - 9}" stroke="#5b6675" stroke-width="2"/>'
        f'<path d="M{middle - 6} {bottom - 11}L{middle} {bottom - 2}L{middle + 6} {bottom - 11}Z" fill="#5b6675"/>'
    )


if __name__ == "__main__":
    SVG_PATH.write_text(render_architecture(), encoding="utf-8")
