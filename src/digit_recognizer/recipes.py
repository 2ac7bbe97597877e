"""Training configurations ("recipes") as data: their fields, the check of each value, text and JSON.

This module does not import Keras, so that a wrong option is answered at once. The recipes that have a
name are in `named_recipes`.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from digit_recognizer.files import UserError

AUGMENTATION = ("rotation", "zoom", "shift", "shear")  # fields


def _choice(default: str, help: str, *others: str):
    """A field that holds the default or one of `others`."""
    return field(default=default, metadata={"help": help, "choices": (default, *others)})


def _number(default, help: str, low, high=math.inf):
    """A field whose value lies in [low, high]."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """A training configuration. Every field but the first four can be set with `--set FIELD=VALUE`."""

    name: str
    network: str  # the function of networks.py that builds it
    citation: str = "this project"  # where the recipe comes from
    reported_accuracy: str = "none"  # by its source, and on what

    # the split
    folds: int = _number(5, "folds of the cross-validation; 1: a single split, which needs a holdout", 1, 100)
    repeats: int = _number(1, "how often the rows are split anew", 1, 100)
    holdout: float = _number(0.0, "part of the rows to validate on, with folds=1; 0: k-fold", 0, 0.9)
    holdout_rows: str = _choice("random", "rows of the holdout: random (stratified), or the first ones", "first")
    seed: int = _number(42, "seed of the split and of all random numbers in training", 0, 2**32 - 1)

    # the network
    scaling: str = _choice("unit", "pixels: 0 to 1, raw (0 to 255), or columns of length 1", "raw", "columns")
    filters: tuple = field(default=(), metadata={"help": "filters of the convolutions, as many as the recipe has"})
    hidden: tuple = field(default=(128,), metadata={"help": "units of the hidden dense layers; hidden= for none"})
    activation: str = _choice("relu", "activation function", "sigmoid", "tanh", "leaky_relu", "elu")
    dropout: float = _number(0.0, "dropout rate after each of those dense layers", 0, 0.95)
    conv_dropout: float = _number(0.0, "dropout rate after the convolutions", 0, 0.95)
    batchnorm_momentum: float = _number(0.99, "momentum of batch normalisation's moving averages", 0, 0.9999)
    batchnorm_statistics: str = _choice("recomputed", "recomputed from training rows, or the moving averages", "moving")

    # training
    epochs: int = _number(10, "passes over the training rows, at most", 1)
    batch_size: int = _number(32, "rows of a training step", 1)
    loss: str = _choice("cross_entropy", "loss function", "squared_error")
    optimizer: str = _choice(
        "adam", "optimizer; muon: Adam, with orthogonal steps for the filters", "sgd", "adagrad", "rmsprop", "muon"
    )
    learning_rate: float = _number(1e-3, "learning rate at the start; of one_cycle, the peak", 1e-30)
    momentum: float = _number(0.0, "momentum of sgd, rmsprop and muon", 0, 0.9999)
    ema_epochs: float = _number(0.0, "epochs over which the weights that predict are averaged; 0: not averaged", 0, 1)
    kept_epoch: str = _choice("best", "epoch that predicts: the first with the best val_accuracy, or the last", "last")
    precision: str = _choice("auto", "number format; auto: the device's fastest", "float32", "bfloat16", "float16")

    # augmentation: every picture has its own random numbers, uniform in plus or minus the value
    rotation: float = _number(0.0, "rotation, degrees", 0, 180)
    zoom: float = _number(0.0, "zoom, part of the size; height and width have their own", 0, 0.9)
    shift: float = _number(0.0, "shift, part of the height and of the width", 0, 0.9)
    shear: float = _number(0.0, "slant, pixels to the side for each pixel of height", 0, 0.9)

    # prediction
    tta_views: int = _number(0, "mean over this many views, distorted half as much as in training", 0, 256)

    # the learning rate over the epochs
    schedule: str = _choice("constant", "learning rate; plateau: by accuracy", "exponential", "plateau", "one_cycle")
    decay: float = _number(0.9, "exponential: factor after each epoch", 0.001, 1)
    warmup: float = _number(0.3, "one_cycle: part of all steps in which the rate rises", 0.001, 0.9)
    plateau_patience: int = _number(3, "plateau: epochs without a val_accuracy better by 0.0001 before it falls", 1)
    plateau_factor: float = _number(0.5, "plateau: factor by which it falls", 0.001, 0.99)
    min_learning_rate: float = _number(1e-5, "plateau: lowest learning rate", 0)

    # early stopping
    stopping_rule: str = _choice("patience", "stop by stopping_patience, or at the first worse value", "fall")
    stopping_monitor: str = _choice("val_loss", "value that early stopping watches", "val_accuracy", "loss", "accuracy")
    stopping_patience: int = _number(0, "epochs without a better value before training stops; 0: never", 0)

    def __post_init__(self):
        """Raises UserError, naming the field, for a value of the wrong type or out of its range."""
        for option in dataclasses.fields(self):
            check_value(option, getattr(self, option.name))
        if self.folds == 1 and self.holdout == 0:
            raise UserError("folds=1 leaves nothing to validate on: take 2 or more, or add --holdout 0.15")
        if self.folds > 1 and self.holdout > 0:
            raise UserError(f"holdout={self.holdout} is one split: it goes with --folds 1, not {self.folds}")

    @property
    def augmentation(self) -> dict[str, float]:
        """The arguments of `RandomDistortion`."""
        return {name: getattr(self, name) for name in AUGMENTATION}


_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "whole numbers such as 512,512, each at least 1",
}


def check_value(option: dataclasses.Field, value: Any) -> None:
    """Raises UserError, naming the field, if `value` is not one that the field `option` can have."""
    fits = type(value) is option.type  # bool is an int to isinstance
    if fits and option.type is tuple:
        fits = all(type(number) is int and number > 0 for number in value)
    if fits and "low" in option.metadata:  # NaN compares false with every bound
        fits = option.metadata["low"] <= value <= option.metadata["high"] and value != math.inf
    if not fits or value not in option.metadata.get("choices", [value]):
        raise UserError(f"{option.name}={format_value(value)}: it must be {describe_values(option)}")


def settable_fields() -> dict[str, dataclasses.Field]:
    """Returns the fields that --set takes, by name."""
    return {option.name: option for option in dataclasses.fields(Recipe) if option.metadata}


def describe_values(option: dataclasses.Field) -> str:
    """Returns what a field can hold, in words."""
    if "choices" in option.metadata:
        return f"one of: {', '.join(option.metadata['choices'])}"
    if "low" not in option.metadata:
        return _KINDS[option.type]
    low, high = option.metadata["low"], option.metadata["high"]
    return f"{_KINDS[option.type]}, at least {low}" + (f" and at most {high}" if high < math.inf else "")


def format_value(value: Any) -> str:
    """Returns a field's value, also as JSON has it, as --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def change(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """Returns the recipe with the fields of `options` set; raises UserError as `Recipe` does.

    A holdout given alone means one fold, and folds given alone mean k-fold.
    """
    if options.get("holdout") and "folds" not in options:
        options = options | {"folds": 1}
    if options.get("folds", 1) > 1 and "holdout" not in options:
        options = options | {"holdout": 0.0}
    if options.get("optimizer") == "muon" and not recipe.momentum:
        options = {"momentum": 0.9} | options  # without it the optimizer is of little use
    changed = dataclasses.replace(recipe, **options)
    if len(changed.filters) != len(recipe.filters):
        problem = f"{recipe.network} takes {len(recipe.filters)} numbers, not {len(changed.filters)}"
        raise UserError(f"filters={format_value(changed.filters)}: {problem}")
    if options.get("momentum") and changed.optimizer in ("adam", "adagrad"):
        advice = "that of batch normalisation is batchnorm_momentum"
        raise UserError(f"momentum={changed.momentum}: {changed.optimizer} has none ({advice})")
    return changed


def did_you_mean(name: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """Returns ': did you mean NAME?' for the most similar of `names`, else `otherwise` or a list of all of them."""
    names = list(names)
    if similar := difflib.get_close_matches(name, names, n=1):
        return f": did you mean {similar[0]}?"
    return f"; there are: {', '.join(names)}" if otherwise is None else otherwise


def parse_setting(setting: str) -> tuple[str, Any]:
    """Returns ('dropout', 0.4) for 'dropout=0.4'; raises UserError for an unknown field or a wrong type."""
    name, equals, text = setting.partition("=")
    fields, advice = settable_fields(), " (--list explains the fields)"
    if not equals:
        raise UserError(f"--set {setting}: expected FIELD=VALUE, such as dropout=0.4{advice}")
    if name not in fields:
        raise UserError(f"--set {setting}: unknown field {name!r}{did_you_mean(name, fields, advice)}")
    kind: Any = fields[name].type
    try:
        return name, tuple(map(int, text.split(",") if text else ())) if kind is tuple else kind(text)
    except ValueError:
        raise UserError(f"--set {setting}: it must be {describe_values(fields[name])}") from None


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe's fields as JSON has them; `from_json` makes the same recipe of them."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(recipe).items()
    }


def from_json(settings: dict[str, Any]) -> Recipe:
    """Returns the recipe in the contents of recipe.json; raises UserError for a missing or impossible value."""
    names = [option.name for option in dataclasses.fields(Recipe)]
    if missing := [name for name in names if name not in settings]:
        raise UserError(f"it has no {missing[0]}")
    values = ((name, settings[name]) for name in names)
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values}
    return Recipe(**fields)
