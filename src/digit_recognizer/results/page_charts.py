"""The charts of a run's page."""

from typing import Any

import pandas as pd

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.results.charts import Chart, Series, bar_chart, line_chart

_LEGEND = 10  # lines, at most, whose names stand below a chart


def learning_curves(histories: dict[str, pd.DataFrame], best: dict[str, int]) -> list[Chart]:
    """Returns charts of the loss, the accuracy and the learning rate over the epochs.

    `histories` has history.csv of each member, `best` the epoch that each finished member predicts with.
    """
    if not histories:
        return []
    over = f"over the epochs of {len(histories)} members."
    accuracies = pd.concat([history[["accuracy", "val_accuracy"]] for history in histories.values()])
    # the first epochs would flatten all that follows
    lowest = max(1 - 6 * (1 - accuracies["val_accuracy"].median()), accuracies.min().min() - 0.002, 0.0)
    lowest = lowest if lowest < 1 else 0.0
    words = " in training and validation " + over
    loss, accuracy = (
        learning_curve(
            quantity, quantity.capitalize() + words, histories, lowest, best, len(histories) <= _LEGEND
        )
        for quantity in ("loss", "accuracy")
    )
    rates = [
        Series(name, history["epoch"].tolist(), history["learning_rate"].tolist(), number)
        for number, (name, history) in enumerate(histories.items())
    ]
    labels, words = ("epoch", "learning rate"), f"Learning rate {over}"
    rate = line_chart("curve-rate", "Learning rate", words, labels, rates, log=True, legend=False)
    return [loss, accuracy, rate]


def learning_curve(
    quantity: str,
    description: str,
    histories: dict[str, pd.DataFrame],
    lowest: float,
    best: dict[str, int],
    legend: bool = True,
) -> Chart:
    """Returns the chart of the "loss" or "accuracy" in training, dashed, and in validation over the epochs.

    `lowest` is where the axis of the accuracy begins, which ends at 1. The epochs in `best` are marked.
    """
    series = []
    for number, (name, history) in enumerate(histories.items()):
        epochs, marked = history["epoch"].tolist(), [best[name]] if name in best else []
        series += [
            Series(f"{name} training", epochs, history[quantity].tolist(), number, dashed=True),
            Series(name, epochs, history[f"val_{quantity}"].tolist(), number, marked=marked),
        ]
    chart = line_chart(
        f"curve-{quantity}",
        quantity.capitalize(),
        description,
        ("epoch", quantity),
        series,
        log=quantity == "loss",
        y_range=(lowest, 1.0) if quantity == "accuracy" else None,
        legend=legend,
    )
    chart.legend[:] = chart.legend[1::2]  # a line and its dashed one have one colour
    return chart


def reliability(calibration: dict[str, Any]) -> Chart:
    """Returns the chart of accuracy against confidence; `calibration` is that of cv_report.json."""
    bins = pd.DataFrame(calibration["bins"]).to_dict("list")
    ends = {name: bins[name] for name in ("low", "high")}
    series = [
        Series("perfect", [0, 1], [0, 1], 6, dashed=True),
        Series("out of fold", bins["confidence"], bins["accuracy"], 0, line=False, **ends),
    ]
    return line_chart(
        "reliability",
        "Reliability (bars: 95 % interval)",
        f"Accuracy against confidence, in {len(calibration['bins'])} bins; expected calibration error {calibration['ece']:.5f}.",
        ("mean probability of the predicted label", "accuracy"),
        series,
        x_range=(0, 1),
        y_range=(0, 1),
        integer=False,
    )


def ensemble_charts(report: dict[str, Any]) -> list[Chart]:
    """Returns charts of what the ensemble gains and how its members disagree, of cv_report.json's contents."""
    found = []
    if report["gain"]:
        gain = pd.DataFrame(report["gain"])
        ends = {"low": gain["least_errors"].tolist(), "high": gain["most_errors"].tolist()}
        found.append(
            line_chart(
                "gain",
                "Out-of-fold errors (bars: least and most of ten orders)",
                "Out-of-fold errors of the mean of one, two and more members for each row.",
                ("members that predict a row", "errors"),
                [Series("errors", gain["splits"].tolist(), gain["errors"].tolist(), **ends)],
                legend=False,
            )
        )
    if report["test_gain"]:
        gain = pd.DataFrame(report["test_gain"])
        counts = gain["members"].tolist()
        series = [Series("other label than the whole ensemble", counts, gain["changed"].tolist())]
        if gain["errors"].notna().all():  # the test rows have labels
            series.append(Series("errors", counts, gain["errors"].tolist(), 1))
        found.append(
            line_chart(
                "test-gain",
                "Test rows, as members are added (mean of ten orders)",
                "Test rows with another label than the whole ensemble gives, by the number of members.",
                ("members", "test rows"),
                series,
            )
        )
    dissenters = report["disagreement"]["dissenters"]
    last = max((i for i, rows in enumerate(dissenters) if rows), default=0)
    if len(dissenters) > 2:
        found.append(
            bar_chart(
                "dissenters",
                "Members that disagree with the ensemble",
                "Test rows by the number of members that give another label than the ensemble.",
                ("members", "test rows"),
                [str(each) for each in range(last + 1)],
                [("rows", dissenters[: last + 1])],
                log=True,
            )
        )
    return found


def drift(report: dict[str, Any]) -> Chart:
    """Returns the chart of the labels in training and in prediction, of cv_report.json's contents."""
    names = {"train": "labels of the training rows", "predicted": "predictions for the test rows"}
    counts = {name: report["labels"][key] for key, name in names.items()}
    shares = [(name, [100 * count / max(1, sum(own)) for count in own]) for name, own in counts.items()]
    return bar_chart(
        "drift",
        "Labels in training and in prediction",
        "Share of each digit among the training labels and among the predicted test labels.",
        ("digit", "% of the rows"),
        [str(digit) for digit in range(CLASSES)],
        shares,
    )
