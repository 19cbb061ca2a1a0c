"""Charts as PNG and SVG files: labels, average precision, training curves; equal numbers give equal bytes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.storage.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES_COLORS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
"""Okabe and Ito's palette, blue, vermilion and green first: distinguishable with any colour vision."""

_INK, _FAINT = "#1f2933", "#7b8794"
_LEFT, _TOP, _GAP = 1.45, 0.75, 0.25
# No date, no random ids: the bytes of a chart depend on its numbers alone. Text in an SVG stays text, also between two
# dollar signs, as names of runs are no formulas.
_STYLE: Any = {
    "svg.hashsalt": "emoface",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _INK,
}
_MOST_POINTS = 200
_METADATA: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def write_label_histogram(
    stem: Path, title: str, names: Sequence[str], counts_of: Mapping[str, ArrayLike]
) -> list[Path]:
    """Draws the number of people per label: one panel per data set, side by side, on the same scale.

    Args:
        stem: Path without suffix; the files are ``stem.png`` and ``stem.svg``.
        title: Title of the figure.
        names: The k labels, top to bottom.
        counts_of: (k,) counts by the title of their panel.

    Returns:
        The files written.
    """
    with _style():
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
    """Draws the co-occurrence of labels as heat maps: one per data set, side by side.

    Args:
        stem: Path without suffix; the files are ``stem.png`` and ``stem.svg``.
        title: Title of the figure.
        names: The k labels.
        shares_of: (k, k) shares from 0 to 1 by the title of their heat map; nan stays empty.

    Returns:
        The files written.
    """
    with _style():
        side = max(6.2, 0.235 * len(names))
        figure, panels = _lay_out(title, len(shares_of), (side, side), bottom=1.5)
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


@dataclass(frozen=True)
class Bars:
    """One bar per label.

    Attributes:
        values: (k,) average precision, 0-1, nan where undefined.
        low: (k,) lower ends of the intervals.
        high: (k,) upper ends of the intervals.
    """

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def write_precision_bars(stem: Path, title: str, names: Sequence[str], bars_of: Mapping[str, Bars]) -> list[Path]:
    """Draws average precision in percent, one bar per label and series, with intervals (figure 4-6).

    Args:
        stem: Path without suffix; the files are ``stem.png`` and ``stem.svg``.
        title: Title of the chart.
        names: The k labels, top to bottom.
        bars_of: The bars of each series, by the name of the series.

    Returns:
        The files written.
    """
    n_series = max(1, len(bars_of))
    thickness = 0.76 / n_series
    row_height = 0.14 + 0.11 * n_series
    with _style():
        figure, (panel,) = _lay_out(title, 1, (6.4, row_height * len(names)), bottom=0.4, top=0.6 + 0.22 * n_series)
        drawn = {}
        for number, ((series, bars), color) in enumerate(zip(bars_of.items(), _colors(len(bars_of)), strict=True)):
            rows = np.arange(len(names)) - 0.38 + thickness * (number + 0.5)
            known = np.isfinite(bars.values)
            drawn[series] = panel.barh(rows[known], 100 * bars.values[known], height=thickness * 0.92, color=color)
            for row, value, low, high in zip(rows, bars.values, bars.low, bars.high, strict=True):
                if np.isnan(value):
                    panel.text(0.8, row, "undefined", va="center", fontsize=7, color=_FAINT)
                    continue
                end = value
                if np.isfinite([low, high]).all():
                    panel.plot([100 * low, 100 * high], [row, row], color=_INK, linewidth=0.9, solid_capstyle="butt")
                    end = max(value, high)
                if n_series <= 2:
                    panel.text(100 * end + 0.8, row, f"{100 * value:.1f}", va="center", fontsize=7.5)
        panel.set(xlim=(0, 108), ylim=(len(names) - 0.5, -0.5))
        panel.set_yticks(range(len(names)), names)
        panel.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
        panel.grid(axis="x", color="#e4e7eb", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        if len(bars_of) > 1:
            _add_legend(figure, drawn, title_height=0.42)
        return _write_figure(figure, stem)


def write_training_curves(
    stem: Path, title: str, panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], x_name: str
) -> list[Path]:
    """Draws lines over training epochs, one panel per quantity, one colour per run (figure 4-7).

    Args:
        stem: Path without suffix; the files are ``stem.png`` and ``stem.svg``.
        title: Title of the figure.
        panels: The x and y values of each run, by the panel's title; nan leaves a gap.
        x_name: Label of the horizontal axis.

    Returns:
        The files written.
    """
    from matplotlib.ticker import MaxNLocator

    runs = list(dict.fromkeys(run for lines in panels.values() for run in lines))
    color_of = dict(zip(runs, _colors(len(runs)), strict=True))
    with _style():
        top = 0.95 + 0.22 * len(runs)
        figure, axes = _lay_out(title, len(panels), (3.9, 3.0), bottom=0.55, top=top, left=0.55, gap=0.65)
        drawn: dict[str, Any] = {}
        for panel, (subtitle, lines) in zip(axes, panels.items(), strict=True):
            for run, (x, y) in lines.items():
                marker = "o" if len(np.atleast_1d(np.asarray(x))) < 3 else ""
                (line,) = panel.plot(x, y, color=color_of[run], linewidth=1.6, marker=marker)
                drawn.setdefault(run, line)
            panel.set_title(subtitle, loc="left", fontsize=10)
            panel.set_xlabel(x_name)
            panel.yaxis.set_major_locator(MaxNLocator(6))
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            panel.grid(color="#e4e7eb", linewidth=0.7)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        _add_legend(figure, drawn, title_height=0.42)
        return _write_figure(figure, stem)


