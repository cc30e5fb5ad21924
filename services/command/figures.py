"""The pictures of `ratchet report` and `ratchet compare`: PNG files, and SVG within a page."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.run.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")


def curves(histories: Sequence[History]) -> "Figure":
    """Accuracy, ESS ratio and lag of all of these runs by step, one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, ess, lag = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for at, history in enumerate(histories):
        color = COLORS[at % len(COLORS)]
        accuracy.plot(*_columns(history.pass_rate()), color=color, linewidth=0.8, alpha=0.5)
        accuracy.plot(*_columns(history.accuracy()), "o-", color=color, label=history.name)
        steps = [row["step"] for row in history.steps]
        ess.plot(steps, [row["ess_ratio"] for row in history.steps], color=color, linewidth=0.8)
        lag.plot(steps, [row["mean_lag_steps"] for row in history.steps], color=color, linewidth=0.8)
    accuracy.set(ylim=(0, 1.02), ylabel="accuracy (points: held-out)")
    accuracy.legend(loc="lower right")
    ess.set(ylim=(0, 1.05), ylabel="ESS ratio")
    lag.set(xlabel="learner step", ylabel="mean lag, steps")
    for axes in (accuracy, ess, lag):
        axes.grid(alpha=0.3)
    return figure


def svg(figure: "Figure") -> str:
    """The figure as an <svg> element, its text as text."""
    import matplotlib as mpl

    drawn = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ratchet"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def png(figure: "Figure", path: Path) -> Path:
    """Write the figure as a PNG file; returns its path."""
    figure.savefig(path, dpi=110)
    return path


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
