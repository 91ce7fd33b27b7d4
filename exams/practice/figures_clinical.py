"""Figures of the clinical practice items: Latin labels, black on white, the same bytes from the same matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

WIDTH_INCHES, HEIGHT_INCHES, DPI = 8.0, 5.0, 100


def pk_semilog(folder: Path) -> Path:
    """Item pceu-3: concentration (mg/L, log axis) against time (h) after 400 mg IV; C0 20 mg/L, half-life 4 h."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot()
    line_hours = np.array([0.0, 14.0])
    sample_hours = np.array([1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0])
    axes.semilogy(line_hours, 20.0 * 0.5 ** (line_hours / 4.0), color="black", linewidth=1.5)
    axes.semilogy(sample_hours, 20.0 * 0.5 ** (sample_hours / 4.0), "o", color="black", markersize=7)
    axes.set(xlim=(0, 14), ylim=(1, 100), xlabel="Time after dose (h)", ylabel="Blood concentration (mg/L)")
    axes.xaxis.set_major_locator(FixedLocator(list(range(0, 15, 2))))
    axes.yaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="0.6", linewidth=0.8)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    return _save(figure, folder / "pk_semilog.png")


def dissolution(folder: Path) -> Path:
    """Item pceu-4: fraction dissolved (%) against time (h), pH 1.2 for 2 h, then 6.8; A fast, B enteric, C linear."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot()
    hours = np.arange(0.0, 8.01, 0.25)
    profiles = {
        "A": (99.0 * (1.0 - np.exp(-8.0 * hours)), "-", "o"),
        "B": (96.0 * (1.0 - np.exp(-4.0 * np.clip(hours - 2.0, 0.0, None))), "--", "s"),
        "C": (10.0 * hours, "-.", "^"),
    }
    for name, (percent, style, marker) in profiles.items():
        axes.plot(hours, percent, style, marker=marker, markevery=2, color="black", markerfacecolor="white", label=name)
    axes.axvline(2.0, color="black", linewidth=0.8, linestyle=":")
    axes.text(1.0, 108, "pH 1.2", ha="center", va="center")
    axes.text(5.0, 108, "pH 6.8", ha="center", va="center")
    axes.set(
        xlim=(0, 8.2), ylim=(-4, 115), xlabel="Time (h)", ylabel="Fraction dissolved (%)", yticks=range(0, 101, 10)
    )
    axes.grid(color="0.85", linewidth=0.6)
    axes.legend(title="Preparation", loc="lower right")
    return _save(figure, folder / "dissolution.png")


def draw_all(folder: Path) -> list[Path]:
    """Draws every figure into ``folder``, made if absent, and returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    return [pk_semilog(folder), dissolution(folder)]


def _save(figure: Figure, path: Path) -> Path:
    """Writes a PNG without the software stamp, so that the bytes do not name the matplotlib release."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
