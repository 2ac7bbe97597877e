"""What a training run is made of: a network and every number that goes with it.

A value is written in one place, the field of `Recipe` or a named recipe of `RECIPES`. This module does
not import Keras, so that a wrong option is answered at once.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from digit_recognizer.errors import UserError


def _ranged(default, low, high=float("inf"), *, above=False):
    """A field whose value lies in [low, high], or in (low, high] where it must lie `above` low."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclass(frozen=True)
class Recipe:
    """One training recipe; every field can be set with `--set FIELD=VALUE`, except the two names."""

    name: str
    network: str  # a function of models.py
    source: str  # where the recipe comes from

    # the split
    folds: int = _ranged(5, 1, 100)
    repeats: int = _ranged(1, 1, 100)
    holdout: float = _ranged(0.0, 0, 0.9)  # part of the rows validated once, with folds=1; 0 for k-fold
    seed: int = _ranged(42, 0, 2**32 - 1)

    # training
    epochs: int = _ranged(50, 1)  # at most
    batch_size: int = _ranged(64, 1)
    learning_rate: float = _ranged(1e-3, 0, above=True)  # of Adam, at the start
    dropout: float = _ranged(0.3, 0, 0.95)

    # augmentation, a new draw for every image: each uniform in plus or minus the value
    rotation: float = _ranged(10.0, 0, 180)  # degrees
    zoom: float = _ranged(0.1, 0, 0.9)  # part of the size, in each direction its own
    shift: float = _ranged(0.1, 0, 0.9)  # part of the width and of the height

    # ReduceLROnPlateau on val_accuracy; a factor of 1 switches it off
    plateau_patience: int = _ranged(3, 1)  # epochs
    plateau_factor: float = _ranged(0.5, 0, 1, above=True)
    min_learning_rate: float = _ranged(1e-5, 0)

    # EarlyStopping on val_loss; 0 switches it off
    stopping_patience: int = _ranged(10, 0)  # epochs

    def __post_init__(self):
        """Raises UserError, naming the field, for a value of the wrong type or out of its range."""
        for option in dataclasses.fields(self):
            _check(option, getattr(self, option.name))
        if self.folds == 1 and self.holdout == 0:
            raise UserError("folds=1 leaves nothing to validate on: take 2 or more, or add --holdout 0.15")
        if self.folds > 1 and self.holdout > 0:
            raise UserError(f"holdout={self.holdout} is one split: it goes with --folds 1, not {self.folds}")

    @property
    def members(self) -> int:
        """How many networks the ensemble has."""
        return self.repeats * self.folds


def _check(option: dataclasses.Field, value: Any) -> None:
    """Raises UserError where `value` is none that the field `option` can have."""
    # bool is an int to isinstance, NaN compares false with every bound
    if type(value) is not option.type:
        raise UserError(f"{option.name}={value!r}: it takes {_KINDS[option.type]}")
    if "low" not in option.metadata:
        return
    low, high, above = (option.metadata[key] for key in ("low", "high", "above"))
    if not low <= value <= high or (above and value == low) or value == float("inf"):
        bounds = f"{'more than' if above else 'at least'} {low:g}"
        if high != float("inf"):
            bounds += f" and at most {high:g}"
        raise UserError(f"{option.name}={value}: it must be {bounds}")


_KINDS = {int: "a whole number", float: "a number", str: "a text"}
_NAMES = ("name", "network", "source")

RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe(
            name="bn_cnn",
            network="bn_cnn",
            source="the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data' (0.99628 on Kaggle)",
        ),
    ]
}
DEFAULT = "bn_cnn"


def named(name: str) -> Recipe:
    """The recipe of that name; raises UserError for a name that is not there."""
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]


def change(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """The recipe with the fields of `options` set; raises UserError as `Recipe` does.

    A holdout given alone means one fold, and folds given alone mean k-fold: neither has to be taken back
    by hand where the recipe has the other.
    """
    if options.get("holdout") and "folds" not in options:
        options = options | {"folds": 1}
    if options.get("folds", 1) > 1 and "holdout" not in options:
        options = options | {"holdout": 0.0}
    return dataclasses.replace(recipe, **options)


def parse(setting: str) -> tuple[str, Any]:
    """('dropout', 0.4) from the text 'dropout=0.4'; raises UserError for an unknown field or a wrong type."""
    name, equals, text = setting.partition("=")
    options = {option.name: option for option in dataclasses.fields(Recipe) if option.name not in _NAMES}
    if not equals or name not in options:
        raise UserError(f"--set {setting}: it takes FIELD=VALUE; the fields are: {', '.join(options)}")
    try:
        return name, options[name].type(text)
    except ValueError:
        raise UserError(f"--set {setting}: {name} takes {_KINDS[options[name].type]}") from None


def to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields; `from_json` makes the same recipe of them."""
    return dataclasses.asdict(recipe)


def from_json(fields: dict[str, Any]) -> Recipe:
    """The recipe of `to_json`'s fields; others, such as those a run adds, are left alone.

    Raises UserError where a field is missing or has a value it cannot have.
    """
    names = [option.name for option in dataclasses.fields(Recipe)]
    missing = [name for name in names if name not in fields]
    if missing:
        raise UserError(
            f"recipe.json has no {missing[0]}: it is not of a run that train.py made; take another --output"
        )
    return Recipe(**{name: fields[name] for name in names})
