"""A run's pictures as PNG: learning curves, confusion matrix and errors."""

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import write_figure
from digit_recognizer.results.evaluation import Evaluation

DPI = 150
_ERRORS = 40  # shown
_LONGEST_LEGEND = 15  # members

# colours that colour-blind people can tell apart; source: Okabe and Ito, 'Color universal design' (2002)
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


def write_figures(evaluation: Evaluation) -> None:
    """Writes the pictures into the folder report/ of the run, which has to exist.

    If no member has an epoch in its history.csv, there are no curves.
    """
    folder, histories = evaluation.run.report, evaluation.histories()
    matrix = np.array(evaluation.report["confusion_matrix"])
    write_figure(folder / "confusion_matrix.png", draw_confusions(matrix), dpi=DPI)
    write_figure(folder / "errors.png", draw_errors(evaluation), dpi=DPI)
    if histories:
        write_figure(folder / "curves.png", draw_curves(histories), dpi=DPI)


def draw_curves(histories: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """Returns loss, accuracy and learning rate over the epochs, in a colour for each member.

    Training is dashed and validation solid. `histories` has history.csv of each member, by name.
    """
    figure = matplotlib.figure.Figure(figsize=(14, 4.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for number, (name, history) in enumerate(histories.items()):
        style = {"color": _COLORS[number % len(_COLORS)], "marker": "." if len(history) < 3 else None}
        label = name[-40:].replace("$", r"\$")  # matplotlib takes a dollar for the start of a formula
        for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(history["epoch"], history[quantity], linestyle="--", alpha=0.5, **style)
            axes.plot(history["epoch"], history[f"val_{quantity}"], label=label, **style)
        rate.plot(history["epoch"], history["learning_rate"], alpha=0.8, **style)
    has_rate = any((history["learning_rate"] > 0).any() for history in histories.values())
    rate.set(yscale="log" if has_rate else "linear")
    for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning rate")):
        axes.set(xlabel="epoch", ylabel=name, title=name if axes is rate else f"{name} (dashed: training)")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    # the first epochs would flatten the others
    medians = pd.concat(list(histories.values()))[["val_loss", "val_accuracy"]].median()
    if np.isfinite(medians).all():
        loss.set_ylim(0, 4 * medians["val_loss"])
        accuracy.set_ylim(max(0, 1 - 5 * max(0.001, 1 - medians["val_accuracy"])), 1)
    if len(histories) <= _LONGEST_LEGEND:
        accuracy.legend(loc="lower right", fontsize="small", ncols=1 + len(histories) // 6)
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


def draw_errors(evaluation: Evaluation) -> matplotlib.figure.Figure:
    """Returns the out-of-fold errors with the highest probability as pictures."""
    rows, columns = evaluation.wrong[:_ERRORS], 10
    lines = max(1, -(-len(rows) // columns))
    figure = matplotlib.figure.Figure(figsize=(8.5, 0.5 + 1.05 * lines), layout="constrained")
    all_axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, row in zip(all_axes, rows, strict=False):
        axes.imshow(evaluation.dataset.train_images[row], cmap="gray_r")
        label, predicted = evaluation.dataset.train_labels[row], evaluation.oof[row].argmax()
        axes.set_title(f"{label} as {predicted}\n{evaluation.oof[row].max():.3f}", fontsize=7)
    figure.suptitle(f"the {len(rows)} of {len(evaluation.wrong)} errors with the highest probability", fontsize=9)
    return figure