def write_precision_recall(
    stem: Path,
    title: str,
    curves_of: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    captions: Mapping[str, str],
    prevalence_of: Mapping[str, float],
) -> list[Path]:
    """Draws precision-recall curves, one small panel per label.

    Args:
        stem: Path without suffix; the files are ``stem.png`` and ``stem.svg``.
        title: Title of the figure.
        curves_of: Recall and precision by label; empty arrays where undefined.
        captions: A short text in each label's panel.
        prevalence_of: Share of the people with the label, the chance level of precision; drawn as a dotted line.

    Returns:
        The files written.
    """
    n_columns, side, gap, left, top = 6, 1.3, 0.32, 0.5, 0.95
    n_rows = -(-len(curves_of) // n_columns)
    width, height = left + n_columns * (side + gap), top + n_rows * (side + 0.42) + 0.2
    with _style():
        figure = _new_figure(width, height)
        figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=12, fontweight="bold")
        figure.text(
            0.15 / width, 1 - 0.52 / height, "precision (up) against recall (right)", fontsize=8.5, color=_FAINT
        )
        grid, curves, chance_levels = [], [], []
        for number, (label, (recall, precision)) in enumerate(curves_of.items()):
            row, column = divmod(number, n_columns)
            panel = _UnitPanel((left + column * (side + gap), height - top - side - row * (side + 0.42)), side)
            inches: Any = {"transform": figure.dpi_scale_trans}
            for tick in (0.0, 0.5, 1.0):
                grid += [panel.line([tick, tick], [0, 1.02]), panel.line([0, 1], [tick, tick])]
                style = {"fontsize": 6, "color": _FAINT, **inches}
                figure.text(*panel.point(tick, -0.035), f"{tick}", ha="center", va="top", **style)
                figure.text(*panel.point(-0.035, tick), f"{tick}", ha="right", va="center_baseline", **style)
            figure.text(*panel.point(0, 1.045), label, fontsize=8, **inches)
            figure.text(*panel.point(0.97, 0.95), captions[label], fontsize=7, ha="right", va="top", **inches)
            if len(recall):
                chosen = np.unique(np.linspace(0, len(recall) - 1, _MOST_POINTS).round().astype(int))
                curves.append(panel.line(recall[chosen], precision[chosen]))
                chance_levels.append(panel.line([0, 1], [prevalence_of[label]] * 2))
        _add_lines(figure, grid, color="#e4e7eb", linewidth=0.6)
        _add_lines(figure, curves, color=SERIES_COLORS[0], linewidth=1.3, joinstyle="round")
        _add_lines(figure, chance_levels, color=_FAINT, linewidth=0.8, linestyle=":")
        return _write_figure(figure, stem)


