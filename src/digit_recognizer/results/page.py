"""The pages of a run and of a comparison: report/index.html, one file that needs nothing but itself."""

import base64
import dataclasses
import functools
import hashlib
import io
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from digit_recognizer import named_recipes
from digit_recognizer.data.digits import CLASSES, SIDE, Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.recipes import AUGMENTATION, Recipe, format_value, settable_fields
from digit_recognizer.results import charts
from digit_recognizer.results.compare import Comparison, compare_runs
from digit_recognizer.results.ensemble import Ensemble
from digit_recognizer.results.out_of_fold import covered_rows, wrong_rows
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import make_recipe

_MOST_PICTURES = 2000  # in a gallery: 2 MB
_MOST_ROWS = 100  # of a comparison, for each pair and order
_MOST_PAIRS = 10  # whose rows are shown
_MOST_CLASSES = 3  # whose probabilities a caption has


def write_page(ensemble: Ensemble, report: dict[str, Any], refresh: int | None = None) -> None:
    """Writes the page of a run; `report` is the contents of cv_report.json.

    With `refresh`, a browser reads the page again after that many seconds.
    """
    settings, histories = ensemble.run.require_settings(), ensemble.histories()
    best_epochs = {line["member"]: line["best_epoch"] for line in report.get("folds", [])}
    epochs = {name: f" (epoch {len(history)})" for name, history in histories.items()}
    fields = [option.name for option in dataclasses.fields(Recipe) if option.name in settings]
    values = {
        "report": report,
        "folder": ensemble.run.folder.resolve().name,
        "settings": settings,
        "recipe": {name: format_value(settings[name]) for name in fields},
        "command": command(settings),
        "curves": charts.learning_curves(histories, best_epochs),
        "missing": [name + epochs.get(name, "") for name in report["missing"]],
        "augmented": any(settings.get(name) for name in AUGMENTATION),
        "refresh": refresh,
    }
    _write(ensemble.run, "page.html.j2", values | (_predictions(ensemble, report) if ensemble.members else {}))


def write_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, refresh: int | None = None) -> Comparison:
    """Compares runs, and writes the page, runs.csv and pairs.csv into the folder report/ of `home`.

    Until all runs are finished, a browser reads the page again after `refresh` seconds, or never if that is None.

    Raises UserError as `compare_runs` does, for fewer than two runs, and if `home` holds a run, whose report this
    would replace.
    """
    if len(runs) < 2:
        raise UserError("a comparison takes two runs or more")
    if home.recipe_json.exists():
        raise UserError(f"{home.folder} holds a run: give the comparison an --output of its own")
    comparison = compare_runs(runs, dataset)
    pairs, ensembles = comparison.pairs, comparison.ensembles
    most = pairs.loc[pairs["rows"] > 0, ["low", "high"]].abs().to_numpy().max(initial=0) or 1.0
    histories = {
        name: charts.mean_history(member.history() for member in ensemble.members)
        for name, ensemble in ensembles.items()
    }
    values = {
        "names": list(ensembles),
        "runs": comparison.runs.reset_index().to_dict("records"),
        "pairs": pairs.to_dict("records"),
        "position": charts.Axis("difference", -most, most, 5, 195),  # in a drawing of width 200
        "curves": charts.learning_curves(histories, {}),
        "rows": _rows(comparison, dataset),
        "shown": _MOST_ROWS,
        "refresh": None if comparison.is_finished else refresh,
    }
    texts = {"runs.csv": comparison.runs.to_csv(), "pairs.csv": pairs.to_csv(index=False)}
    _write(home, "comparison.html.j2", values, texts)
    return comparison


