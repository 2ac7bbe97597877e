"""The pages of a run and of a comparison: report/index.html, one file that needs nothing but itself."""

import base64
import functools
import hashlib
import io
import shlex
from collections.abc import Sequence
from datetime import date
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from digit_recognizer import named_recipes
from digit_recognizer.data.digits import COLUMNS, SIDE, Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.recipes import AUGMENTATION, format_value, settable_fields
from digit_recognizer.results import charts
from digit_recognizer.results.compare import Comparison, compare_runs
from digit_recognizer.results.ensemble import Ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import make_recipe

_MOST_PICTURES = 2000  # in a gallery: 2 MB

_TITLES = {"competition": "Digit Recognizer", "mnist": "MNIST", "sample": "Built-in sample"}


def write_page(ensemble: Ensemble, report: dict[str, Any], refresh: int | None = None) -> None:
    """Writes the page of a run; `report` is cv_report.json. A browser reloads it every `refresh` seconds."""
    run, settings, histories = ensemble.run, ensemble.run.require_settings(), ensemble.histories()
    best_epochs = {line["member"]: line["best_epoch"] for line in report.get("folds", [])}
    values = {
        "data": _TITLES.get(ensemble.dataset.kind, "") if ensemble.dataset.columns == COLUMNS else "",
        "report": report,
        "folder": run.folder.resolve().name,
        "date": date.fromtimestamp(run.recipe_json.stat().st_mtime),
        "settings": settings,
        "others": {name: value for name, value in settings.items() if name not in settable_fields()},
        "fields": _fields(settings),
        "command": command(settings, ensemble.dataset),
        "curves": charts.learning_curves(histories, best_epochs),
        "epochs": {name: len(history) for name, history in histories.items()},
        "augmented": any(settings.get(name) for name in AUGMENTATION),
        "refresh": refresh,
    }
    if ensemble.members:
        images, test = ensemble.dataset.test_images, ensemble.test
        values["errors"] = [_error(ensemble, row) for row in ensemble.wrong[:_MOST_PICTURES].tolist()]
        values["least_sure"] = [
            line | {"pixels": images[line["row"]], "probabilities": test[line["row"]]} for line in report["least_sure"]
        ]
    _write(run, "page.html.j2", values, {})


def write_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, refresh: int | None = None) -> Comparison:
    """Compares runs, and writes the page, runs.csv and pairs.csv into the folder report/ of `home`.

    With `refresh`, a browser reads the page again after that many seconds until all members are finished. Raises
    UserError as `compare_runs`, for fewer than two runs, and if `home` holds a run, whose report this would replace.
    """
    if len(runs) < 2:
        raise UserError("a comparison takes two runs or more; report.py --output RUN reports on one")
    if home.recipe_json.exists():
        raise UserError(f"{home.folder} holds a run: give the comparison an --output of its own")
    comparison = compare_runs(runs, dataset)
    pairs, ensembles = comparison.pairs, comparison.ensembles
    tables = {name: [member.history() for member in ensemble.members] for name, ensemble in ensembles.items()}
    histories = {name: charts.mean_history(members) for name, members in tables.items()}
    values = {
        "names": list(ensembles),
        "runs": comparison.runs.to_dict("records"),
        "pairs": pairs.to_dict("records"),
        "curves": charts.learning_curves(histories, {}),
        "refresh": refresh if any(ensemble.others for ensemble in ensembles.values()) else None,
    }
    texts = {"runs.csv": comparison.runs.to_csv(index=False), "pairs.csv": pairs.to_csv(index=False)}
    _write(home, "comparison.html.j2", values, texts)
    return comparison


def _write(home: Run, template: str, values: dict[str, Any], texts: dict[str, str]) -> None:
    """Writes the page that a template makes of `values`, and other files, `texts`."""
    page = render(template, **values)
    home.report.mkdir(parents=True, exist_ok=True)
    for name, text in (texts | {"index.html": page}).items():
        with atomic(home.report / name, several_writers=True) as file:
            file.write_text(text, encoding="utf-8", newline="")


def render(template: str, script: str = "page.js", connect: str = "'none'", **values: Any) -> str:
    """Returns the page that `template` makes of `values`, which it escapes; `script` may `connect` to these sources."""
    parts = {"policy": content_policy(script, connect), "style": Markup(_style()), "script": Markup(_source(script))}
    return _environment().get_template(template).render(values | parts)