@dataclass(frozen=True)
class _UnitPanel:
    """A square panel for values from 0 to 1; one of matplotlib's axes for each of 26 labels would take a second.

    Attributes:
        corner: Position of the values (0, 0) in the figure, inches.
        side: Length of 1, inches.
    """

    corner: tuple[float, float]
    side: float

    def point(self, x: float, y: float) -> tuple[float, float]:
        """The position of a pair of values in the figure, inches."""
        return self.corner[0] + self.side * x, self.corner[1] + self.side * y

    def line(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """(n, 2) positions of n pairs of values in the figure, inches."""
        return self.side * np.column_stack([x, y]).astype(np.float64) + self.corner


def _add_lines(figure: Figure, lines: Sequence[NDArray[np.float64]], **style: Any) -> None:
    """Draws lines, each (n, 2) positions in inches, in one style."""
    from matplotlib.collections import LineCollection

    figure.add_artist(LineCollection(lines, transform=figure.dpi_scale_trans, **style))


def _colors(n: int) -> list[str]:
    return [SERIES_COLORS[number % len(SERIES_COLORS)] for number in range(n)]


def _add_legend(figure: Figure, drawn: Mapping[str, Any], title_height: float) -> None:
    """Draws the names of the series below the title, one per line.

    Matplotlib leaves out names that begin with an underscore, so the names are set after it has made the lines.

    Args:
        figure: The figure.
        drawn: What was drawn for each series, by its name.
        title_height: Distance of the names from the top, inches.
    """
    width, height = figure.get_size_inches()
    legend = figure.legend(
        list(drawn.values()),
        [str(number) for number in range(len(drawn))],
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - title_height / height),
        frameon=False,
        borderpad=0.1,
        labelspacing=0.25,
        handlelength=1.4,
    )
    for text, name in zip(legend.get_texts(), drawn, strict=True):
        text.set_text(name)


def _lay_out(
    title: str,
    n_panels: int,
    panel_wh: tuple[float, float],
    bottom: float,
    *,
    top: float = _TOP,
    left: float = _LEFT,
    gap: float = _GAP,
) -> tuple[Figure, list[Any]]:
    """Makes a figure of equal panels; sizes and margins in inches. Matplotlib's own layout engines take seconds."""
    width = left + n_panels * (panel_wh[0] + gap)
    height = top + panel_wh[1] + bottom
    figure = _new_figure(width, height)
    figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=12, fontweight="bold")
    panels = []
    for number in range(n_panels):
        start = left + number * (panel_wh[0] + gap)
        panel = figure.add_axes((start / width, bottom / height, panel_wh[0] / width, panel_wh[1] / height))
        panel.set_yticks([])
        panels.append(panel)
    return figure, panels


def _draw_bars(panel: Any, counts: NDArray[Any], color: str) -> None:
    bars = panel.barh(range(len(counts)), counts, color=color, height=0.72)
    panel.bar_label(bars, labels=[f"{count:,}" for count in counts.tolist()], padding=3, fontsize=8, color=_INK)
    panel.spines[:].set_visible(False)
    panel.xaxis.set_visible(False)
    panel.tick_params(axis="y", length=0)


def _style() -> AbstractContextManager[None]:
    """Sets the style of all charts for the time of one drawing."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def _new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and SVG; characters that cannot be printed, which no SVG may hold, become U+FFFD."""
    from matplotlib.text import Text

    for part in figure.findobj(Text):
        text = part.get_text()
        part.set_text("".join(sign if sign.isprintable() else "\ufffd" for sign in text))
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in _METADATA]
    for path in paths:
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)  # drawn as boxes; whole in the SVG
            figure.savefig(temporary, dpi=150, metadata=_METADATA[path.suffix])
    return paths
