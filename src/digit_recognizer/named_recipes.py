"""The recipes that have a name: our own, and one for each system of the five tutorials."""

import textwrap
from dataclasses import replace

from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe, describe_values, did_you_mean, format_value, settable_fields

FAST = Recipe(
    name="fast",
    network="fast_cnn",
    filters=(48, 96, 96, 192, 192),
    batchnorm_momentum=0.98,  # over about as many steps as the weights are averaged
    hidden=(128,),
    dropout=0.3,
    epochs=8,
    batch_size=128,
    optimizer="muon",
    learning_rate=4e-3,
    momentum=0.9,
    ema_epochs=0.2,
    kept_epoch="last",  # chosen on no rows, so out-of-fold figures do not flatter
    rotation=15.0,
    zoom=0.15,
    shift=0.1,
    shear=0.3,
    schedule="one_cycle",
    tta_views=16,
)

RECIPES = {
    recipe.name: recipe
    for recipe in [
        FAST,
        replace(FAST, name="best", epochs=16, repeats=2),  # each row is predicted by two networks that never saw it
        Recipe(
            name="softmax_mlp",
            network="mlp",
            citation="the course 'TensorFlow quick start and practice', part 5 (it names the layers alone)",
            hidden=(512, 512),
            epochs=5,
            batch_size=128,
        ),
        Recipe(
            name="dropout_mlp",
            network="mlp",
            citation="the tutorial 'Building a digit recognition system on MNIST'",
            reported_accuracy="0.9862 on MNIST's test set",
            folds=1,
            holdout=1 / 6,  # 10,000 of 60,000
            holdout_rows="first",
            dropout=0.2,
        ),
        Recipe(
            name="mlp",
            network="mlp",
            citation="the tutorial 'Machine learning guide (9): handwritten digits with TensorFlow'",
            scaling="columns",
            hidden=(128, 128),
            epochs=3,
        ),
        Recipe(
            name="shallow_cnn",
            network="shallow_cnn",
            filters=(28,),
            citation="the tutorial 'A shallow network in TensorFlow on MNIST'",
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
            filters=(32, 64),
            citation="the course 'TensorFlow quick start and practice', part 5 (it names the layers alone)",
            dropout=0.5,
            conv_dropout=0.25,
            epochs=5,
            batch_size=128,
        ),
        Recipe(
            name="bn_cnn",
            network="bn_cnn",
            filters=(64, 128, 192),
            citation="the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data'",
            reported_accuracy="0.99619 on its holdout, 0.99628 on Kaggle",
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


def named(name: str) -> Recipe:
    """Returns the recipe of that name; raises UserError for an unknown name."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES)}")
    return RECIPES[name]


def listing() -> str:
    """Returns every recipe with its source and the fields that it sets, and every field with its meaning."""
    lines, options = [], settable_fields()
    for recipe in RECIPES.values():
        values = {name: getattr(recipe, name) for name in options}
        settings = [f"{name}={format_value(value)}" for name, value in values.items() if value != options[name].default]
        lines.append(f"{recipe.name:12} {recipe.network}; reported accuracy: {recipe.reported_accuracy}")
        texts = [recipe.citation, *textwrap.wrap(" ".join(settings), 100)]
        lines += [f"{'':12} {text}" for text in texts]
    lines += ["", "fields, each with --set FIELD=VALUE (the default is that of a recipe that does not set it):"]
    for option in options.values():
        lines.append(f"{option.name:20} {option.metadata['help']}")
        lines.append(f"{'':20} {describe_values(option)} (default: {format_value(option.default) or 'none'})")
    return "\n".join(lines)
