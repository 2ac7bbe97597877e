"""A run's report as one page, report/index.html, that opens from disk and needs no network."""

import shlex
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer import named_recipes
from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic
from digit_recognizer.recipes import settable_fields
from digit_recognizer.results import gallery
from digit_recognizer.results.charts import Chart, Series, bar_chart, line_chart
from digit_recognizer.results.evaluation import Evaluation
from digit_recognizer.results.templating import render

_LEGEND = 10  # members, at most, whose names stand below a chart
_LISTED = 25  # members, at most, in the table of who disagrees with whom
_SECTIONS = {
    "score": "Score",
    "folds": "Folds",
    "curves": "Learning curves",
    "confusions": "Confusions",
    "errors": "Errors",
    "mislabelled": "Likely mislabelled",
    "calibration": "Calibration",
    "ensemble": "Ensemble",
    "test": "Test rows",
    "recipe": "Recipe",
}


def write_page(evaluation: Evaluation, dataset: Dataset, refresh: int | None = None) -> None:
    """Writes report/index.html of a run.

    Args:
        evaluation: of the run.
        dataset: that it was trained on.
        refresh: seconds after which the page of a run that is still going reads itself again, or None.
    """
    page = render("page.html.j2", **_values(evaluation, dataset), refresh=refresh)
    evaluation.run.report.mkdir(exist_ok=True)
    with atomic(evaluation.run.report / "index.html") as file:
        file.write_text(page, encoding="utf-8")


def _values(evaluation: Evaluation, dataset: Dataset) -> dict[str, Any]:
    """What the template takes."""
    report, settings = evaluation.report, evaluation.settings
    values = {
        "report": report,
        "sections": [(id, name) for id, name in _SECTIONS.items() if evaluation.members or id in _WITHOUT],
        "folder": evaluation.run.folder.resolve().name,
        "facts": _facts(settings),
        "recipe": _recipe_lines(settings),
        "command": command(settings),
        "curves": learning_curves(evaluation.histories, _best_epochs(evaluation)),
        "progress": [
            (member.name, len(evaluation.histories.get(member.name, ())))
            for member in evaluation.unfinished
            if member.weight is None
        ],
        "digits": range(CLASSES),
    }
    if evaluation.members:
        wrong = evaluation.wrong
        suspicious = [each["row"] for each in report["likely_mislabelled"]]
        values |= {
            "shade": _shade(np.array(report["confusion_matrix"])),
            "errors": gallery.training_items(evaluation, dataset.train_images, wrong[: gallery.MOST_ERRORS]),
            "error_count": len(wrong),
            "mislabelled": gallery.training_items(evaluation, dataset.train_images, suspicious),
            "least_sure": gallery.test_items(evaluation, dataset.test_images),
            "reliability": _reliability(report["calibration"]),
            "ensemble_charts": _ensemble_charts(report),
            "pairs": _pairs(evaluation),
            "drift": _drift(report),
        }
    return values


_WITHOUT = ("score", "curves", "recipe")  # sections of a run that has no finished member yet


def _best_epochs(evaluation: Evaluation) -> dict[str, int]:
    return {each["member"]: each["best_epoch"] for each in evaluation.report.get("folds", [])}


def learning_curves(histories: dict[str, pd.DataFrame], best: dict[str, int]) -> list[Chart]:
    """Returns charts of the loss, the accuracy and the learning rate over the epochs.

    Args:
        histories: history.csv of each member.
        best: the epoch that each finished member predicts with.
    """
    if not histories:
        return []
    legend = len(histories) <= _LEGEND
    median = pd.concat([history["val_accuracy"] for history in histories.values()]).median()
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
            f"{quantity.capitalize()} (dashed: training, with augmentation; dot: the chosen epoch)",
            f"{quantity.capitalize()} in training and validation over the epochs of {len(histories)} members.",
            ("epoch", quantity),
            series,
            log=quantity == "loss",
            # the first epochs would flatten all that follows
            y_range=(max(0.0, 1 - 6 * (1 - median)), 1.0) if quantity == "accuracy" else None,
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


def _shade(matrix: np.ndarray) -> list[list[int]]:
    """How dark each mistake of a confusion matrix is drawn, 0 to 5; right predictions are not."""
    wrong = matrix - np.diag(np.diag(matrix))
    return np.ceil(5 * np.sqrt(wrong / max(1, wrong.max()))).astype(int).tolist()


def _reliability(calibration: dict[str, Any]) -> Chart:
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


def _ensemble_charts(report: dict[str, Any]) -> list[Chart]:
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


def _pairs(evaluation: Evaluation) -> list[list[Any]] | None:
    """Rows of the table of test rows to which two members give different labels; None for too many members."""
    names = [member.name for member in evaluation.members]
    if not 1 < len(names) <= _LISTED:
        return None
    counts = evaluation.report["disagreement"]["pairs"]
    return [[name, *line] for name, line in zip(names, counts, strict=True)]


def _drift(report: dict[str, Any]) -> Chart:
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


def _facts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, hardware and the like: what recipe.json has beside the recipe."""
    fields = {*settable_fields(), "name", "network", "citation", "reported_accuracy"}
    facts = []
    for name, value in settings.items():
        if isinstance(value, dict):
            facts += [(f"{name}: {key}", str(each)) for key, each in value.items()]
        elif name not in fields:
            facts.append((name, str(value)))
    return facts


def _default(name: Any) -> dict[str, Any]:
    """The fields of the named recipe; none where there is no such recipe."""
    try:
        return {key: _text(value) for key, value in vars(named_recipes.named(str(name))).items()}
    except UserError:
        return {}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _recipe_lines(settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each field of the recipe, its value, and its value in the named recipe where that is another."""
    default = _default(settings.get("name"))
    fields = ["name", "network", "citation", "reported_accuracy", *settable_fields()]
    lines = [(name, _text(settings[name])) for name in fields if name in settings]
    return [
        (name, value, default[name] if name in default and default[name] != value else "")
        for name, value in lines
    ]


def command(settings: dict[str, Any]) -> str | None:
    """Returns the command that trains the run again, None for a blend."""
    default = _default(settings.get("name"))
    if not default:
        return None
    words = ["python", "scripts/train.py", "--recipe", str(settings["name"])]
    for name in settable_fields():
        if name in settings and _text(settings[name]) != default[name]:
            words += ["--set", f"{name}={_text(settings[name])}"]
    if settings.get("threads"):
        words += ["--threads", str(settings["threads"])]
    return shlex.join(words)
