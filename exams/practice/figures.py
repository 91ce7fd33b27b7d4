"""Draw the diagrams of the practice exam (physics, chemistry, biology, hygiene).

Run ``python exams/practice/figures.py FOLDER``. Every figure is computed from the numbers in its item, black on white,
about 800 x 500 px, with Latin labels only, so the Japanese and the English arm share it. The PNG carries no date or
version: the same matplotlib writes the same bytes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = ("-", "--", ":")


def new_axes(xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    """Return an 800 x 500 px figure and its only axes."""
    figure = Figure(figsize=(8, 5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, fontsize=13)
    axes.set_ylabel(ylabel, fontsize=13)
    axes.tick_params(labelsize=12)
    return figure, axes


def blank_axes() -> tuple[Figure, Axes]:
    """Return a figure for a line drawing: equal scales, no frame."""
    figure, axes = new_axes()
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure, axes


def mark(axes: Axes, x: float, y: float, label: str) -> None:
    """Put a black dot and a letter beside it."""
    axes.plot([x], [y], "ko", markersize=8)
    axes.annotate(label, (x, y), (9, 7), textcoords="offset points", fontsize=16, fontweight="bold")


def weak_base_ph(volume: np.ndarray, pka: float = 9.25) -> np.ndarray:
    """pH of 20 mL of a 0.10 mol/L weak base after `volume` mL of 0.10 mol/L strong acid (charge balance, bisection)."""
    ka, total = 10.0**-pka, 20.0 + volume
    base, acid = 2.0 / total, 0.1 * volume / total
    low, high = np.zeros_like(volume), np.full_like(volume, 14.0)
    for _ in range(60):
        middle = (low + high) / 2
        proton = 10.0**-middle
        positive = proton + base * proton / (proton + ka) > acid + 1e-14 / proton
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return np.asarray((low + high) / 2)


def titration() -> Figure:
    """Weak base titrated with strong acid; P half way, Q equivalence, R past it."""
    figure, axes = new_axes("Volume of 0.10 mol/L HCl (mL)", "pH")
    volume = np.linspace(0, 40, 801)
    axes.plot(volume, weak_base_ph(volume), "k-", linewidth=2)
    for label, point in (("P", 10.0), ("Q", 20.0), ("R", 30.0)):
        mark(axes, point, float(weak_base_ph(np.array([point]))[0]), label)
    axes.set(xlim=(0, 40), ylim=(0, 14), xticks=range(0, 41, 5), yticks=range(0, 15, 2))
    axes.grid(color="0.8", linewidth=0.6)
    return figure


def chromatogram() -> Figure:
    """Two Gaussian peaks with their retention times and widths at half height."""
    figure, axes = new_axes("Time (min)", "Detector response")
    time = np.linspace(4.5, 8.5, 2001)
    peaks = ((6.0, 0.30, 1.0, "1"), (7.1, 0.36, 0.85, "2"))
    axes.plot(time, sum(h * np.exp(-4 * np.log(2) * ((time - t) / w) ** 2) for t, w, h, _ in peaks), "k-", linewidth=2)
    for centre, width, height, name in peaks:
        label = f"Peak {name}\n$t_R$ = {centre:.1f} min\n$W_{{0.5h}}$ = {width:.2f} min"
        axes.annotate(label, (centre, height), (0, 8), textcoords="offset points", ha="center", fontsize=13)
        axes.plot([centre - width / 2, centre + width / 2], [height / 2] * 2, "k|-", markersize=14, linewidth=1)
        axes.plot([centre] * 2, [0, height], "k:", linewidth=1)
    axes.set(xlim=(4.5, 8.5), ylim=(0, 1.35), yticks=[])
    return figure


def van_t_hoff() -> Figure:
    """Five lines of ln K against 1/T, dashed beyond the measured range to 1/T = 0."""
    figure, axes = new_axes(r"1/T  ($10^{-3}$ K$^{-1}$)", "ln K")
    lines = {"a": (30.0, -8.36), "b": (6.0, 2.39), "c": (11.0, 0.0), "d": (-16.0, 6.25), "e": (-4.0, -2.78)}
    measured, beyond = np.array([3.0, 3.6]), np.array([0.0, 3.0])
    for name, (intercept, slope) in lines.items():
        axes.plot(measured, intercept + slope * measured, "k-", linewidth=2.5)
        axes.plot(beyond, intercept + slope * beyond, "k--", linewidth=1)
        axes.text(
            3.7, intercept + slope * 3.6, name, fontsize=16, fontweight="bold", va="center", backgroundcolor="white"
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlim=(0, 4), ylim=(-20, 35))
    return figure


def fischer() -> Figure:
    """Fischer projections of four aldopentoses; each word gives the side of OH on C2, C3 and C4."""
    figure, axes = blank_axes()
    for column, (name, sides) in enumerate({"A": "RRR", "B": "LRR", "C": "RLR", "D": "RLL"}.items()):
        x = 4.0 * column
        axes.plot([x, x], [0.35, 3.65], "k-", linewidth=1.8)
        for y, label in ((4.0, "CHO"), (0.0, r"CH$_2$OH")):
            axes.text(x, y, label, ha="center", va="center", fontsize=15)
        for y, side in zip((3, 2, 1), sides, strict=True):
            left, right = ("HO", "H") if side == "L" else ("H", "OH")
            axes.plot([x - 0.65, x + 0.65], [y, y], "k-", linewidth=1.8)
            axes.text(x - 0.75, y, left, ha="right", va="center", fontsize=15)
            axes.text(x + 0.75, y, right, ha="left", va="center", fontsize=15)
        axes.text(x, -1.1, name, ha="center", va="center", fontsize=18, fontweight="bold")
    axes.set(xlim=(-2, 14), ylim=(-1.8, 4.8))
    return figure


def ring_alcohol() -> Figure:
    """Skeletal formula of 2-isopropyl-5-methylcyclohexan-1-ol without wedges."""
    figure, axes = blank_axes()

    def step(start: np.ndarray, degrees: float) -> np.ndarray:
        return np.asarray(start + np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]))

    top, upper, carbinol, bottom, lower, left = (step(np.zeros(2), angle) for angle in (90, 30, -30, -90, -150, 150))
    branch = step(bottom, -90)
    bonds = [(top, upper), (upper, carbinol), (carbinol, bottom), (bottom, lower), (lower, left), (left, top)]
    bonds += [(top, step(top, 90)), (carbinol, step(carbinol, -30)), (bottom, branch)]
    bonds += [(branch, step(branch, -30)), (branch, step(branch, -150))]
    for start, end in bonds:
        axes.plot(*zip(start, end, strict=True), "k-", linewidth=2.2, solid_capstyle="round")
    axes.annotate("OH", tuple(step(carbinol, -30)), (4, -4), textcoords="offset points", fontsize=20, va="center")
    axes.set(xlim=(-3.5, 3.5), ylim=(-2.9, 2.3))
    return figure


def nmr() -> Figure:
    """90 MHz 1H NMR of methyl propanoate: first-order multiplets, J = 7.5 Hz."""
    figure, axes = new_axes(r"$\delta$ (ppm)", "")
    shift = np.linspace(-0.2, 5, 20001)
    spacing = 7.5 / 90
    signals = (
        (3.67, (1,), 3.0, "3H, singlet"),
        (2.32, (1, 3, 3, 1), 2.0, "2H, quartet"),
        (1.15, (1, 2, 1), 3.0, "3H, triplet"),
    )
    trace = 0.5 / (1 + (shift / 0.008) ** 2)
    for centre, pattern, protons, text in signals:
        lines = centre + spacing * (np.arange(len(pattern)) - (len(pattern) - 1) / 2)
        heights = protons * np.array(pattern) / sum(pattern)
        trace += sum(h / (1 + ((shift - x) / 0.008) ** 2) for x, h in zip(lines, heights, strict=True))
        label = f"{text}\n{centre:.2f} ppm"
        axes.annotate(label, (centre, max(heights)), (0, 8), textcoords="offset points", ha="center", fontsize=13)
    axes.plot(shift, trace, "k-", linewidth=1.2)
    axes.annotate("TMS", (0, 0.5), (0, 6), textcoords="offset points", ha="center", fontsize=13)
    axes.set(xlim=(5, -0.2), ylim=(-0.05, 3.6), yticks=[], xticks=range(6))
    return figure


def lineweaver_burk() -> Figure:
    """Double reciprocal plot: none (Vmax 2, Km 0.5), X raises Km to 1.0, Y lowers Vmax to 2/3."""
    figure, axes = new_axes("1/[S]  (L/mmol)", "1/v  (min/nmol)")
    lines = (("no inhibitor", 0.5, 0.25, -2.0), ("with X", 0.5, 0.5, -1.0), ("with Y", 1.5, 0.75, -2.0))
    for style, (name, intercept, slope, start) in zip(STYLES, lines, strict=True):
        x = np.array([start, 4.0])
        axes.plot(x, intercept + slope * x, color="black", linestyle=style, linewidth=2)
        axes.text(4.1, intercept + slope * 4, name, fontsize=14, va="center")
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlim=(-3, 6), ylim=(0, 5), xticks=range(-3, 7), yticks=np.arange(0, 5.5, 0.5))
    axes.grid(color="0.85", linewidth=0.6)
    return figure


def person(axes: Axes, x: float, y: float, shape: str, label: str, filled: bool = False) -> None:
    """Draw a pedigree symbol ("s" male, "o" female) with its label below."""
    axes.plot(
        [x],
        [y],
        shape,
        markersize=34,
        markeredgecolor="black",
        markerfacecolor="black" if filled else "white",
        zorder=3,
    )
    axes.text(x, y - 0.48, label, ha="center", va="top", fontsize=13)


def pedigree() -> Figure:
    """Three generations: II-1 affected, his sister II-3 expects the boy marked "?"."""
    figure, axes = blank_axes()
    for line in ([(2, 4), (4, 4)], [(3, 4), (3, 3)], [(1, 3), (5, 3)], [(5, 2), (7, 2)], [(6, 2), (6, 0.5)]):
        axes.plot(*zip(*line, strict=True), "k-", linewidth=1.8, zorder=1)
    for x in (1, 3, 5):
        axes.plot([x, x], [3, 2], "k-", linewidth=1.8, zorder=1)
    person(axes, 2, 4, "s", "I-1")
    person(axes, 4, 4, "o", "I-2")
    person(axes, 1, 2, "s", "II-1", filled=True)
    person(axes, 3, 2, "s", "II-2")
    person(axes, 5, 2, "o", "II-3")
    person(axes, 7, 2, "s", "II-4")
    person(axes, 6, 0.3, "s", "III-1")
    axes.text(6, 0.3, "?", ha="center", va="center", fontsize=18, zorder=4)
    for y, shape, filled, text in (
        (4.2, "s", False, "male"),
        (3.6, "o", False, "female"),
        (3.0, "s", True, "affected"),
    ):
        axes.plot([7.6], [y], "k" + shape, markersize=15, markerfacecolor="black" if filled else "white")
        axes.text(7.95, y, text, fontsize=13, va="center")
    axes.set(xlim=(0, 9.6), ylim=(-0.9, 4.7))
    return figure


def elisa() -> Figure:
    """Straight calibration line: absorbance 0.10 at zero, 0.010 per pg/mL."""
    figure, axes = new_axes("Concentration of standard (pg/mL)", "Absorbance at 450 nm")
    standard = np.arange(0, 101, 20)
    axes.plot(standard, 0.10 + 0.010 * standard, "ko-", linewidth=1.8, markersize=7)
    axes.set(xlim=(0, 110), ylim=(0, 1.2), xticks=range(0, 111, 10), yticks=np.arange(0, 1.3, 0.1))
    axes.grid(color="0.8", linewidth=0.6)
    return figure


def thermal_death() -> Figure:
    """Log-linear survivors at 60 C (one decade in 20 min) and 65 C (one decade in 2 min)."""
    figure, axes = new_axes("Heating time (min)", "Viable count (CFU/mL)")
    for style, label, decimal, times in (("o-", "60 °C", 20, range(0, 41, 10)), ("s--", "65 °C", 2, range(0, 11, 2))):
        minutes = np.array(times)
        axes.semilogy(minutes, 10.0 ** (6 - minutes / decimal), "k" + style, linewidth=1.8, markersize=7)
        axes.text(minutes[-1] + 0.6, 10.0 ** (6.15 - minutes[-1] / decimal), label, fontsize=15, ha="left")
    axes.set(xlim=(0, 46), ylim=(1, 3e6), xticks=range(0, 47, 2), yticks=[10.0**power for power in range(7)])
    axes.grid(color="0.8", linewidth=0.6)
    return figure


def dose_groups() -> Figure:
    """Mean plasma ALT with SD by dose group; the two highest doses differ from the control."""
    figure, axes = new_axes("Dose (mg/kg body weight/day)", "Plasma ALT (U/L), mean + SD")
    doses: Sequence[str] = ("0", "0.5", "2", "10", "50")
    means, deviations = (30, 31, 33, 58, 120), (5, 6, 6, 8, 14)
    axes.bar(doses, means, 0.55, yerr=([0] * 5, deviations), color="0.85", edgecolor="black", linewidth=1.4, capsize=7)
    for x in (3, 4):
        axes.text(x, means[x] + deviations[x] + 2, "*", ha="center", fontsize=22)
    axes.text(0.03, 0.93, "* p < 0.05 vs. 0 mg/kg/day", transform=axes.transAxes, fontsize=13)
    axes.set_ylim(0, 160)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "titration.png": titration,
    "chromatogram.png": chromatogram,
    "van_t_hoff.png": van_t_hoff,
    "fischer.png": fischer,
    "ring_alcohol.png": ring_alcohol,
    "nmr.png": nmr,
    "lineweaver_burk.png": lineweaver_burk,
    "pedigree.png": pedigree,
    "elisa.png": elisa,
    "thermal_death.png": thermal_death,
    "dose_groups.png": dose_groups,
}


def draw_all(folder: Path) -> list[Path]:
    """Write every figure into `folder` (created if absent) and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FIGURES]
    for path in paths:
        FIGURES[path.name]().savefig(path, metadata={"Software": None})
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python exams/practice/figures.py FOLDER")
    draw_all(Path(sys.argv[1]))
