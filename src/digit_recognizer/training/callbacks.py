"""What happens between the epochs of a training: seeds, averaged weights, the checkpoint, the time budget."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from digit_recognizer.data.folds import Member
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, write_arrays
from digit_recognizer.recipes import Recipe
from digit_recognizer.training.batches import layer_seeds

HISTORY = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
MONITOR = "val_accuracy"  # judges plateaus and the best epoch


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Returns the values of Keras variables."""
    return [keras.ops.convert_to_numpy(each) for each in variables]


def assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Gives each variable its value."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


class Reseed(keras.callbacks.Callback):
    """Begins each epoch with seeds of augmentation and dropout that depend on seed, member and epoch alone.

    Keras' seed generators go on from wherever they were, which a new process does not know.
    """

    def __init__(self, recipe: Recipe, member: Member):
        """The member of the recipe's run that is trained."""
        super().__init__()
        self.recipe, self.member = recipe, member

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the seeds."""
        seeds = layer_seeds(self.recipe, self.member, epoch + 1)
        for layer in self.model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(seeds.integers(2**31, size=2))


class EvaluateEMA(keras.callbacks.Callback):
    """Validates the moving average of the weights, where the optimizer has one, and keeps what was validated.

    At a high learning rate the weights oscillate around a better point; their moving average is closer to
    it. Training goes on from the weights themselves.

    Source: Polyak and Juditsky, 'Acceleration of stochastic approximation by averaging' (1992).
    """

    weights: list[np.ndarray]  # all of the model's weights, as they were last validated

    def on_test_begin(self, logs=None):
        """Puts the average in place of the weights, between the last step of an epoch and its validation."""
        self._last = values(self.model.trainable_variables)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        # on JAX they are now the optimizer's own arrays, and validation deletes what it is given
        assign(self.model.trainable_variables, values(self.model.trainable_variables))

    def on_test_end(self, logs=None):
        """Puts the weights back."""
        self.weights = values(self.model.weights)
        assign(self.model.trainable_variables, self._last)


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch, in one file, all that the next epoch depends on, and restores it.

    Keras' own callbacks forget: ReduceLROnPlateau its state in `on_train_begin`, ModelCheckpoint its best;
    BackupAndRestore writes two files. This callback comes after the `schedule` callbacks, so that it
    restores what they reset and saves what they decided.
    """

    _STATE = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch")  # of a schedule callback

    def __init__(
        self,
        path: Path,
        identity: str,
        rule: str,
        schedule: list[keras.callbacks.Callback],
        ema: EvaluateEMA,
    ):
        """Saves nothing yet.

        Args:
            path: state.npz, the file to save in.
            identity: of the run, recorded in the file.
            rule: which epoch's weights to keep, a recipe's `kept_epoch`.
            schedule: callbacks whose state is saved, from `optimization.schedule_callbacks`.
            ema: has the weights that were validated.
        """
        super().__init__()
        self.path, self.identity = path, identity
        self.history: list[dict[str, Any]] = []
        self.kept_weights: list[np.ndarray] = []
        self.stopped = False
        self._rule = rule
        self._schedule, self._ema = schedule, ema
        self._restored: list[dict[str, Any]] = []

    @property
    def kept_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept: the last, or that of the highest monitored value.

        The earliest on a tie.
        """
        if self._rule == "last":
            return self.history[-1]["epoch"]
        return max(self.history, key=lambda row: row[MONITOR])["epoch"]

    def restore(self, model: keras.Model) -> None:
        """Puts the saved state into `model`; a damaged one is reported, and the member starts over."""
        if not self.path.exists():
            return
        variables = _saved_variables(model)
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                found = {
                    kind: [arrays[f"{kind}_{number}"] for number in range(count)]
                    for kind, count in facts["counts"].items()
                }
            # float16's scale goes on where the epochs so far and the ones to come both have one
            if not (found.get("scale") and variables["scale"]):
                found["scale"] = variables["scale"] = []
            for kind, each in variables.items():
                _check_arrays(each, found[kind])
            _check_arrays(model.weights, found["kept"])
            restored = facts["history"], facts["stopped"], facts["rules"]
            _check_progress(*restored, self._STATE)
        except Exception as error:  # a damaged file can raise nearly anything
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{self.path} is damaged ({reason[:200]}): this fold starts over", flush=True)
            self.path.unlink()
            return
        for kind, each in variables.items():
            assign(each, found[kind])
        self.history, self.stopped, self._restored = restored
        self.kept_weights = found["kept"]

    def on_train_begin(self, logs=None):
        """Restores the state of the schedule callbacks, after they have reset themselves."""
        for callback, state in zip(self._schedule, self._restored, strict=False):
            for name, value in state.items():
                setattr(callback, name, value)

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time and the learning rate."""
        self._began = time.perf_counter()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        """Saves the epoch, after its validation and after the schedule callbacks."""
        if not np.isfinite(logs["loss"]):
            raise UserError(
                f"{self.path.parent}: the loss is {logs['loss']} in epoch {epoch + 1}: "
                "start again in another --output with a smaller --set learning_rate"
            )
        row = {"epoch": epoch + 1} | {name: float(logs[name]) for name in HISTORY[1:5]}
        self.history.append(row | {"learning_rate": self._learning_rate})
        if self.kept_epoch == epoch + 1:
            self.kept_weights = self._ema.weights
        self.stopped = bool(self.model.stop_training)
        self.history[-1]["seconds"] = round(time.perf_counter() - self._began, 3)
        self._save()
        self.write_history()

    def _save(self) -> None:
        kinds = {kind: values(each) for kind, each in _saved_variables(self.model).items()}
        kinds["kept"] = self.kept_weights
        facts = {
            "identity": self.identity,
            "counts": {kind: len(arrays) for kind, arrays in kinds.items()},
            "history": self.history,
            "stopped": self.stopped,
            "rules": [
                {name: getattr(callback, name) for name in self._STATE if hasattr(callback, name)}
                for callback in self._schedule
            ],
        }
        arrays = {
            f"{kind}_{number}": array for kind, each in kinds.items() for number, array in enumerate(each)
        }
        write_arrays(self.path, facts=json.dumps(facts), **arrays)

    def write_history(self) -> None:
        """Writes history.csv."""
        with atomic(self.path.with_name("history.csv")) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows(self.history)


