"""A run's report as one page, report/index.html, that opens from disk and needs no network."""

import shlex
from typing import Any

import numpy as np

from digit_recognizer import named_recipes
from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic
from digit_recognizer.recipes import settable_fields
from digit_recognizer.results import gallery, page_charts
from digit_recognizer.results.evaluation import Evaluation
from digit_recognizer.results.templating import render

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
        refresh: seconds after which the page reads itself again, as long as a member is not finished; or None.
    """
    refresh = None if evaluation.is_finished else refresh
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
        "curves": page_charts.learning_curves(evaluation.histories, _best_epochs(evaluation)),
        "progress": [
            (member.name, len(evaluation.histories.get(member.name, ())))
            for member in evaluation.unfinished
            if member.weight is None
        ],
        "augmented": any(settings.get(name) for name in ("rotation", "zoom", "shift", "shear", "elastic")),
        "digits": range(CLASSES),
    }
    if evaluation.members:
        wrong = evaluation.wrong
        suspicious = [each["row"] for each in report["likely_mislabelled"]]
        values |= {
            "shade": _shade(np.array(report["confusion_matrix"])),
            "errors": gallery.training_items(
                evaluation, dataset.train_images, wrong[: gallery.MOST_ERRORS].tolist(), suspicious
            ),
            "error_count": len(wrong),
            "mislabelled": gallery.training_items(
                evaluation, dataset.train_images, suspicious[: gallery.MOST_ERRORS]
            ),
            "least_sure": gallery.test_items(evaluation, dataset.test_images),
            "reliability": page_charts.reliability(report["calibration"]),
            "ensemble_charts": page_charts.ensemble_charts(report),
            "pairs": _pairs(evaluation),
            "drift": page_charts.drift(report),
        }
    return values


_WITHOUT = ("score", "curves", "recipe")  # sections of a run that has no finished member yet


def _best_epochs(evaluation: Evaluation) -> dict[str, int]:
    return {each["member"]: each["best_epoch"] for each in evaluation.report.get("folds", [])}


def _shade(matrix: np.ndarray) -> list[list[int]]:
    """How dark each mistake of a confusion matrix is drawn, 0 to 5; right predictions are not."""
    wrong = matrix - np.diag(np.diag(matrix))
    return np.ceil(5 * np.sqrt(wrong / max(1, wrong.max()))).astype(int).tolist()


def _pairs(evaluation: Evaluation) -> list[list[Any]] | None:
    """Rows of the table of test rows to which two members give different labels; None for too many members."""
    names = [member.name for member in evaluation.members]
    if not 1 < len(names) <= _LISTED:
        return None
    counts = evaluation.report["disagreement"]["pairs"]
    return [[name, *line] for name, line in zip(names, counts, strict=True)]


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
