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


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "optimizer", "schedule", "hidden", "dropout"),
    [
        ("softmax_mlp", 5, 128, "adam", "constant", (512, 512), 0),
        ("dropout_mlp", 10, 32, "adam", "constant", (128,), 0.2),
        ("mlp", 3, 32, "adam", "constant", (128, 128), 0),
        ("shallow_cnn", 100, 100, "sgd", "exponential", (128,), 0),
        ("lenet", 5, 128, "adam", "constant", (128,), 0.5),
        ("bn_cnn", 50, 64, "adam", "plateau", (256,), 0.3),
    ],
)
def test_the_tutorials_settings(name, epochs, batch_size, optimizer, schedule, hidden, dropout):
    recipe = named_recipes.named(name)
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (epochs, batch_size, optimizer)
    assert (recipe.schedule, recipe.hidden, recipe.dropout) == (schedule, hidden, dropout)
    assert (recipe.learning_rate, recipe.loss, recipe.activation) == (1e-3, "cross_entropy", "relu")
    augmentation = (10, 0.1, 0.1, 0) if name == "bn_cnn" else (0, 0, 0, 0)
    assert (recipe.rotation, recipe.zoom, recipe.shift, recipe.shear) == augmentation


def test_what_the_tutorials_do_while_training():
    assert (BN_CNN.plateau_patience, BN_CNN.plateau_factor, BN_CNN.min_learning_rate) == (3, 0.5, 1e-5)
    assert (BN_CNN.stopping_rule, BN_CNN.stopping_monitor, BN_CNN.stopping_patience) == ("patience", "val_loss", 10)
    shallow = named_recipes.named("shallow_cnn")
    assert (shallow.decay, shallow.stopping_rule, shallow.stopping_monitor) == (0.9, "fall", "accuracy")
    assert named_recipes.named("mlp").scaling == "columns" and named_recipes.named("lenet").conv_dropout == 0.25


@pytest.mark.parametrize("recipe", named_recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_json_gives_the_same_recipe(recipe):
    assert recipes.from_json(json.loads(json.dumps(recipes.to_json(recipe))) | {"threads": 2}) == recipe
    assert recipes.to_json(recipe) == json.loads(json.dumps(recipes.to_json(recipe)))


def test_json_without_a_field_is_refused():
    fields = recipes.to_json(BN_CNN)
    del fields["epochs"]
    with pytest.raises(UserError, match="it has no epochs"):
        recipes.from_json(fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [("fats", "unknown recipe 'fats': did you mean fast?"), ("nn", "unknown recipe 'nn'; there are: fast, best")],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        named_recipes.named(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0: it must be a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": -3}, "batch_size=-3"),
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
    ],
)
def test_impossible_values_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        recipes.change(KFOLD, options)


def test_folds_and_holdout_take_each_others_place():
    assert (BN_CNN.folds, BN_CNN.holdout) == (1, 0.15) and (KFOLD.folds, KFOLD.holdout) == (5, 0)
    assert recipes.change(KFOLD, {"holdout": 0.15}) == BN_CNN


def test_set_takes_every_field_but_the_names():
    texts = {str: "relu", tuple: "512,64"}
    values = {str: "relu", tuple: (512, 64)}
    for field in dataclasses.fields(Recipe):
        text = texts.get(field.type, "1")
        if field.name in ("name", "network", "citation", "reported_accuracy"):
            with pytest.raises(UserError, match=f"--set {field.name}={text}: unknown field '{field.name}'"):
                recipes.parse_setting(f"{field.name}={text}")
        else:
            value = values.get(field.type, field.type("1"))
            assert recipes.parse_setting(f"{field.name}={text}") == (field.name, value)
    assert recipes.parse_setting("hidden=") == ("hidden", ())


@pytest.mark.parametrize(
    "setting", ["dropout", "nonsense=3", "=3", "epochs=2.5", "dropout=high", "hidden=512;512", "hidden=9,,9"]
)
def test_set_refuses(setting):
    with pytest.raises(UserError, match=f"--set {setting}: "):
        recipes.parse_setting(setting)


def test_a_misspelt_field_is_answered_with_the_similar_one():
    with pytest.raises(UserError, match=r"--set rotaton=10: unknown field 'rotaton': did you mean rotation\?"):
        recipes.parse_setting("rotaton=10")


def test_momentum_is_the_optimizers():
    assert recipes.change(KFOLD, {"optimizer": "sgd", "momentum": 0.9}).momentum == 0.9
    assert recipes.change(KFOLD, {"optimizer": "muon"}).momentum == 0.9  # the optimizer's usual one
    with pytest.raises(UserError, match=r"momentum=0.9: adam has none \(.*batchnorm_momentum\)"):
        recipes.change(KFOLD, {"momentum": 0.9})


def test_filters_are_as_many_as_the_network_has():
    assert recipes.change(KFOLD, {"filters": (8, 16, 24)}).filters == (8, 16, 24)
    with pytest.raises(UserError, match="filters=8,16: bn_cnn takes 3 numbers, not 2"):
        recipes.change(KFOLD, {"filters": (8, 16)})


def test_the_listing_explains_every_field():
    listing = named_recipes.listing()
    for name, option in recipes.settable_fields().items():
        assert f"\n{name}" in listing and option.metadata["help"] in listing
    assert "a whole number, at least 0 and at most 4294967295 (default: 42)" in listing


def test_the_listing_tells_recipes_of_one_network_apart():
    fast, best = named_recipes.listing().split("\nresidual")[0].split("\nbest")
    assert "repeats=2" in best and "repeats" not in fast
    assert "filters=48,96,96,192,192" in fast and "epochs=8" in fast
