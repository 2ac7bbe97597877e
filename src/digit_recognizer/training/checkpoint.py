"""The checkpoint of a member: after each epoch one file with all that the next epoch depends on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from digit_recognizer.files import UserError, atomic, write_array
from digit_recognizer.runs.member import HISTORY
from digit_recognizer.training.callbacks import ValidationWeights, assign, values

MONITOR = "val_accuracy"  # judges plateaus and the best epoch

Row = dict[str, Any]  # the quantities of an epoch, named as in history.csv


class Checkpoint(keras.callbacks.Callback):
    """Saves in one file, after each epoch, all that the next epoch depends on, and restores it.

    Keras' own callbacks forget: ReduceLROnPlateau its state in `on_train_begin`, ModelCheckpoint its best value;
    BackupAndRestore writes two files. This callback comes after the `schedule` callbacks, so that it restores what
    they reset and saves what they decided.
    """

    _STATE = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch")  # of a schedule callback

    def __init__(
        self,
        path: Path,
        identity: str,
        rule: str,
        schedule: list[keras.callbacks.Callback],
        validated: ValidationWeights,
        on_epoch: Callable[[Row], None] = lambda row: None,
    ):
        """`path` is state.npz, `identity` that of the run. `rule` is a recipe's `kept_epoch`: whose weights to keep.

        The state of the `schedule` callbacks is saved too. `validated` has the weights that were validated. `on_epoch`
        is called after each epoch, once it is saved.
        """
        super().__init__()
        self.path, self.identity = path, identity
        self.history: list[Row] = []
        self.kept_weights: list[np.ndarray] = []
        self.stopped = False
        self._rule, self._schedule, self._validated, self._on_epoch = rule, schedule, validated, on_epoch
        self._restored_states: list[dict[str, Any]] = []

    @property
    def kept_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept: the last, or the earliest with the highest monitored value."""
        if self._rule == "last":
            return self.history[-1]["epoch"]
        return max(self.history, key=lambda row: row[MONITOR])["epoch"]

    def restore(self, model: keras.Model) -> None:
        """Puts the saved state into `model`. If the state is damaged, prints that, and the member starts over."""
        if not self.path.exists():
            return
        variables = _saved_variables(model)
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                counts = facts["counts"].items()
                saved = {kind: [arrays[f"{kind}_{number}"] for number in range(count)] for kind, count in counts}
            # float16's scale is restored only if the saved epochs and the coming ones both have one
            if not (saved.get("scale") and variables["scale"]):
                saved["scale"] = variables["scale"] = []
            for kind, of_kind in (variables | {"kept": model.weights}).items():
                shapes = [array.shape for array in saved[kind] if array.dtype.kind in "fiub"]
                if [tuple(variable.shape) for variable in of_kind] != shapes:
                    raise ValueError("it is of another network")
            rows, stopped = facts["history"], bool(facts["stopped"])
            history = [{name: float(row[name]) for name in HISTORY} | {"epoch": row["epoch"]} for row in rows]
            if [row["epoch"] for row in history] != list(range(1, len(rows) + 1)) or not rows:
                raise ValueError("its epochs are not 1, 2, 3, ...")
            states = [{name: state[name] for name in self._STATE if name in state} for state in facts["rules"]]
        except Exception as error:  # a damaged file can raise nearly anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            print(f"{self.path} is damaged ({reason}): this fold starts over", flush=True)
            self.path.unlink()
            return
        for kind, of_kind in variables.items():
            assign(of_kind, saved[kind])
        self.history, self.stopped, self.kept_weights = history, stopped, saved["kept"]
        self._restored_states = states

    def on_train_begin(self, logs=None):
        """Restores the state of the schedule callbacks, after they have reset themselves."""
        for callback, state in zip(self._schedule, self._restored_states, strict=False):
            vars(callback).update(state)

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        self._first_step = int(_inner_optimizer(self.model).iterations)
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        """Saves the epoch, after its validation and after the schedule callbacks."""
        if not np.isfinite(logs["loss"]):
            advice = "start again in another --output with a smaller --set learning_rate"
            raise UserError(f"{self.path.parent}: the loss is {logs['loss']} in epoch {epoch + 1}: {advice}")
        row = {"epoch": epoch + 1} | {name: float(logs[name]) for name in HISTORY[1:5]}
        logs["learning_rate"] = self._mean_learning_rate()
        self.history.append(row | {"learning_rate": logs["learning_rate"]})
        if self.kept_epoch == epoch + 1:
            self.kept_weights = self._validated.weights
        self.stopped = bool(self.model.stop_training)
        self.history[-1]["seconds"] = round(time.perf_counter() - self._began, 3)
        self._save()
        self.write_history()
        self._on_epoch(self.history[-1])

    def _mean_learning_rate(self) -> float:
        """Returns the mean learning rate of the epoch's steps, of 64 of them if there are more."""
        optimizer = _inner_optimizer(self.model)
        schedule = optimizer._learning_rate
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate
        steps = int(optimizer.iterations) - self._first_step
        count = max(1, min(steps, 64))
        chosen = self._first_step + (np.arange(count) + 0.5) * steps / count
        return float(np.mean([float(schedule(int(step))) for step in chosen]))

    def _save(self) -> None:
        kinds = {kind: values(variables) for kind, variables in _saved_variables(self.model).items()}
        kinds["kept"] = self.kept_weights
        states = [{name: vars(callback).get(name) for name in self._STATE} for callback in self._schedule]
        facts = {
            "identity": self.identity,
            "counts": {kind: len(arrays) for kind, arrays in kinds.items()},
            "history": self.history,
            "stopped": self.stopped,
            "rules": [{name: value for name, value in state.items() if value is not None} for state in states],
        }
        numbered = {f"{kind}_{number}": array for kind, arrays in kinds.items() for number, array in enumerate(arrays)}
        write_array(self.path, facts=json.dumps(facts), **numbered)

    def write_history(self) -> None:
        with atomic(self.path.with_name("history.csv")) as file:
            pd.DataFrame(self.history, columns=list(HISTORY)).to_csv(file, index=False)


def _inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Returns the optimizer, without the scaling of float16's loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _saved_variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Returns the variables that training changes, by kind; "scale" are those of float16's scaled loss, if any."""
    optimizer = _inner_optimizer(model)
    inner = {id(variable) for variable in optimizer.variables}
    scale = [variable for variable in model.optimizer.variables if id(variable) not in inner]
    return {"weight": model.weights, "optimizer": optimizer.variables, "scale": scale}
