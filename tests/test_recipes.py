"""Recipes: what a field takes, and how a mistake is answered."""

import dataclasses

import pytest

from digit_recognizer import recipes
from digit_recognizer.errors import UserError
from digit_recognizer.recipes import Recipe

BN_CNN = recipes.named("bn_cnn")


def test_the_tutorials_settings():
    assert (BN_CNN.epochs, BN_CNN.batch_size, BN_CNN.learning_rate, BN_CNN.dropout) == (50, 64, 1e-3, 0.3)
    assert (BN_CNN.rotation, BN_CNN.zoom, BN_CNN.shift) == (10, 0.1, 0.1)
    assert (BN_CNN.plateau_patience, BN_CNN.plateau_factor, BN_CNN.min_learning_rate) == (3, 0.5, 1e-5)
    assert BN_CNN.stopping_patience == 10


def test_json_gives_the_same_recipe():
    assert recipes.from_json(recipes.to_json(BN_CNN) | {"threads": 2}) == BN_CNN


def test_json_without_a_field_is_refused():
    with pytest.raises(UserError, match="has no epochs"):
        recipes.from_json(
            {"name": "x", "network": "y", "source": "z", "folds": 2, "repeats": 1, "holdout": 0.0, "seed": 1}
        )


def test_unknown_name():
    with pytest.raises(UserError, match="no recipe 'nn'; there are: bn_cnn"):
        recipes.named("nn")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": -3}, "batch_size=-3"),
        ({"folds": 0}, "folds=0"),
        ({"folds": 1}, "folds=1 leaves nothing to validate on"),
        ({"folds": 101}, "at least 1 and at most 100"),
        ({"folds": 2, "holdout": 0.2}, "goes with --folds 1"),
        ({"holdout": 1.5}, "holdout=1.5"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: it must be more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"epochs": 2.0}, "epochs=2.0: it takes a whole number"),
        ({"epochs": True}, "epochs=True: it takes a whole number"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_values_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        recipes.change(BN_CNN, options)


def test_folds_and_holdout_take_each_others_place():
    holdout = recipes.change(BN_CNN, {"holdout": 0.15})
    assert (holdout.folds, holdout.holdout) == (1, 0.15)
    assert recipes.change(holdout, {"folds": 5}) == BN_CNN
    assert recipes.change(BN_CNN, {"folds": 1, "holdout": 0.15, "repeats": 3}).members == 3


def test_set_takes_every_field_but_the_names():
    for field in dataclasses.fields(Recipe):
        if field.type is str:
            with pytest.raises(
                UserError, match=f"--set {field.name}=1: it takes FIELD=VALUE; the fields are: folds"
            ):
                recipes.parse(f"{field.name}=1")
        else:
            assert recipes.parse(f"{field.name}=1") == (field.name, field.type(1))


@pytest.mark.parametrize("setting", ["dropout", "nonsense=3", "=3", "epochs=2.5", "dropout=high"])
def test_set_refuses(setting):
    with pytest.raises(UserError, match=f"--set {setting}: "):
        recipes.parse(setting)
