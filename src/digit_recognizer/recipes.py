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


def _one_of(default, *others):
    """A field with a name for a value, of these."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True)
class Recipe:
    """One training recipe; every field can be set with `--set FIELD=VALUE`, except the first four."""

    name: str
    network: str  # a function of models.py
    source: str  # where the recipe comes from
    published: str  # what its source reports, and on what

    # the split
    folds: int = _ranged(5, 1, 100)
    repeats: int = _ranged(1, 1, 100)
    holdout: float = _ranged(0.0, 0, 0.9)  # part of the rows validated once, with folds=1; 0 for k-fold
    holdout_rows: str = _one_of("random", "first")  # which: drawn and stratified, or the first of the file
    seed: int = _ranged(42, 0, 2**32 - 1)

    # the network
    scaling: str = _one_of("unit", "raw", "columns")  # pixels of 0 to 1, of 0 to 255, columns of length 1
    hidden: tuple = (128,)  # units of the dense layers before the last; none: `hidden=`
    activation: str = _one_of("relu", "sigmoid", "tanh", "leaky_relu", "elu")
    dropout: float = _ranged(0.0, 0, 0.95)  # after each of those dense layers
    momentum: float = _ranged(0.99, 0, 0.9999)  # of the moving averages of batch normalisation
    conv_dropout: float = _ranged(0.0, 0, 0.95)  # after the convolutions

    # training
    epochs: int = _ranged(10, 1)  # at most
    batch_size: int = _ranged(32, 1)
    loss: str = _one_of("cross_entropy", "squared_error")
    optimizer: str = _one_of("adam", "sgd", "adagrad", "rmsprop", "muon")
    learning_rate: float = _ranged(1e-3, 0, above=True)  # at the start; of one_cycle, the peak
    averaging: float = _ranged(0.0, 0, 1)  # of the weights that predict: part of an epoch; 0: none
    # of convolutions; auto: as the device likes
    precision: str = _one_of("auto", "float32", "bfloat16", "float16")

    # augmentation, a new draw for every image: each uniform in plus or minus the value
    rotation: float = _ranged(0.0, 0, 180)  # degrees
    zoom: float = _ranged(0.0, 0, 0.9)  # part of the size, in each direction its own
    shift: float = _ranged(0.0, 0, 0.9)  # part of the width and of the height
    shear: float = _ranged(0.0, 0, 0.9)  # pixels to the side for each pixel of height

    # prediction: where it is not sure, the mean over the picture and its neighbours, moved by so many pixels
    test_shift: int = _ranged(0, 0, 3)

    # the learning rate over the epochs
    schedule: str = _one_of("constant", "exponential", "plateau", "one_cycle")
    decay: float = _ranged(0.9, 0, 1, above=True)  # exponential: times this after each epoch
    warmup: float = _ranged(0.3, 0, 0.9, above=True)  # one_cycle: the part of all steps in which it rises
    plateau_patience: int = _ranged(3, 1)  # plateau: epochs without a better val_accuracy, then
    plateau_factor: float = _ranged(0.5, 0, 0.99, above=True)  # times this
    min_learning_rate: float = _ranged(1e-5, 0)  # and no lower

    # when training ends before its last epoch: after so many epochs without a better value ("patience"),
    # or after the first with a worse value than the one before ("fall")
    stopping_rule: str = _one_of("patience", "fall")
    stopping_monitor: str = _one_of("val_loss", "val_accuracy", "loss", "accuracy")
    stopping_patience: int = _ranged(0, 0)  # epochs; 0: it does not

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
    if option.type is tuple and not all(type(each) is int and each > 0 for each in value):
        raise UserError(f"{option.name}={value}: it takes {_KINDS[tuple]}, each at least 1")
    if value not in option.metadata.get("choices", [value]):
        raise UserError(f"{option.name}={value}: it must be one of: {', '.join(option.metadata['choices'])}")
    if "low" not in option.metadata:
        return
    low, high, above = (option.metadata[key] for key in ("low", "high", "above"))
    if not low <= value <= high or (above and value == low) or value == float("inf"):
        bounds = f"{'more than' if above else 'at least'} {low:g}"
        if high != float("inf"):
            bounds += f" and at most {high:g}"
        raise UserError(f"{option.name}={value}: it must be {bounds}")


_KINDS = {int: "a whole number", float: "a number", str: "a text", tuple: "whole numbers such as 512,512"}
_NAMES = ("name", "network", "source", "published")

RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe(
            name="fast",
            network="fast_cnn",
            source="this project",
            published="none",
            momentum=0.98,  # over as many steps as the weights' averages
            hidden=(128,),
            dropout=0.3,
            epochs=16,
            batch_size=128,
            optimizer="muon",
            learning_rate=4e-3,
            averaging=0.2,
            rotation=15.0,
            zoom=0.15,
            shift=0.1,
            shear=0.3,
            schedule="one_cycle",
            test_shift=1,
        ),
        Recipe(
            name="softmax_mlp",
            network="mlp",
            source="the course 'TensorFlow quick start and practice', part 5 (it names the layers alone)",
            published="none",
            hidden=(512, 512),
            epochs=5,
            batch_size=128,
        ),
        Recipe(
            name="dropout_mlp",
            network="mlp",
            source="the tutorial 'Building a digit recognition system on MNIST'",
            published="0.9862 on MNIST's test set",
            folds=1,
            holdout=1 / 6,  # 10,000 of 60,000
            holdout_rows="first",
            dropout=0.2,
        ),
        Recipe(
            name="mlp",
            network="mlp",
            source="the tutorial 'Machine learning guide (9): handwritten digits with TensorFlow'",
            published="none",
            scaling="columns",
            hidden=(128, 128),
            epochs=3,
        ),
        Recipe(
            name="shallow_cnn",
            network="shallow_cnn",
            source="the tutorial 'A shallow network in TensorFlow on MNIST'",
            published="none",
            scaling="raw",
            epochs=100,
            batch_size=100,
            optimizer="sgd",
            schedule="exponential",
            stopping_rule="fall",
            stopping_monitor="accuracy",
        ),
        Recipe(
            name="lenet",
            network="lenet",
            source="the course 'TensorFlow quick start and practice', part 5 (it names the layers alone)",
            published="none",
            dropout=0.5,
            conv_dropout=0.25,
            epochs=5,
            batch_size=128,
        ),
        Recipe(
            name="bn_cnn",
            network="bn_cnn",
            source="the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data'",
            published="0.99619 on its holdout, 0.99628 on Kaggle",
            folds=1,
            holdout=0.15,
            hidden=(256,),
            dropout=0.3,
            epochs=50,
            batch_size=64,
            rotation=10.0,
            zoom=0.1,
            shift=0.1,
            schedule="plateau",
            stopping_patience=10,
        ),
    ]
}
DEFAULT = "fast"

# of their networks, so that nothing has to be built to tell
PARAMETERS = {
    "fast": 848_122,
    "softmax_mlp": 669_706,
    "dropout_mlp": 101_770,
    "mlp": 118_282,
    "shallow_cnn": 2_424_482,
    "lenet": 1_199_882,
    "bn_cnn": 742_858,
}


def named(name: str) -> Recipe:
    """The recipe of that name; raises UserError for a name that is not there."""
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]


def listing() -> str:
    """Every recipe (network and its dense layers, parameters, published figure, source) and every field."""
    lines = []
    for recipe in RECIPES.values():
        network = f"{recipe.network}, hidden {','.join(map(str, recipe.hidden))}"
        lines += [
            f"{recipe.name:12} {network:26} {PARAMETERS[recipe.name]:>9,} parameters, published: {recipe.published}",
            f"{'':12} {recipe.source}",
        ]
    lines += ["", "any of these with --set FIELD=VALUE:"]
    for option in _settable().values():
        lines.append(f"{option.name:18} {', '.join(option.metadata.get('choices', [_KINDS[option.type]]))}")
    return "\n".join(lines)


def _settable() -> dict[str, dataclasses.Field]:
    """The fields that --set takes, by name."""
    return {option.name: option for option in dataclasses.fields(Recipe) if option.name not in _NAMES}


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
    options = _settable()
    if not equals or name not in options:
        raise UserError(f"--set {setting}: it takes FIELD=VALUE; the fields are: {', '.join(options)}")
    try:
        return name, _sizes(text) if options[name].type is tuple else options[name].type(text)
    except ValueError:
        raise UserError(f"--set {setting}: {name} takes {_KINDS[options[name].type]}") from None


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(",")) if text else ()


def to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields as JSON has them; `from_json` makes the same recipe of them."""
    return {name: _as(list, value) for name, value in dataclasses.asdict(recipe).items()}


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
    return Recipe(**{name: _as(tuple, fields[name]) for name in names})


def _as(kind: type, value: Any) -> Any:
    """`value`, where it is several as one of that kind: JSON has lists, a frozen recipe tuples."""
    return kind(value) if isinstance(value, list | tuple) else value
