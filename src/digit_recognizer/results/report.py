"""What a run came to: cv_report.json, cv_report.csv, a table for the terminal, and pictures."""

from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from digit_recognizer.data.digits import CLASSES, Dataset, Labels
from digit_recognizer.data.plan import check_data
from digit_recognizer.data.scores import scores
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, read_json, write_figure, write_json
from digit_recognizer.results.ensemble import covered_rows, ensemble_test_probabilities, load_oof
from digit_recognizer.run import Run

_COLUMNS = ("accuracy", "log_loss", "errors", "rows", "best_epoch", "epochs", "seconds")
_WORST = 10  # confusions


def write_report(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Writes the report of what `ensemble.write` left in `run`, and returns cv_report.json's contents.

    Raises UserError where there is no ensemble yet, or one of other data.
    """
    if not run.ensemble_json.exists():
        raise UserError(f"{run.folder} has no ensemble yet: run scripts/ensemble.py first")
    check_data(run, dataset.labels)
    ensemble = read_json(run.ensemble_json)
    members = {member["member"]: run.folder / member["member"] for member in ensemble["members"]}
    metrics = pd.DataFrame({name: read_json(folder / "metrics.json") for name, folder in members.items()}).T
    oof = load_oof(run, len(dataset.labels.train))
    covered = covered_rows(oof)
    labels, probabilities = dataset.labels.train[covered], oof[covered]
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(CLASSES))

    report = {
        "folds": [
            {"member": name} | {column: values[column] for column in _COLUMNS}
            for name, values in metrics.iterrows()
        ],
        "missing": ensemble["missing"],
        "overall": scores(labels, probabilities) | {"rows_of_train_csv": len(covered)},
        "mean": {column: float(metrics[column].mean()) for column in _COLUMNS},
        # of a sample; one fold has none
        "standard_deviation": {
            column: float(metrics[column].astype(float).std()) if len(metrics) > 1 else None
            for column in _COLUMNS
        },
        "seconds": float(metrics["seconds"].sum()),
        "worst_confusions": _worst_confusions(matrix),
        "test": _test_scores(run, dataset.labels),
        "test_rows": len(dataset.test_images),
        "test_rows_also_in_train_csv": dataset.overlap(),
        "sample": dataset.labels.is_sample,
    }
    write_json(run.cv_report_json, report)
    with atomic(run.cv_report_csv) as file:
        _table(report).to_csv(file)
    run.report.mkdir(exist_ok=True)
    histories = {name: pd.read_csv(folder / "history.csv") for name, folder in members.items()}
    write_figure(run.report / "curves.png", draw_curves(histories))
    write_figure(run.report / "learning_rate.png", draw_learning_rate(histories))
    write_figure(run.report / "confusion_matrix.png", draw_confusions(matrix))
    return report


def _test_scores(run: Run, labels: Labels) -> dict[str, Any] | None:
    """The ensemble's scores on the test rows; None where they have no labels, as the competition's."""
    if labels.test is None:
        return None
    return scores(labels.test, ensemble_test_probabilities(run, len(labels.test)))


def _worst_confusions(matrix: np.ndarray) -> list[dict[str, int]]:
    """The most frequent mistakes, at most ten, of a confusion matrix int (10, 10)."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {"label": int(label), "predicted": int(predicted), "rows": int(wrong[label, predicted])}
        for label, predicted in pairs
        if wrong[label, predicted]
    ]


def _table(report: dict[str, Any]) -> pd.DataFrame:
    """A line a fold, then overall (out-of-fold), mean, standard deviation, and the test rows with labels."""
    rows = {fold["member"]: {column: fold[column] for column in _COLUMNS} for fold in report["folds"]}
    overall = {column: report["overall"].get(column) for column in _COLUMNS} | {"seconds": report["seconds"]}
    rows |= {
        "out-of-fold": overall,
        "mean": report["mean"],
        "standard deviation": report["standard_deviation"],
    }
    if report["test"]:
        rows["test"] = report["test"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=_COLUMNS).astype(float)
    return table.rename_axis("fold")


def format_report(report: dict[str, Any]) -> str:
    """The report as lines for a terminal."""
    form = {
        column: "{:.5f}".format if column in ("accuracy", "log_loss") else "{:.0f}".format
        for column in _COLUMNS
    }
    table = _table(report)
    # a deviation of whole numbers is none itself
    table = table.apply(lambda column: column.map(form[column.name], na_action="ignore")).astype(object)
    for column in set(_COLUMNS) - {"accuracy", "log_loss"}:
        for line in ("mean", "standard deviation"):
            value = (report["mean"] if line == "mean" else report["standard_deviation"])[column]
            table.loc[line, column] = None if value is None else f"{value:.1f}"
    overall = report["overall"]
    lines = [
        table.fillna("").to_string(),
        "",
        f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of {overall['rows']} rows wrong "
        f"({overall['rows_of_train_csv']} training rows)",
        "most frequent mistakes: "
        + (
            ", ".join(f"{x['label']} as {x['predicted']} ({x['rows']})" for x in report["worst_confusions"])
            or "none"
        ),
        f"{report['test_rows_also_in_train_csv']} of {report['test_rows']} test rows are training rows too",
    ]
    if report["test"]:
        test = report["test"]
        lines.append(
            f"test accuracy {test['accuracy']:.5f}, log loss {test['log_loss']:.5f}: "
            f"{test['errors']} of {test['rows']} rows wrong"
        )
    if report["missing"]:
        lines.append(f"not finished, and not in this: {', '.join(report['missing'])}")
    return "\n".join(lines)


def draw_curves(histories: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """Loss and accuracy over the epochs: a colour a fold, dashed in training, whole in validation."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            style = {"color": f"C{number % 10}", "marker": "." if len(history) < 3 else None}
            axes.plot(history["epoch"], history[quantity], linestyle="--", alpha=0.5, **style)
            axes.plot(history["epoch"], history[f"val_{quantity}"], label=name, **style)
        axes.set(xlabel="epoch", ylabel=quantity, title=f"{quantity} (dashed: training, with augmentation)")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    # the first epochs would flatten all that follows
    losses = pd.concat([history["val_loss"] for history in histories.values()])
    figure.axes[0].set_ylim(0, 4 * losses.median())
    accuracies = pd.concat([history["val_accuracy"] for history in histories.values()])
    figure.axes[1].set_ylim(max(0, 1 - 5 * (1 - accuracies.median())), 1)
    if len(histories) <= 15:
        figure.axes[1].legend(fontsize="small", ncols=1 + len(histories) // 6)
    return figure


def draw_learning_rate(histories: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """The learning rate of each fold over its epochs."""
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, history in histories.items():
        axes.step(history["epoch"], history["learning_rate"], where="mid", label=name, alpha=0.8)
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log", title="learning rate")
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(histories) <= 15:
        axes.legend(fontsize="small")
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
