"""From the folds' probabilities to those of the ensemble, out-of-fold and on the test rows."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from digit_recognizer import submission
from digit_recognizer.digits import CLASSES, Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.run import Run, atomic, read_json, write_json


@dataclass(frozen=True)
class Prediction:
    """What one run says: its members, and their means.

    `oof` is float32 (training rows, 10), NaN where no member predicted the row; `test` is float64
    (test rows, 10).
    """

    members: list[Path]
    missing: list[str]  # members that are not finished
    oof: np.ndarray
    test: np.ndarray


def predict(run: Run, folds: list[Fold], dataset: Dataset) -> Prediction:
    """The equally weighted mean of the run's finished members; raises UserError if there is none."""
    finished = [fold for fold in folds if run.is_finished(fold.name)]
    if not finished:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    folders = [run.folder / fold.name for fold in finished]
    total = np.zeros((len(dataset.train.images), CLASSES))
    times = np.zeros((len(total), 1))
    for fold, folder in zip(finished, folders, strict=True):
        total[fold.validation_rows] += _load(
            folder / "validation_probabilities.npy", len(fold.validation_rows)
        )
        times[fold.validation_rows] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of rows that nobody predicted
        oof = (total / times).astype(np.float32)
    tests = [_load(folder / "test_probabilities.npy", len(dataset.test.images)) for folder in folders]
    missing = [fold.name for fold in folds if fold not in finished]
    return Prediction(folders, missing, oof, np.mean(tests, axis=0, dtype=np.float64))


def mean_test_probabilities(run: Run, rows: int) -> np.ndarray:
    """Those that submission.csv is made of, by ensemble.json's members and weights: float64 (rows, 10)."""
    return sum(
        member["weight"]
        * _load(run.folder / member["member"] / "test_probabilities.npy", rows).astype(np.float64)
        for member in read_json(run.ensemble_json)["members"]
    )


def _load(path: Path, rows: int) -> np.ndarray:
    """Probabilities of a member; raises UserError unless they are whole and of so many rows."""
    try:
        probabilities = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        probabilities = None
    if (
        probabilities is None
        or probabilities.shape != (rows, CLASSES)
        or not np.isfinite(probabilities).all()
    ):
        raise UserError(
            f"{path} is missing or damaged: delete {path.parent}/metrics.json and train again; that fold starts over"
        )
    return probabilities


def trained_models(run: Run) -> dict[Path, float]:
    """The model.keras of each member and its weight: of ensemble.json, else equal for the finished folds.

    Raises UserError where the run has none, or one is missing.
    """
    if run.settings() is None:
        raise UserError(f"{run.folder} holds no run (no recipe.json): run scripts/train.py, or give --output")
    if run.ensemble_json.exists():
        members = read_json(run.ensemble_json)["members"]
        weights = {run.folder / member["member"]: member["weight"] for member in members}
    else:
        finished = [path.parent for path in sorted(run.folder.glob("fold_*/metrics.json"))]
        weights = {folder: 1 / len(finished) for folder in finished}
    if not weights:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    models = {folder / "model.keras": weight for folder, weight in weights.items()}
    for path in models:
        if not path.is_file():
            raise UserError(f"{path} is missing: run scripts/train.py, then scripts/ensemble.py, again")
    return models


def predict_images(models: dict[Path, float], images: np.ndarray) -> np.ndarray:
    """Class probabilities, float64 (n, 10), of uint8 images (n, 28, 28): the mean over `trained_models`.

    Raises UserError where a model can't be loaded. Needs `backend.start`.
    """
    import keras

    from digit_recognizer import layers  # noqa: F401, which a model.keras names

    total = np.zeros((len(images), CLASSES))
    for path, weight in models.items():
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # a damaged file can raise nearly anything
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{path} is damaged ({reason}): delete {path.parent}/metrics.json and train again"
            ) from None
        # called, not `predict`: compiling each network would take longer than a few digits do
        total += weight * keras.ops.convert_to_numpy(model(images, training=False))
    return total


def write(run: Run, dataset: Dataset, predictions: list[Prediction], weights: np.ndarray) -> None:
    """Writes ensemble.json, oof_probabilities.npy and submission.csv: the weighted mean of `predictions`.

    `weights` (one a prediction) sum to 1; the members of a prediction share its weight equally.
    """
    oof = sum(weight * each.oof for weight, each in zip(weights, predictions, strict=True))
    test = sum(weight * each.test for weight, each in zip(weights, predictions, strict=True))
    members = [
        {"member": os.path.relpath(member, run.folder), "weight": weight / len(each.members)}
        for weight, each in zip(weights.tolist(), predictions, strict=True)
        for member in each.members
    ]
    submission.write(run.submission, dataset, test)
    with atomic(run.oof_probabilities) as file:
        np.save(file, np.asarray(oof, np.float32))
    missing = [name for each in predictions for name in each.missing]
    write_json(run.ensemble_json, {"members": members, "missing": missing})


def equal_weights(predictions: list[Prediction]) -> np.ndarray:
    """The same weight for each member, whichever run it is of."""
    counts = np.array([len(each.members) for each in predictions], float)
    return counts / counts.sum()


def oof_weights(predictions: list[Prediction], labels: np.ndarray) -> np.ndarray:
    """The weights, one a prediction, none negative, of the least out-of-fold log loss.

    Found on the rows that each prediction covers; labels uint8 (rows,). The loss is convex in them, so a
    local search from equal weights finds the least.
    """
    covered = np.all([np.isfinite(each.oof).all(axis=1) for each in predictions], axis=0)
    if not covered.any():
        raise UserError("--weights oof: these runs have no validated row in common; use --weights equal")
    # (predictions, rows): what each gives to the right class
    given = np.array([each.oof[covered, labels[covered]] for each in predictions], np.float64)
    count = len(predictions)
    found = minimize(
        lambda weights: -np.log(np.maximum(weights @ given, 1e-15)).mean(),
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    return found.x / found.x.sum()
