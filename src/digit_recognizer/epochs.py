"""What Keras learns from: an epoch's rows in their order, its random numbers, the loop over its batches."""

import weakref

import keras
import numpy as np

from digit_recognizer import backend
from digit_recognizer.digits import Digits
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe

_ROWS, _LAYERS = 0, 1  # what random numbers are for


def _draws(recipe: Recipe, fold: Fold, epoch: int, purpose: int) -> np.random.Generator:
    """All randomness comes from here: epochs count from 1, and 0 is before the first, for initial weights."""
    return np.random.default_rng([recipe.seed, fold.repeat, fold.fold, epoch, purpose])


def seed_of_weights(recipe: Recipe, fold: Fold) -> int:
    """The seed of the member's initial weights."""
    return int(_draws(recipe, fold, 0, _LAYERS).integers(2**31))


def rows_of_epoch(recipe: Recipe, rows: int) -> int:
    """Of so many training rows those that an epoch takes: as many as fill its batches."""
    batch_size = min(recipe.batch_size, rows)
    return rows // batch_size * batch_size


class ShuffledEpochs(keras.utils.PyDataset):
    """A fold's training rows, each epoch in its own order, all epochs in one sequence of parts.

    A part is so many batches as `batches_at_once` says; the last of an epoch may have fewer. `fit` reads
    ahead, into the next epoch too, so a part must follow from its number alone. The rows that do not fill
    a batch are left out, other ones each epoch, as the tutorial does: then every step has one shape and is
    compiled once.
    """

    def __init__(self, train: Digits, recipe: Recipe, fold: Fold, done: int, batches: int = 1):
        """`train` are the training rows of the fold alone; `done` is the number of epochs already trained.

        A part has so many `batches`.
        """
        super().__init__()
        self.train, self.recipe, self.fold, self.done = train, recipe, fold, done
        self._rows = rows_of_epoch(recipe, len(train.images))
        self.rows = min(self._rows, batches * recipe.batch_size)  # a part
        self.parts = -(-self._rows // self.rows)  # an epoch
        self._epoch, self._order = 0, np.empty(0, int)

    def __len__(self) -> int:
        """Parts in all epochs still to train."""
        return (self.recipe.epochs - self.done) * self.parts

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (rows, 28, 28) and labels uint8 (rows,)."""
        epoch, part = divmod(number, self.parts)
        epoch += self.done + 1
        if epoch != self._epoch:
            self._epoch = epoch
            order = _draws(self.recipe, self.fold, epoch, _ROWS).permutation(len(self.train.images))
            self._order = order[: self._rows]
        rows = self._order[part * self.rows : (part + 1) * self.rows]
        return self.train.images[rows], self.train.labels[rows]


class Batches(keras.utils.PyDataset):
    """Pictures as they lie, with their labels if there are any, as many at once as the machine predicts best."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        """`images` are uint8 (n, 28, 28), `labels` uint8 (n,)."""
        super().__init__()
        self.arrays = (images,) if labels is None else (images, labels)
        self.rows = backend.rows_at_once()

    def __len__(self) -> int:
        """Batches; the last may have fewer rows."""
        return -(-len(self.arrays[0]) // self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        """Images and labels, as they were given, of a batch."""
        return tuple(array[number * self.rows : (number + 1) * self.rows] for array in self.arrays)


def stream(batches: keras.utils.PyDataset):
    """The `batches` as `fit`, `evaluate` and `predict` are to take them; the last alone may have fewer rows.

    Of arrays, and of batches as they are, Keras makes on TensorFlow a tf.data pipeline that tunes itself. The
    thread that does so sleeps twice as long each time, up to a minute, and in TensorFlow 2.20 and 2.21 it is
    often not woken when the pipeline ends: a member, a prediction or a validation then waits, with nothing to
    do, for up to as long as it took.
    """
    if keras.config.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    parts = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batches[0]]
    # TensorFlow keeps every generator until the process ends: not it, but the pipeline shall hold the rows
    kept = weakref.ref(batches)
    pipeline = tf.data.Dataset.from_generator(
        lambda: (kept()[number] for number in range(len(kept()))), output_signature=tuple(parts)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    # without their number Keras warns, after the last, that it got too few
    counted = pipeline.apply(tf.data.experimental.assert_cardinality(len(batches)))
    pipeline = counted.prefetch(1).with_options(options)
    pipeline.batches = batches
    return pipeline


class Reseed(keras.callbacks.Callback):
    """Begins each epoch with random states of the layers that depend on (seed, repeat, fold, epoch) alone.

    Keras' seed generators go on from wherever they were, which a new process does not know.
    """

    def __init__(self, recipe: Recipe, fold: Fold):
        """Which fold of which recipe is trained."""
        super().__init__()
        self.recipe, self.fold = recipe, fold

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        draws = _draws(self.recipe, self.fold, epoch + 1, _LAYERS)
        for layer in self.model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(draws.integers(2**31, size=2))


def batches_at_once(compiled: str | None, steps: int) -> int:
    """Of an epoch of so many steps those that `fit` is to take in one call, by what XLA compiles of it."""
    # uncompiled, few enough that an interruption need not wait
    return {"epoch": steps, "step": 1, None: min(32, steps)}[compiled]


class LoopModel(keras.Model):
    """Learns from several batches in one call, with the loop over them inside.

    Between two calls Python and the pipeline of batches take their time, and what the processor does waits.
    On an accelerator a step of these small networks takes less than Python needs to begin one; so does one
    of dense layers on a processor, where an epoch that XLA compiles is 3 times faster so. But what is inside
    a loop XLA runs there on one core: for convolutions that it compiles `fit` has the loop.
    """

    def __init__(self, network: keras.Model, batch_size: int):
        """`network` is a functional model, whose layers and weights this one shares."""
        super().__init__(network.input, network.output, name=network.name)
        self.batch_size = batch_size

    def train_step(self, *arguments):
        """Called by Keras: with (state, data) on JAX, which returns (logs, state), else with (data)."""
        *state, data = arguments
        batches = [
            keras.ops.reshape(part, (-1, self.batch_size, *part.shape[1:]))
            for part in data[:2]  # images and labels: there are no weights
        ]
        return self._scan(*state, batches) if state else self._loop(batches)

    def _scan(self, state, batches):
        import jax

        def step(state, batch):
            logs, state = super(LoopModel, self).train_step(state, batch)
            return state, logs

        state, logs = jax.lax.scan(step, state, tuple(batches))
        return {name: values[-1] for name, values in logs.items()}, state

    def _loop(self, batches):
        import tensorflow as tf

        def step(number):
            super(LoopModel, self).train_step(tuple(part[number] for part in batches))
            return number + 1

        count = tf.shape(batches[0])[0]
        tf.while_loop(lambda number: number < count, step, [tf.constant(0)], parallel_iterations=1)
        return self.get_metrics_result()
