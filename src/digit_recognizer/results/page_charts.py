"""The charts of a run's page."""

from typing import Any

import pandas as pd

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.results.charts import Chart, Series, bar_chart, line_chart

_LEGEND = 10  # lines, at most, whose names stand below a chart


def learning_curves(histories: dict[str, pd.DataFrame], best: dict[str, int]) -> list[Chart]:
    """Returns charts of the loss, the accuracy and the learning rate over the epochs.

    Args:
        histories: history.csv of each member.
        best: the epoch that each finished member predicts with.
    """
    if not histories:
        return []
    legend = len(histories) <= _LEGEND
    accuracies = pd.concat([history[["accuracy", "val_accuracy"]] for history in histories.values()])
    # the first epochs would flatten all that follows
    lowest = max(1 - 6 * (1 - accuracies["val_accuracy"].median()), accuracies.min().min() - 0.002, 0.0)
    found = []
    for quantity in ("loss", "accuracy"):
        series = []
        for number, (name, history) in enumerate(histories.items()):
            epochs = history["epoch"].tolist()
            series += [
                Series(f"{name} training", epochs, history[quantity].tolist(), number, dashed=True),
                Series(
                    name, epochs, history[f"val_{quantity}"].tolist(), number, marked=[best.get(name, -1)]
                ),
            ]
        chart = line_chart(
            f"curve-{quantity}",
            quantity.capitalize(),
            f"{quantity.capitalize()} in training and validation over the epochs of {len(histories)} members.",
            ("epoch", quantity),
            series,
            log=quantity == "loss",
            y_range=(lowest if lowest < 1 else 0.0, 1.0) if quantity == "accuracy" else None,
            legend=legend,
        )
        chart.legend[:] = chart.legend[1::2]
        found.append(chart)
    rates = [
        Series(name, history["epoch"].tolist(), history["learning_rate"].tolist(), number)
        for number, (name, history) in enumerate(histories.items())
    ]
    description = f"Learning rate over the epochs of {len(histories)} members."
    rate = line_chart(
        "curve-rate", "Learning rate", description, ("epoch", "learning rate"), rates, log=True, legend=False
    )
    return [*found, rate]


def reliability(calibration: dict[str, Any]) -> Chart:
    """Returns the chart of accuracy against confidence; `calibration` is that of cv_report.json."""
    bins = calibration["bins"]
    ends = {"low": [each["low"] for each in bins], "high": [each["high"] for each in bins]}
    confidence, accuracy = ([each[name] for each in bins] for name in ("confidence", "accuracy"))
    series = [
        Series("perfect", [0, 1], [0, 1], 6, dashed=True),
        Series("out of fold", confidence, accuracy, 0, line=False, **ends),
    ]
    return line_chart(
        "reliability",
        "Reliability (bars: 95 % interval)",
        f"Accuracy against confidence, in {len(bins)} bins; expected calibration error {calibration['ece']:.5f}.",
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
        lines = report["gain"]
        counts = [each["splits"] for each in lines]
        ends = {
            "low": [each["least_errors"] for each in lines],
            "high": [each["most_errors"] for each in lines],
        }
        found.append(
            line_chart(
                "gain",
                "Out-of-fold errors (bars: least and most of ten orders)",
                "Out-of-fold errors of the mean of one, two and more members for each row.",
                ("members that predict a row", "errors"),
                [Series("errors", counts, [each["errors"] for each in lines], **ends)],
                legend=False,
            )
        )
    if report["test_gain"]:
        lines = report["test_gain"]
        counts = [each["members"] for each in lines]
        series = [Series("other label than the whole ensemble", counts, [each["changed"] for each in lines])]
        if lines[0]["errors"] is not None:
            series.append(Series("errors", counts, [each["errors"] for each in lines], 1))
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
    labels = report["labels"]
    shares = [
        (name, [100 * count / max(1, sum(labels[key])) for count in labels[key]])
        for name, key in (
            ("labels of the training rows", "train"),
            ("predictions for the test rows", "predicted"),
        )
    ]
    return bar_chart(
        "drift",
        "Labels in training and in prediction",
        "Share of each digit among the training labels and among the predicted test labels.",
        ("digit", "% of the rows"),
        [str(digit) for digit in range(CLASSES)],
        shares,
    )