def _saved_variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """The variables that training changes, by kind.

    "scale" are the variables of float16's scaled loss: none in another number format, in which the same training
    may go on.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    own = {id(variable) for variable in optimizer.variables}
    scale = [variable for variable in model.optimizer.variables if id(variable) not in own]
    return {"weight": model.weights, "optimizer": optimizer.variables, "scale": scale}


def _check_arrays(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Raises ValueError unless there is an array of numbers, of the right shape, for each variable."""
    if [tuple(each.shape) for each in variables] != [each.shape for each in arrays]:
        raise ValueError("it is of another network")
    if any(each.dtype.kind not in "fiub" for each in arrays):
        raise ValueError("it holds what are no numbers")


def _check_progress(history: Any, stopped: Any, rules: Any, names: tuple[str, ...]) -> None:
    """Raises ValueError unless these are a history, whether training has stopped, and the state of callbacks.

    `names` are the attributes that a state may have.
    """
    numbers = (int, float)
    if (
        not isinstance(stopped, bool)
        or not history
        or [row["epoch"] for row in history] != [*range(1, len(history) + 1)]
    ):
        raise ValueError("its epochs are not 1, 2, 3, ...")
    if any(
        set(row) != set(HISTORY) or not all(type(each) in numbers for each in row.values()) for row in history
    ):
        raise ValueError("an epoch there is not whole")
    if not np.isfinite([row[MONITOR] for row in history]).all():
        raise ValueError(f"{MONITOR} is no number there")
    values = [(name, value) for each in rules for name, value in each.items()]
    if any(name not in names or (value is not None and type(value) not in numbers) for name, value in values):
        raise ValueError("it holds another callback's state")


class OutOfTimeError(Exception):
    """There is no time for another epoch."""


class TimeBudget(keras.callbacks.Callback):
    """Begins no epoch that would not end in time, judged by the longest epoch so far."""

    # of the longest epoch: a busy machine, and predicting and writing at the end of a member
    _MARGIN = 1.5

    def __init__(self, deadline: float):
        """`deadline` is in seconds, as time.monotonic counts them."""
        super().__init__()
        self.deadline, self.longest = deadline, 0.0

    def check(self) -> None:
        """Raises OutOfTimeError unless there is time for another epoch."""
        if time.monotonic() + self._MARGIN * self.longest > self.deadline:
            raise OutOfTimeError

    def on_epoch_begin(self, epoch, logs=None):
        """Ends the training, whose last epoch is saved, if there is no time for this one."""
        self.check()
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Notes how long the epoch took."""
        self.longest = max(self.longest, time.monotonic() - self._began)


def tensorboard_log(folder: Path) -> keras.callbacks.Callback:
    """Returns the callback that logs loss, accuracy and learning rate of each epoch for TensorBoard."""
    return keras.callbacks.TensorBoard(folder, write_graph=False)
