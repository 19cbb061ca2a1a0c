"""Charts as PNG and SVG files: label histograms and co-occurrence, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from emoface.files import atomic_path

SERIES_COLORS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73")
"""Blue, vermilion and green of Okabe and Ito's palette: told apart with any colour vision, and in grey."""

_INK, _FAINT = "#1f2933", "#7b8794"
_LEFT, _TOP, _GAP = 1.45, 0.75, 0.25
# No date, no random ids: the bytes of a chart depend on its numbers alone. Text in an SVG stays text.
_STYLE: Any = {
    "svg.hashsalt": "emoface",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _INK,
}
_METADATA: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def write_label_histogram(
    stem: Path, title: str, names: Sequence[str], counts_of: Mapping[str, ArrayLike]
) -> list[Path]:
    """Draws how many people have each label: one panel per data set, side by side, on one scale.

    Args:
        stem: The files are ``stem.png`` and ``stem.svg``.
        title: What the panels have in common.
        names: The k labels, top to bottom.
        counts_of: (k,) counts by the title of their panel.

    Returns:
        The files written.
    """
    with mpl.rc_context(_STYLE):
        figure, panels = _lay_out(title, len(counts_of), (4.2, 0.235 * len(names)), bottom=0.15)
        largest = max((int(np.max(counts, initial=0)) for counts in counts_of.values()), default=0)
        for panel, (subtitle, counts), color in zip(panels, counts_of.items(), SERIES_COLORS, strict=False):
            _draw_bars(panel, np.asarray(counts), color)
            panel.set_title(subtitle, loc="left", fontsize=10, color=color)
            panel.set(xlim=(0, max(1, largest) * 1.16), ylim=(len(names) - 0.4, -0.6))
        panels[0].set_yticks(range(len(names)), names)
        return _write_figure(figure, stem)


def write_co_occurrence(
    stem: Path, title: str, names: Sequence[str], shares_of: Mapping[str, NDArray[np.float64]]
) -> list[Path]:
    """Draws which labels go together: one square per data set, side by side.

    Args:
        stem: The files are ``stem.png`` and ``stem.svg``.
        title: What the squares have in common.
        names: The k labels.
        shares_of: (k, k) shares from 0 to 1 by the title of their square; nan stays empty.

    Returns:
        The files written.
    """
    with mpl.rc_context(_STYLE):
        figure, panels = _lay_out(title, len(shares_of), (6.2, 6.2), bottom=1.5)
        for panel, (subtitle, shares) in zip(panels, shares_of.items(), strict=True):
            drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            panel.set_title(subtitle, loc="left", fontsize=10)
            panel.set_xticks(range(len(names)), names, rotation=90)
            panel.tick_params(length=0, labelsize=8, labelcolor=_INK)
            panel.spines[:].set_visible(False)
        panels[0].set_yticks(range(len(names)), names)
        width, height = figure.get_size_inches()
        scale = figure.add_axes((_LEFT / width, 0.28 / height, 2 / width, 0.1 / height))
        figure.colorbar(drawn, cax=scale, orientation="horizontal", format="{x:.0%}", ticks=(0, 0.5, 1))
        scale.tick_params(length=0, labelsize=8)
        scale.spines[:].set_visible(False)
        return _write_figure(figure, stem)


def _lay_out(title: str, n_panels: int, panel_wh: tuple[float, float], bottom: float) -> tuple[Figure, list[Any]]:
    """A figure of equal panels with fixed margins, inches; matplotlib's own layout engines take seconds."""
    width = _LEFT + n_panels * (panel_wh[0] + _GAP)
    height = _TOP + panel_wh[1] + bottom
    figure = Figure(figsize=(width, height))
    figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=12, fontweight="bold")
    panels = []
    for number in range(n_panels):
        left = _LEFT + number * (panel_wh[0] + _GAP)
        panel = figure.add_axes((left / width, bottom / height, panel_wh[0] / width, panel_wh[1] / height))
        panel.set_yticks([])
        panels.append(panel)
    return figure, panels


def _draw_bars(panel: Any, counts: NDArray[Any], color: str) -> None:
    bars = panel.barh(range(len(counts)), counts, color=color, height=0.72)
    panel.bar_label(bars, labels=[f"{count:,}" for count in counts.tolist()], padding=3, fontsize=8, color=_INK)
    panel.spines[:].set_visible(False)
    panel.xaxis.set_visible(False)
    panel.tick_params(axis="y", length=0)


def _write_figure(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in _METADATA]
    for path in paths:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata=_METADATA[path.suffix])
    return paths
