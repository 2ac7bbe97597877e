"""How a recipe learns, as Keras takes it: optimizer, loss, learning rate, and when training stops."""

import math

import keras
from keras import ops

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.recipes import Recipe


def compile_model(model: keras.Model, recipe: Recipe, steps: int, jit_compile: bool = False) -> None:
    """Compiles `model` as the recipe says, for epochs of `steps`; `jit_compile`: XLA compiles the training function."""
    loss = squared_error if recipe.loss == "squared_error" else "sparse_categorical_crossentropy"
    kinds = {"adam": QuickAdam, "muon": Muon, "sgd": keras.optimizers.SGD}
    kinds |= {"adagrad": keras.optimizers.Adagrad, "rmsprop": keras.optimizers.RMSprop}
    options = {"momentum": recipe.momentum} if recipe.optimizer in ("sgd", "rmsprop", "muon") else {}
    options |= {"use_ema": recipe.ema_epochs > 0, "ema_momentum": 1 - 1 / max(1, recipe.ema_epochs * steps)}
    optimizer = kinds[recipe.optimizer](learning_rate(recipe, steps), **options)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)


def squared_error(labels, probabilities):
    """Returns the mean over the classes of (probability - 1 or 0)²: int (n,) or (n, 1), float (n, 10) -> float (n,)."""
    return ops.mean(ops.square(probabilities - ops.one_hot(ops.reshape(labels, (-1,)), CLASSES)), axis=-1)


def learning_rate(recipe: Recipe, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the recipe's learning rate, or its schedule over the steps; an epoch has this many `steps`.

    Source of one_cycle: Smith and Topin, 'Super-Convergence' (2018), with a cosine for the way down.
    """
    if recipe.schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            recipe.learning_rate, decay_steps=steps, decay_rate=recipe.decay, staircase=True
        )
    if recipe.schedule == "one_cycle":
        whole = recipe.epochs * steps
        rising = max(1, round(recipe.warmup * whole))
        return keras.optimizers.schedules.CosineDecay(
            recipe.learning_rate / (2 * rising),  # half a step of the rise: never quite 0
            decay_steps=max(1, whole - rising),
            warmup_target=recipe.learning_rate,
            warmup_steps=rising,
        )
    return recipe.learning_rate


def schedule_callbacks(recipe: Recipe, monitor: str) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that lower the learning rate, judged by `monitor`, and that stop training."""
    chosen, stopping = [], recipe.stopping_monitor
    if recipe.schedule == "plateau":
        factor, patience, lowest = recipe.plateau_factor, recipe.plateau_patience, recipe.min_learning_rate
        chosen.append(keras.callbacks.ReduceLROnPlateau(monitor, factor, patience, min_lr=lowest))
    if recipe.stopping_rule == "fall":
        chosen.append(StopAtFall(stopping))
    elif recipe.stopping_patience:
        mode = "max" if stopping.endswith("accuracy") else "min"
        chosen.append(keras.callbacks.EarlyStopping(stopping, 1e-10, recipe.stopping_patience, mode=mode))
    return chosen


class StopAtFall(keras.callbacks.Callback):
    """Stops training after the first epoch whose monitored value is worse than that of the epoch before.

    Keras' EarlyStopping with a patience of 1 also stops at an equal value. Source: the tutorial 'A shallow network in
    TensorFlow on MNIST'.
    """

    def __init__(self, monitor: str):
        """`monitor` is an accuracy, or a loss, which is better the lower it is."""
        super().__init__()
        self.monitor, self.sign = monitor, 1 if monitor.endswith("accuracy") else -1
        self.best = -math.inf  # the last value: until it falls, that is the best

    def on_epoch_end(self, epoch, logs=None):
        value = self.sign * logs[self.monitor]
        self.model.stop_training |= value < self.best
        self.best = value


class QuickAdam(keras.optimizers.Adam):
    """Adam by TensorFlow's own kernel, in one pass over each variable, where Keras makes a dozen; on JAX, Keras'."""

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index, step = self._get_variable_index(variable), ops.cast(self.iterations + 1, "float32")
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle if isinstance(variable, keras.Variable) else variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=ops.cast(learning_rate, "float32"),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, "float32"),
        )


class Muon(QuickAdam):
    """Moves each convolution's filters by an orthogonal matrix near their momentum, and all else as Adam.

    A gradient has a few large singular values, which would otherwise decide the step alone; with all of them near 1 the
    network learns in fewer epochs. Filters of one input channel are too small a matrix for that and stay with Adam. The
    filters move `filter_rate` times as fast as the rest. Keras' own Muon takes the kernels of dense layers alone.
    Source: Jordan et al., 'Muon: an optimizer for hidden layers in neural networks' (2024).
    """

    filter_rate = 10.0

    def __init__(self, learning_rate=1e-3, momentum=0.9, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) != 4 or variable.shape[2] == 1:
            super().update_step(gradient, variable, learning_rate)
            return
        average = self._momentums[self._get_variable_index(variable)]
        self.assign(average, average * self.momentum + gradient)
        move = orthogonalize(ops.reshape(gradient + average * self.momentum, (-1, variable.shape[-1])))
        rate = ops.cast(learning_rate, variable.dtype) * self.filter_rate
        self.assign_sub(variable, rate * ops.reshape(move, variable.shape))


def orthogonalize(matrix):
    """Returns the float matrix (rows, columns) with its singular values brought to between 0.7 and 1.2.

    Five rounds of a Newton-Schulz iteration with Jordan's polynomial, which rises as fast as can be from 0; very small
    singular values stay below. Each round multiplies by a polynomial of the square, and these commute: their product,
    of few columns, is computed first.
    """
    rows, columns = matrix.shape
    if rows < columns:  # the square is smaller the other way round
        return ops.transpose(orthogonalize(ops.transpose(matrix)))
    matrix = matrix / (ops.norm(matrix) + 1e-7)
    square = ops.matmul(ops.transpose(matrix), matrix)
    factor = identity = ops.eye(columns, dtype=matrix.dtype)
    for _ in range(5):
        step = 3.4445 * identity - 4.775 * square + 2.0315 * ops.matmul(square, square)
        factor = ops.matmul(factor, step)
        square = ops.matmul(ops.matmul(step, square), step)
    return ops.matmul(matrix, factor)