def content_policy(script: str = "page.js", connect: str = "'none'") -> str:
    """Returns the Content-Security-Policy of the page that `render` makes with these arguments.

    It names the hashes of the page's style and script: nothing else is loaded or run, whatever the values hold.
    """
    sources = f"style-src '{_hash(_style())}'; script-src '{_hash(_source(script))}'; connect-src {connect}"
    return f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; {sources}"


@functools.cache  # it keeps the compiled templates
def _environment() -> Environment:
    jinja = Environment(loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    jinja.filters |= {"number": _number, "image": _image, "probabilities": _probabilities}
    jinja.globals["charts"] = charts
    return jinja


def _style() -> str:
    colors = "".join(f":root{{--c{n}:{color}}}.c{n}{{--color:var(--c{n})}}" for n, color in enumerate(charts.PALETTE))
    return colors + _source("page.css")


def _source(name: str) -> str:
    """Returns the text of a file of templates/, even if the package is in an archive."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Returns a hash in the form of a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _error(ensemble: Ensemble, row: int) -> dict[str, Any]:
    """Returns what the gallery shows of a wrong training row."""
    dataset, probabilities, votes = ensemble.dataset, ensemble.oof[row], ensemble.votes[:, row]
    predicted, label = int(probabilities.argmax()), int(dataset.train_labels[row])
    counts = {"predicted": predicted, "agree": (votes == predicted).sum(), "members": (votes >= 0).sum()}
    picture = {"row": row, "name": dataset.row_name(row), "pixels": dataset.train_images[row], "label": label}
    return picture | counts | {"probabilities": probabilities}


@functools.lru_cache(maxsize=10_000)  # a page that is written again has mostly the same pictures
def _image(pixels: bytes) -> str:
    """Returns a picture, the bytes of uint8 (28, 28), as a data URI of a PNG with dark ink on white paper."""
    buffer = io.BytesIO()
    Image.fromarray(255 - np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _probabilities(probabilities: np.ndarray) -> str:
    """Returns the three classes with the highest of the probabilities, float (10,), as text."""
    classes = np.argsort(-probabilities, kind="stable")[:3].tolist()
    space = "\N{NO-BREAK SPACE}"
    return ", ".join(f"{digit}:{space}{100 * probabilities[digit]:.1f}{space}%" for digit in classes)


def _number(value: float | None, digits: int = 0, sign: bool = False) -> str:
    """Returns a number with that many decimals and commas between thousands; a dash for None and NaN."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def _fields(settings: dict[str, Any]) -> dict[bool, list[tuple[str, str, str]]]:
    """Returns name, value and meaning of a recipe's fields, without other schedules', by whether it sets them."""
    fields: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    known = {name: field for name, field in settable_fields().items() if name in settings}  # a blend has none
    of_convolutions = {"filters", "conv_dropout", "batchnorm_momentum", "batchnorm_statistics"}
    unused = set() if settings.get("filters") else of_convolutions
    if settings.get("stopping_rule") == "patience" and not settings["stopping_patience"]:
        unused |= {"stopping_rule", "stopping_monitor"}
    for name, field in known.items():
        meaning, value = field.metadata["help"], format_value(settings[name])
        schedule = meaning.partition(":")[0]  # such as "plateau", if the field is for that schedule
        is_other = schedule in known["schedule"].metadata["choices"] and schedule != settings["schedule"]
        if name not in unused and not is_other:
            fields[value != format_value(field.default)].append((name, value, meaning))
    return fields


def command(settings: dict[str, Any], dataset: Dataset) -> str | None:
    """Returns the command that repeats the run with these contents of recipe.json and this data; None for a blend."""
    recipe_name = str(settings.get("name"))
    if recipe_name not in named_recipes.RECIPES:
        return None
    defaults = make_recipe(None, recipe_name, {}, dataset)
    values = {name: format_value(settings[name]) for name in settable_fields() if name in settings}
    changes = [f"{name}={value}" for name, value in values.items() if value != format_value(getattr(defaults, name))]
    words = ["bash", "scripts/run_all.sh", "--recipe", recipe_name, *(["--set", *changes] if changes else [])]
    for option in ("threads", "add"):
        words += [f"--{option}", str(settings[option])] if settings.get(option) else []
    return shlex.join([*words, "--output", "output/again"])
