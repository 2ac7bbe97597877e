"""How two runs are told apart: by the recipe, the data and the split that recipe.json names."""

import dataclasses
import hashlib
import json
from typing import Any

from digit_recognizer.recipes import RENAMED, Recipe

# The entries of recipe.json in which two runs differ; the name is first, because its difference explains the
# rest. Another precision rounds otherwise, and the run stays the same: another machine can go on with it.
_OTHER = ("citation", "reported_accuracy", "precision")
_IDENTITY = [option.name for option in dataclasses.fields(Recipe) if option.name not in _OTHER]
_IDENTITY += ["data", "fingerprint", "split"]

# Fields that were added later: the runs before did what their defaults say.
_LATER = ("shear", "elastic", "kept_epoch", "tta_views")

# Filters of the networks before they were a field.
_FIRST_FILTERS = {
    "shallow_cnn": [28],
    "lenet": [32, 64],
    "bn_cnn": [64, 128, 192],
    "fast_cnn": [48, 96, 96, 192, 192],
}


def upgrade(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the contents of a recipe.json of any version with the names and fields of this version."""
    settings = {RENAMED.get(name, name): value for name, value in settings.items()}
    if "network" not in settings:  # a blend of runs
        return settings
    if "batchnorm_momentum" not in settings:  # `momentum` was that, and the optimizer's was fixed
        settings["batchnorm_momentum"] = settings.get("momentum")
        settings["momentum"] = 0.9 if settings.get("optimizer") == "muon" else 0.0
    settings.setdefault("filters", _FIRST_FILTERS.get(str(settings["network"]), []))
    for option in dataclasses.fields(Recipe):
        if option.name in _LATER:
            settings.setdefault(option.name, option.default)
    return settings


def identity(settings: dict[str, Any]) -> str:
    """Returns the SHA-256 of the recipe, the data and the split, by which a run's members are known.

    `settings` are the contents of recipe.json. A field with its default value does not count, so that the
    fields of a later version leave the identity of earlier runs as it is.
    """
    defaults = {
        option.name: list(option.default) if isinstance(option.default, tuple) else option.default
        for option in dataclasses.fields(Recipe)
    }
    own = {name: settings[name] for name in _IDENTITY if name in settings}
    own = {name: value for name, value in own.items() if value != defaults.get(name, dataclasses.MISSING)}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def difference(known: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """Returns the first entry of `asked` that makes it another run than `known`, or None if there is none.

    Both are contents of recipe.json.
    """
    return next((name for name in _IDENTITY if name in asked and known.get(name) != asked[name]), None)
