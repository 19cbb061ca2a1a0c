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
        n_panels = len(counts_of)
        figure = Figure(figsize=(1.6 + 4.2 * n_panels, 1.0 + 0.235 * len(names)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        panels = figure.subplots(1, n_panels, sharex=True, sharey=True, squeeze=False)[0]
        for panel, (subtitle, counts), color in zip(panels, counts_of.items(), SERIES_COLORS, strict=False):
            _draw_bars(panel, np.asarray(counts), color)
            panel.set_title(subtitle, loc="left", fontsize=10, color=color)
            panel.set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        largest = max((int(np.max(counts, initial=0)) for counts in counts_of.values()), default=0)
        panels[0].set_xlim(0, max(1, largest) * 1.14)
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
        n_panels = len(shares_of)
        figure = Figure(figsize=(2.4 + 6.2 * n_panels, 8.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        panels = figure.subplots(1, n_panels, sharey=True, squeeze=False)[0]
        for panel, (subtitle, shares) in zip(panels, shares_of.items(), strict=True):
            drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
            panel.set_title(subtitle, loc="left", fontsize=10)
            panel.set_xticks(range(len(names)), names, rotation=90)
            panel.set_yticks(range(len(names)), names)
            panel.tick_params(length=0, labelsize=8, labelcolor=_INK)
            panel.spines[:].set_visible(False)
        colorbar = figure.colorbar(drawn, ax=list(panels), shrink=0.4, aspect=30, format="{x:.0%}")
        colorbar.outline.set_visible(False)
        return _write_figure(figure, stem)


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
            figure.savefig(temporary, dpi=150, metadata=_METADATA[path.suffix], bbox_inches="tight", pad_inches=0.15)
    return paths
