"""A run's report as one page, report/index.html, that opens from disk and needs no network."""

import dataclasses
import shlex
from typing import Any

import numpy as np

from digit_recognizer import named_recipes
from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import atomic
from digit_recognizer.recipes import AUGMENTATION, Recipe, format_value, settable_fields
from digit_recognizer.results import charts
from digit_recognizer.results.evaluation import Evaluation
from digit_recognizer.results.templating import Item, probabilities_text, render
from digit_recognizer.runs.plan import make_recipe

_MOST_PICTURES = 2000  # in a gallery: 2 MB


def write_page(evaluation: Evaluation, refresh: int | None = None) -> None:
    """Writes report/index.html of a run.

    With `refresh`, a browser reads the page again after that many seconds.
    """
    page = render("page.html.j2", **_values(evaluation), refresh=refresh)
    evaluation.run.report.mkdir(exist_ok=True)
    with atomic(evaluation.run.report / "index.html", several_writers=True) as file:
        file.write_text(page, encoding="utf-8")


def _values(evaluation: Evaluation) -> dict[str, Any]:
    report, settings, histories = evaluation.report, evaluation.run.require_settings(), evaluation.histories()
    best_epochs = {line["member"]: line["best_epoch"] for line in report.get("folds", [])}
    epochs = {name: f" (epoch {len(history)})" for name, history in histories.items()}
    fields = [option.name for option in dataclasses.fields(Recipe) if option.name in settings]
    values = {
        "report": report,
        "folder": evaluation.run.folder.resolve().name,
        "settings": settings,
        "recipe": {name: format_value(settings[name]) for name in fields},
        "command": command(settings, evaluation.dataset),
        "curves": charts.learning_curves(histories, best_epochs),
        "missing": [name + epochs.get(name, "") for name in report["missing"]],
        "augmented": any(settings.get(name) for name in AUGMENTATION),
    }
    return values | (_predictions(evaluation) if evaluation.members else {})


def _predictions(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the values of the sections that need a finished member."""
    report, wrong = evaluation.report, evaluation.wrong
    confident = [error["row"] for error in report["confident_errors"]] if report["likely_mislabelled"] else []
    matrix = np.array(report["confusion_matrix"])
    errors = matrix - np.diag(np.diag(matrix))
    return {
        "digits": range(CLASSES),
        "shade": np.ceil(5 * np.sqrt(errors / max(1, errors.max()))).astype(int).tolist(),  # 0 to 5
        "errors": _training_items(evaluation, wrong[:_MOST_PICTURES].tolist()),
        "error_count": len(wrong),
        "mislabelled": _training_items(evaluation, confident[:_MOST_PICTURES]),
        "least_sure": _test_items(evaluation),
        "reliability": charts.reliability(report["calibration"]),
    }


def _training_items(evaluation: Evaluation, rows: list[int]) -> list[Item]:
    """Returns an item for each of these wrong training rows."""
    items, dataset = [], evaluation.dataset
    for row in rows:
        label, probabilities = int(dataset.train_labels[row]), evaluation.oof[row]
        predicted, votes = int(probabilities.argmax()), evaluation.votes[:, row]
        lines = [probabilities_text(probabilities), dataset.row_name(row)]
        if (votes >= 0).sum() > 1:
            lines.append(f"{(votes == predicted).sum()} of {(votes >= 0).sum()} members")
        alt = f"Training {dataset.row_name(row)}: label {label}, predicted {predicted}"
        items.append(Item(dataset.train_images[row], alt, f"{label} as {predicted}", lines, f"{label}-{predicted}"))
    return items


def _test_items(evaluation: Evaluation) -> list[Item]:
    """Returns an item for each test row of which the ensemble is least sure."""
    items, members = [], len(evaluation.members)
    for line in evaluation.report["least_sure"]:
        row, id, predicted = line["row"], line["id"], line["predicted"]
        alt = f"Test row {id}: predicted {predicted}"
        lines = [probabilities_text(evaluation.test[row]), f"id {id}", f"{line['votes']} of {members} members"]
        items.append(Item(evaluation.dataset.test_images[row], alt, str(predicted), lines))
    return items


def command(settings: dict[str, Any], dataset: Dataset) -> str | None:
    """Returns the command that trains the run again, None for a blend.

    `settings` is the contents of recipe.json, `dataset` the run's data.
    """
    recipe_name = str(settings.get("name"))
    if recipe_name not in named_recipes.RECIPES:
        return None
    defaults = make_recipe(None, recipe_name, {}, dataset)
    words = ["python", "scripts/train.py", "--recipe", recipe_name]
    for name in settable_fields():
        if name in settings and format_value(settings[name]) != format_value(getattr(defaults, name)):
            words += ["--set", f"{name}={format_value(settings[name])}"]
    for option in ("threads", "add"):
        words += [f"--{option}", str(settings[option])] if settings.get(option) else []
    return shlex.join(words)