def _write(home: Run, template: str, values: dict[str, Any], texts: dict[str, str] | None = None) -> None:
    """Writes the page that a template of templates/ makes of `values`, whose texts are escaped, and other files.

    The Content-Security-Policy of the page names the hashes of its style and its script: nothing else is loaded or
    run, whatever the values hold.
    """
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    environment.globals["charts"] = charts
    style, script = _source("page.css"), _source("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "style": Markup(style), "script": Markup(script)}
    page = environment.get_template(template).render(values | parts)
    home.report.mkdir(parents=True, exist_ok=True)
    for name, text in ((texts or {}) | {"index.html": page}).items():
        with atomic(home.report / name, several_writers=True) as file:
            file.write_text(text, encoding="utf-8", newline="")


def _source(name: str) -> str:
    """Returns the text of a file of templates/, even if the package is in an archive."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Returns a hash in the form of a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _predictions(ensemble: Ensemble, report: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the sections that need a finished member."""
    confident = [error["row"] for error in report["confident_errors"]] if report["likely_mislabelled"] else []
    matrix = np.array(report["confusion_matrix"])
    errors = matrix - np.diag(np.diag(matrix))
    return {
        "digits": range(CLASSES),
        "shade": np.ceil(5 * np.sqrt(errors / max(1, errors.max()))).astype(int).tolist(),  # 0 to 5
        "errors": _wrong_digits(ensemble, ensemble.wrong[:_MOST_PICTURES].tolist()),
        "error_count": len(ensemble.wrong),
        "mislabelled": _wrong_digits(ensemble, confident[:_MOST_PICTURES]),
        "least_sure": [_least_sure_digit(ensemble, line) for line in report["least_sure"]],
        "reliability": charts.reliability(report["calibration"]),
    }


def _digit(pixels: np.ndarray, alt: str, title: str, lines: Sequence[str], pair: str = "") -> dict[str, Any]:
    """Returns a picture of a gallery, uint8 (28, 28), with its caption; `pair` is "4-9" for label 4, predicted 9."""
    return {"image": _data_uri(pixels.tobytes()), "alt": alt, "title": title, "lines": lines, "pair": pair}


def _wrong_digits(ensemble: Ensemble, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Returns a picture for each of these wrong training rows."""
    digits, dataset = [], ensemble.dataset
    for row in rows:
        label, predicted, votes = (
            int(dataset.train_labels[row]),
            int(ensemble.oof[row].argmax()),
            ensemble.votes[:, row],
        )
        lines = [_probabilities(ensemble.oof[row]), f"row {row}"]
        if (votes >= 0).sum() > 1:
            lines.append(f"{(votes == predicted).sum()} of {(votes >= 0).sum()} members")
        alt = f"Training row {row}: label {label}, predicted {predicted}"
        digits.append(_digit(dataset.train_images[row], alt, f"{label} as {predicted}", lines, f"{label}-{predicted}"))
    return digits


def _least_sure_digit(ensemble: Ensemble, line: dict[str, Any]) -> dict[str, Any]:
    """Returns the picture of a test row; `line` is one of the report's."""
    row, id, predicted = line["row"], line["id"], line["predicted"]
    lines = [_probabilities(ensemble.test[row]), f"id {id}", f"{line['votes']} of {len(ensemble.members)} members"]
    return _digit(ensemble.dataset.test_images[row], f"Test row {id}: predicted {predicted}", str(predicted), lines)


def _rows(comparison: Comparison, dataset: Dataset) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """Returns, for each pair and order, a title, the number of rows and a picture of the most confident of them."""
    labels, oof = dataset.train_labels, {name: ensemble.oof for name, ensemble in comparison.ensembles.items()}
    lists = []
    for pair in comparison.pairs.head(_MOST_PAIRS).itertuples():
        for wrong, right in ((pair.first, pair.second), (pair.second, pair.first)):
            is_right = covered_rows(oof[right]) & ~wrong_rows(oof[right], labels)
            rows = [row for row in comparison.ensembles[wrong].wrong.tolist() if is_right[row]]
            digits = []
            for row in rows[:_MOST_ROWS]:
                title = f"label {labels[row]}"
                lines = [f"{name}: {_probabilities(oof[name][row])}" for name in (wrong, right)]
                alt = f"Training row {row}: {title}"
                digits.append(_digit(dataset.train_images[row], alt, title, [*lines, f"row {row}"]))
            lists.append((f"{wrong} wrong, {right} right", len(rows), digits))
    return lists


@functools.lru_cache(maxsize=10_000)  # a page that is written again has mostly the same pictures
def _data_uri(pixels: bytes) -> str:
    """Returns a PNG with dark ink on white paper as a data URI."""
    image = 255 - np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _probabilities(probabilities: np.ndarray) -> str:
    """Returns the classes with the highest of the probabilities, float (10,), as text."""
    classes = np.argsort(-probabilities, kind="stable")[:_MOST_CLASSES].tolist()
    space = "\N{NO-BREAK SPACE}"
    return ", ".join(f"{digit}:{space}{100 * probabilities[digit]:.1f}{space}%" for digit in classes)


def _number(value: float | None, digits: int = 0, sign: bool = False) -> str:
    """Returns a number with that many decimals and commas between thousands; a dash for None and NaN."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def command(settings: dict[str, Any]) -> str | None:
    """Returns the command that trains the run again, None for a blend; `settings` is the contents of recipe.json."""
    recipe_name = str(settings.get("name"))
    if recipe_name not in named_recipes.RECIPES:
        return None
    defaults = make_recipe(None, recipe_name, {}, settings.get("data") == "sample")
    words = ["python", "scripts/train.py", "--recipe", recipe_name]
    for name in settable_fields():
        if name in settings and format_value(settings[name]) != format_value(getattr(defaults, name)):
            words += ["--set", f"{name}={format_value(settings[name])}"]
    return shlex.join(words + (["--threads", str(settings["threads"])] if settings.get("threads") else []))
