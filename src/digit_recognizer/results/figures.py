"""A run's pictures: learning curves, learning rate, confusion matrix and errors, as PNG."""

from itertools import cycle

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import write_figure
from digit_recognizer.results.ensemble import member_path
from digit_recognizer.results.evaluation import Evaluation

DPI = 150
_SHOWN = 40  # errors

# those that colour-blind people tell apart; source: Okabe and Ito, 'Color universal design' (2002)
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


def write_figures(evaluation: Evaluation, dataset: Dataset) -> None:
    """Writes the pictures into the folder report/ of the run, which has to be there.

    A member without an epoch in its history.csv is left out of the curves; where none has one, there are none.
    """
    folder, matrix = evaluation.run.report, np.array(evaluation.report["confusion_matrix"])
    names = [member_path(evaluation.run, member) for member in evaluation.members]
    histories = {name: evaluation.histories[name] for name in names if name in evaluation.histories}
    figures = {
        "confusion_matrix.png": draw_confusions(matrix),
        "errors.png": draw_errors(evaluation, dataset.train_images),
    }
    if histories:
        figures |= {
            "curves.png": draw_curves(histories),
            "learning_rate.png": draw_learning_rate(histories),
        }
    for name, figure in figures.items():
        write_figure(folder / name, figure, dpi=DPI)


def _legend(name: str) -> str:
    """A member's name as matplotlib draws it as it is, its end where it is long."""
    return name[-40:].replace("$", r"\$")


def draw_curves(histories: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """Loss and accuracy over the epochs: a colour a fold, dashed in training, whole in validation."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            style = {"color": _COLORS[number % len(_COLORS)], "marker": "." if len(history) < 3 else None}
            axes.plot(history["epoch"], history[quantity], linestyle="--", alpha=0.5, **style)
            axes.plot(history["epoch"], history[f"val_{quantity}"], label=_legend(name), **style)
        axes.set(xlabel="epoch", ylabel=quantity, title=f"{quantity} (dashed: training)")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    # the first epochs would flatten all that follows
    losses = pd.concat([history["val_loss"] for history in histories.values()])
    figure.axes[0].set_ylim(0, 4 * losses.median())
    accuracies = pd.concat([history["val_accuracy"] for history in histories.values()])
    figure.axes[1].set_ylim(max(0, 1 - 5 * max(0.001, 1 - accuracies.median())), 1)
    if len(histories) <= 15:
        figure.axes[1].legend(loc="lower right", fontsize="small", ncols=1 + len(histories) // 6)
    return figure


def draw_learning_rate(histories: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """The learning rate of each fold over its epochs."""
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, history, color in zip(histories, histories.values(), cycle(_COLORS), strict=False):
        axes.step(
            history["epoch"],
            history["learning_rate"],
            where="mid",
            label=_legend(name),
            alpha=0.8,
            color=color,
        )
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log", title="learning rate")
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(histories) <= 15:
        axes.legend(loc="lower center", fontsize="small")
    return figure


def draw_confusions(matrix: np.ndarray) -> matplotlib.figure.Figure:
    """A confusion matrix int (10, 10): labels down, predictions across; shades show the mistakes alone."""
    figure = matplotlib.figure.Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    wrong = matrix - np.diag(np.diag(matrix))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, wrong.max()) * 1.4)
    for label, predicted in np.ndindex(matrix.shape):
        count = matrix[label, predicted]
        if count:
            weight = "bold" if label == predicted else None
            axes.text(predicted, label, count, ha="center", va="center", fontsize=9, weight=weight)
    axes.set(
        xticks=range(CLASSES),
        yticks=range(CLASSES),
        xlabel="predicted",
        ylabel="label",
        title=f"out-of-fold predictions: {wrong.sum()} of {matrix.sum()} wrong",
    )
    return figure


def draw_errors(evaluation: Evaluation, images: np.ndarray) -> matplotlib.figure.Figure:
    """The out-of-fold errors with the highest probability; `images` are uint8 (training rows, 28, 28)."""
    rows = evaluation.wrong
    shown, columns = rows[:_SHOWN], 10
    lines = max(1, -(-len(shown) // columns))
    figure = matplotlib.figure.Figure(figsize=(8.5, 0.5 + 1.05 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for place in axes:
        place.axis("off")
    for place, row in zip(axes, shown, strict=False):
        place.imshow(images[row], cmap="gray_r")
        label, predicted = evaluation.dataset.train_labels[row], evaluation.oof[row].argmax()
        place.set_title(f"{label} as {predicted}\n{evaluation.oof[row].max():.3f}", fontsize=7)
    figure.suptitle(f"the {len(shown)} of {len(rows)} errors with the highest probability", fontsize=9)
    return figure
