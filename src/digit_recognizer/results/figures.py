"""A run's pictures as PNG: learning curves, confusion matrix and errors."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import write_figure
from digit_recognizer.results.charts import PALETTE, Chart, learning_curves
from digit_recognizer.results.ensemble import Ensemble

DPI = 150
_ERRORS = 40  # shown


def write_figures(ensemble: Ensemble, report: dict[str, Any]) -> None:
    """Writes the pictures into the folder report/ of the run, which has to exist.

    If no member has an epoch in its history.csv, there are no curves. `report` is the contents of cv_report.json.
    """
    folder, curves = ensemble.run.report, learning_curves(ensemble.histories(), {})
    matrix = np.array(report["confusion_matrix"])
    write_figure(folder / "confusion_matrix.png", draw_confusions(matrix), dpi=DPI)
    write_figure(folder / "errors.png", draw_errors(ensemble), dpi=DPI)
    if curves:
        write_figure(folder / "curves.png", draw_curves(curves), dpi=DPI)


def draw_curves(charts: Sequence[Chart]) -> matplotlib.figure.Figure:
    """Returns charts of the page side by side."""
    figure = matplotlib.figure.Figure(figsize=(14, 4.2), layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts)), charts, strict=True):
        for line in chart.series:
            style = {"linestyle": "--", "alpha": 0.5} if line.dashed else {"label": line.name.replace("$", r"\$")}
            axes.plot(line.xs, line.ys, color=PALETTE[line.color], marker="." if len(line.xs) == 1 else None, **style)
        axes.set(title=chart.title, xlabel=chart.x.label, xlim=(chart.x.low, chart.x.high))
        axes.set(yscale="log" if chart.y.log else "linear", ylim=(chart.y.low, chart.y.high))
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if chart.legend:
        axes.legend(fontsize="small", ncols=1 + len(chart.legend) // 6)
    return figure


def draw_confusions(matrix: np.ndarray) -> matplotlib.figure.Figure:
    """Returns a confusion matrix int (10, 10), labels down, predictions across; the shade shows only errors."""
    figure = matplotlib.figure.Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    wrong = matrix - np.diag(np.diag(matrix))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, wrong.max()) * 1.4)
    for label, predicted in np.argwhere(matrix):
        weight = "bold" if label == predicted else None
        axes.text(predicted, label, matrix[label, predicted], ha="center", va="center", fontsize=9, weight=weight)
    title = f"out-of-fold predictions: {wrong.sum()} of {matrix.sum()} wrong"
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="predicted", ylabel="label", title=title)
    return figure


def draw_errors(ensemble: Ensemble) -> matplotlib.figure.Figure:
    """Returns the out-of-fold errors with the highest probability as pictures."""
    rows, columns = ensemble.wrong[:_ERRORS], 10
    lines = max(1, -(-len(rows) // columns))
    figure = matplotlib.figure.Figure(figsize=(8.5, 0.5 + 1.05 * lines), layout="constrained")
    all_axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, row in zip(all_axes, rows, strict=False):
        axes.imshow(ensemble.dataset.train_images[row], cmap="gray_r")
        label, predicted = ensemble.dataset.train_labels[row], ensemble.oof[row].argmax()
        axes.set_title(f"{label} as {predicted}\n{ensemble.oof[row].max():.3f}", fontsize=7)
    figure.suptitle(f"the {len(rows)} of {len(ensemble.wrong)} errors with the highest probability", fontsize=9)
    return figure
