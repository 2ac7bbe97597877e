"""A run's report as one page, report/index.html, that opens from disk and needs no network."""

import dataclasses
import shlex
from typing import Any

import numpy as np

from digit_recognizer import named_recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import atomic
from digit_recognizer.recipes import AUGMENTATION, Recipe, format_value, from_json, settable_fields
from digit_recognizer.results import epoch_choice, gallery, page_charts
from digit_recognizer.results.ensemble import member_path
from digit_recognizer.results.evaluation import Evaluation
from digit_recognizer.results.templating import render
from digit_recognizer.runs.plan import make_recipe

_MOST_ERRORS = 2000  # of a gallery: some 2 MB
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
_UNFINISHED = ("score", "curves", "recipe")  # sections of a run that has no finished member yet
_FIELDS = [option.name for option in dataclasses.fields(Recipe)]


def write_page(evaluation: Evaluation, dataset: Dataset, refresh: int | None = None) -> None:
    """Writes report/index.html of a run.

    As long as a member is not finished, the page reads itself again after `refresh` seconds, never for None.
    """
    refresh = None if evaluation.is_finished else refresh
    page = render("page.html.j2", **_values(evaluation, dataset), refresh=refresh)
    evaluation.run.report.mkdir(exist_ok=True)
    with atomic(evaluation.run.report / "index.html", several_writers=True) as file:
        file.write_text(page, encoding="utf-8")


def _values(evaluation: Evaluation, dataset: Dataset) -> dict[str, Any]:
    report, settings = evaluation.report, evaluation.settings
    values = {
        "report": report,
        "sections": [(id, name) for id, name in _SECTIONS.items() if evaluation.members or id in _UNFINISHED],
        "folder": evaluation.run.folder.resolve().name,
        "facts": _facts(settings),
        "recipe": _recipe_lines(settings),
        "command": command(settings),
        "own_folds": not _seed_makes_folds(evaluation),
        "curves": page_charts.learning_curves(
            evaluation.histories, {each["member"]: each["best_epoch"] for each in report.get("folds", [])}
        ),
        "progress": [
            (member.name, len(evaluation.histories.get(member.name, ()))) for member in evaluation.unfinished
        ],
        "augmented": any(settings.get(name) for name in AUGMENTATION),
        "digits": range(CLASSES),
    }
    if evaluation.members:
        wrong, images = evaluation.wrong, dataset.train_images
        suspicious = [each["row"] for each in report["likely_mislabelled"]]
        values |= {
            "shade": _shade(np.array(report["confusion_matrix"])),
            "errors": gallery.training_items(evaluation, images, wrong[:_MOST_ERRORS].tolist(), suspicious),
            "error_count": len(wrong),
            "mislabelled": gallery.training_items(evaluation, images, suspicious[:_MOST_ERRORS]),
            "least_sure": gallery.test_items(evaluation, dataset.test_images),
            "reliability": page_charts.reliability(report["calibration"]),
            "ensemble_charts": page_charts.ensemble_charts(report),
            "pairs": _pairs(evaluation),
            "drift": page_charts.drift(report),
            "epoch_choice": epoch_choice.describe(report["epoch_choice"]),
        }
    return values


def _shade(matrix: np.ndarray) -> list[list[int]]:
    """How dark each mistake of a confusion matrix is drawn, 0 to 5; right predictions are not."""
    wrong = matrix - np.diag(np.diag(matrix))
    return np.ceil(5 * np.sqrt(wrong / max(1, wrong.max()))).astype(int).tolist()


def _pairs(evaluation: Evaluation) -> list[list[Any]] | None:
    """Rows of the table of test rows to which two members give different labels; None for too many members."""
    names = [member_path(evaluation.run, member) for member in evaluation.members]
    if not 1 < len(names) <= _LISTED:
        return None
    counts = evaluation.report["disagreement"]["pairs"]
    return [[name, *line] for name, line in zip(names, counts, strict=True)]


def _facts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, hardware and the like: what recipe.json has beside the recipe."""
    facts = []
    for name, value in settings.items():
        if isinstance(value, dict):
            facts += [(f"{name}: {key}", str(each)) for key, each in value.items()]
        elif name not in _FIELDS:
            facts.append((name, str(value)))
    return facts


def _named_fields(name: Any) -> dict[str, str]:
    """The fields of the recipe of that name as text; none where there is no such recipe."""
    recipe = named_recipes.RECIPES.get(str(name))
    return {key: format_value(value) for key, value in vars(recipe).items()} if recipe else {}


def _recipe_lines(settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each field of the recipe, its value, and its value in the named recipe where that is another."""
    named = _named_fields(settings.get("name"))
    fields = {name: format_value(settings[name]) for name in _FIELDS if name in settings}
    return [
        (name, value, named[name] if named.get(name, value) != value else "")
        for name, value in fields.items()
    ]


def _seed_makes_folds(evaluation: Evaluation) -> bool:
    """Whether the recipe's seed makes the folds of the run; also True of a blend, which has none."""
    if not named_recipes.RECIPES.get(str(evaluation.settings.get("name"))):
        return True
    labels = evaluation.dataset.train_labels
    recipe = from_json(evaluation.settings)
    return folds.are_of(folds.from_csv(evaluation.run.folds_csv, labels), labels, recipe)


def command(settings: dict[str, Any]) -> str | None:
    """Returns the command that trains the run again, None for a blend."""
    recipe_name = str(settings.get("name"))
    if recipe_name not in named_recipes.RECIPES:
        return None
    untouched = make_recipe(None, recipe_name, {}, settings.get("data") == "sample")  # what no option changes
    words = ["python", "scripts/train.py", "--recipe", recipe_name]
    for name in settable_fields():
        if name in settings and format_value(settings[name]) != format_value(getattr(untouched, name)):
            words += ["--set", f"{name}={format_value(settings[name])}"]
    if settings.get("threads"):
        words += ["--threads", str(settings["threads"])]
    return shlex.join(words)
