"""Recipes: what a field takes, and how a mistake is answered."""

import dataclasses
import json
import re

import pytest

from digit_recognizer import named_recipes, recipes
from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe

BN_CNN = named_recipes.named("bn_cnn")
KFOLD = recipes.change(BN_CNN, {"folds": 5})


USUAL = dict(optimizer="adam", learning_rate=1e-3, loss="cross_entropy", activation="relu", schedule="constant")
USUAL |= dict(scaling="unit", dropout=0, conv_dropout=0, rotation=0, zoom=0, shift=0, shear=0)
EXPONENTIAL = dict(optimizer="sgd", schedule="exponential", decay=0.9)
PLATEAU = dict(schedule="plateau", plateau_patience=3, plateau_factor=0.5, min_learning_rate=1e-5)
FALL = dict(stopping_rule="fall", stopping_monitor="accuracy")
PATIENCE = dict(stopping_rule="patience", stopping_monitor="val_loss", stopping_patience=10)


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "hidden", "others"),
    [
        ("softmax_mlp", 5, 128, (512, 512), {}),
        ("dropout_mlp", 10, 32, (128,), {"dropout": 0.2}),
        ("mlp", 3, 32, (128, 128), {"scaling": "columns"}),
        ("shallow_cnn", 100, 100, (128,), EXPONENTIAL | FALL | {"scaling": "raw"}),
        ("lenet", 5, 128, (128,), {"dropout": 0.5, "conv_dropout": 0.25}),
        ("bn_cnn", 50, 64, (256,), PLATEAU | PATIENCE | dict(dropout=0.3, rotation=10, zoom=0.1, shift=0.1)),
    ],
)
def test_the_tutorials_settings(name, epochs, batch_size, hidden, others):
    expected = USUAL | {"epochs": epochs, "batch_size": batch_size, "hidden": hidden} | others
    assert dataclasses.asdict(named_recipes.named(name)).items() >= expected.items()


@pytest.mark.parametrize("recipe", named_recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_json_gives_the_same_recipe(recipe):
    assert recipes.from_json(json.loads(json.dumps(recipes.to_json(recipe))) | {"threads": 2}) == recipe
    assert recipes.to_json(recipe) == json.loads(json.dumps(recipes.to_json(recipe)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0: it must be a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"folds": 0}, "folds=0"),
        ({"folds": 1}, "folds=1 leaves nothing to validate on"),
        ({"folds": 101}, "at least 1 and at most 100"),
        ({"folds": 2, "holdout": 0.2}, "goes with --folds 1"),
        ({"holdout": 1.5}, "holdout=1.5"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: it must be a number, at least 1e-30"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"epochs": 2.0}, "epochs=2.0: it must be a whole number"),
        ({"epochs": True}, "epochs=True: it must be a whole number"),
        ({"seed": -1}, "seed=-1"),
        ({"activation": "swish"}, "activation=swish: it must be one of: relu, sigmoid, tanh, leaky_relu, elu"),
        ({"optimizer": ""}, "optimizer=: it must be one of: adam, sgd, adagrad, rmsprop, muon"),
        ({"schedule": 3}, "schedule=3: it must be one of: constant"),
        ({"hidden": (512, 0)}, "hidden=512,0: it must be whole numbers such as 512,512, each at least 1"),
        ({"hidden": (True,)}, "hidden="),
        ({"hidden": 512}, "hidden=512: it must be whole numbers"),
        ({"filters": (8, 16)}, "filters=8,16: bn_cnn takes 3 numbers, not 2"),
        ({"momentum": 0.9}, r"momentum=0.9: adam has none \(.*batchnorm_momentum\)"),
    ],
)
def test_impossible_values_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        recipes.change(KFOLD, options)


def test_folds_and_holdout_take_each_others_place():
    assert (BN_CNN.folds, BN_CNN.holdout) == (1, 0.15) and (KFOLD.folds, KFOLD.holdout) == (5, 0)
    assert recipes.change(KFOLD, {"holdout": 0.15}) == BN_CNN


def test_set_takes_every_field_but_the_names():
    values = {str: ("relu", "relu"), tuple: ("512,64", (512, 64)), int: ("1", 1), float: ("1", 1.0)}
    for field in dataclasses.fields(Recipe):
        text, value = values[field.type]
        if field.name in ("name", "network", "citation", "reported_accuracy"):
            with pytest.raises(UserError, match=f"--set {field.name}={text}: unknown field '{field.name}'"):
                recipes.parse_setting(f"{field.name}={text}")
        else:
            assert recipes.parse_setting(f"{field.name}={text}") == (field.name, value)
    assert recipes.parse_setting("hidden=") == ("hidden", ())


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        *(
            (setting, "")
            for setting in ("dropout", "=3", "epochs=2.5", "dropout=high", "hidden=512;512", "hidden=9,,9")
        ),
        ("nonsense=3", "unknown field 'nonsense' (--list explains the fields)"),
        ("rotaton=10", "unknown field 'rotaton': did you mean rotation?"),
    ],
)
def test_set_refuses(setting, advice):
    with pytest.raises(UserError, match=re.escape(f"--set {setting}: {advice}")):
        recipes.parse_setting(setting)


def test_an_unknown_recipe_is_refused():
    for name, advice in (("fats", ": did you mean fast?"), ("nn", "; there are: fast, best")):
        with pytest.raises(UserError, match=re.escape(f"unknown recipe '{name}'{advice}")):
            named_recipes.named(name)


def test_momentum_is_the_optimizers():
    assert recipes.change(KFOLD, {"optimizer": "sgd", "momentum": 0.9}).momentum == 0.9
    assert recipes.change(KFOLD, {"optimizer": "muon"}).momentum == 0.9  # the optimizer's usual one


def test_the_listing_explains_fields_and_tells_recipes_of_one_network_apart():
    listing = named_recipes.listing()
    for name, option in recipes.settable_fields().items():
        assert f"\n{name}" in listing and option.metadata["help"] in listing
    assert "a whole number, at least 0 and at most 4294967295 (default: 42)" in listing
    fast, best = listing.split("\nsoftmax_mlp")[0].split("\nbest")
    assert "repeats=2" in best and "repeats" not in fast
    assert "filters=48,96,96,192,192" in fast and "epochs=8" in fast
