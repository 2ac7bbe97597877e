"""How a recipe learns, as Keras takes it: optimizer, loss, learning rate, and when training ends."""

import math

import keras
from keras import ops

from digit_recognizer.digits import CLASSES
from digit_recognizer.optimizers import Muon
from digit_recognizer.recipes import Recipe

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
    "muon": Muon,
}


def compile(model: keras.Model, recipe: Recipe, steps: int, by_xla: bool = False) -> None:
    """Compiles `model` as the recipe says; an epoch has so many steps, which XLA makes code of or not."""
    optimizer = _OPTIMIZERS[recipe.optimizer](
        learning_rate(recipe, steps),
        use_ema=recipe.averaging > 0,
        ema_momentum=1 - 1 / max(1, recipe.averaging * steps),
    )
    loss = squared_error if recipe.loss == "squared_error" else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=by_xla)


def squared_error(labels, probabilities):
    """The mean over the ten classes of (probability - 1 or 0)²; labels (n,), probabilities (n, 10)."""
    return ops.mean(ops.square(probabilities - ops.one_hot(ops.reshape(labels, (-1,)), CLASSES)), axis=-1)


def learning_rate(recipe: Recipe, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """What the recipe's learning rate starts as, or how it follows from the step; an epoch has `steps`."""
    if recipe.schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            recipe.learning_rate, decay_steps=steps, decay_rate=recipe.decay, staircase=True
        )
    if recipe.schedule == "one_cycle":
        return OneCycle(recipe.learning_rate, recipe.epochs * steps, recipe.warmup)
    return recipe.learning_rate


@keras.saving.register_keras_serializable("digit_recognizer")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from near 0 to the peak in a straight line, then falls to near 0 along half a cosine.

    Source: Smith and Topin, 'Super-Convergence' (2018). It follows from the optimizer's count of steps,
    so that nothing more has to be saved, and is compiled into the step.

    Args:
        peak: the highest learning rate.
        steps: of the whole training.
        warmup: the part of them in which it rises, above 0 and below 1.
    """

    def __init__(self, peak: float, steps: int, warmup: float):
        """See the class."""
        self.peak, self.steps, self.warmup = peak, steps, warmup

    def __call__(self, step):
        """The learning rate of step number `step`, from 0."""
        part = (ops.cast(step, "float32") + 0.5) / self.steps  # the middle of the step: never quite 0
        fall = ops.cos(math.pi * (part - self.warmup) / (1 - self.warmup)) / 2 + 0.5
        return self.peak * ops.where(part < self.warmup, part / self.warmup, fall)

    def get_config(self):
        """The arguments of the constructor."""
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}


def callbacks(recipe: Recipe, monitor: str) -> list[keras.callbacks.Callback]:
    """Those that lower the learning rate where `monitor` no longer rises, and that end training."""
    chosen = []
    if recipe.schedule == "plateau":
        chosen.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=monitor,
                factor=recipe.plateau_factor,
                patience=recipe.plateau_patience,
                min_lr=recipe.min_learning_rate,
            )
        )
    if recipe.stopping_rule == "fall":
        chosen.append(StopAtFall(recipe.stopping_monitor))
    elif recipe.stopping_patience:
        chosen.append(
            keras.callbacks.EarlyStopping(
                monitor=recipe.stopping_monitor,
                mode="max" if recipe.stopping_monitor.endswith("accuracy") else "min",
                min_delta=1e-10,
                patience=recipe.stopping_patience,
            )
        )
    return chosen


class StopAtFall(keras.callbacks.Callback):
    """Ends training after the first epoch whose monitored value is worse than that of the epoch before.

    EarlyStopping with a patience of 1 ends it at an equal value too.
    """

    def __init__(self, monitor: str):
        """`monitor` is an accuracy, or a loss, which is better the lower it is."""
        super().__init__()
        self.monitor, self.sign = monitor, 1 if monitor.endswith("accuracy") else -1
        self.best = -math.inf  # of the epoch before: until it falls, that is the best

    def on_epoch_end(self, epoch, logs=None):
        """Called by Keras."""
        value = self.sign * logs[self.monitor]
        self.model.stop_training |= value < self.best
        self.best = value
