"""What Keras is fed: random numbers, the rows of each epoch in their order, the data pipeline, and the loop over it."""

import weakref
from typing import Any

import keras
import numpy as np

from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.training import backend

ROWS, LAYERS, STATISTICS = 0, 1, 2  # purposes of random numbers: order of the rows; weights and layers; statistics


def random_numbers(recipe: Recipe, member: Member, epoch: int, purpose: int) -> np.random.Generator:
    """Returns the generator of a training's random numbers for a purpose; epochs count from 1, 0 is before the first.

    It depends only on (seed, repeat, fold, epoch, purpose), so nothing random has to be saved.
    """
    return np.random.default_rng([recipe.seed, member.repeat, member.fold, epoch, purpose])


def steps_of_epoch(recipe: Recipe, rows: int) -> int:
    """Returns the number of training steps of an epoch."""
    return rows // min(recipe.batch_size, rows)


def rows_of_epoch(recipe: Recipe, rows: int) -> int:
    """Returns the number of training rows of an epoch: as many as fill whole batches."""
    return steps_of_epoch(recipe, rows) * min(recipe.batch_size, rows)


class ShuffledEpochs(keras.utils.PyDataset):
    """The training rows of a member, each epoch in its own order, all epochs in one sequence of chunks.

    Keras prefetches across epochs, so an item depends only on its index. The rows that do not fill a batch are left
    out, other ones in each epoch, as in the tutorial: every step has one shape and is compiled once.
    """

    def __init__(self, images, labels, recipe: Recipe, member: Member, epochs_done: int = 0, batches: int = 1):
        """Takes the member's training rows, uint8 images (rows, 28, 28) and labels (rows,).

        `epochs_done` epochs are trained already. A chunk has `batches` batches; the last one of an epoch may have
        fewer.
        """
        super().__init__()
        self.images, self.labels, self.recipe, self.member = images, labels, recipe, member
        self.epochs_done, self._rows = epochs_done, rows_of_epoch(recipe, len(images))
        self.chunk_rows = min(self._rows, batches * recipe.batch_size)
        self.chunks = -(-self._rows // self.chunk_rows)  # of an epoch
        self._epoch, self._order = 0, np.empty(0, int)

    def __len__(self) -> int:
        return (self.recipe.epochs - self.epochs_done) * self.chunks

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8 (rows, 28, 28) and labels uint8 (rows,) of a chunk."""
        epoch, chunk = divmod(index, self.chunks)
        epoch += self.epochs_done + 1
        if epoch != self._epoch:
            self._epoch = epoch
            order = random_numbers(self.recipe, self.member, epoch, ROWS).permutation(len(self.images))
            self._order = order[: self._rows]
        rows = self._order[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows]
        return self.images[rows], self.labels[rows]


class Batches(keras.utils.PyDataset):
    """Pictures in their order, with their labels if there are any, in batches that the machine predicts fast."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None, rows: int | None = None):
        """`images` are uint8 (n, 28, 28), `labels` uint8 (n,); `rows` of a batch (None: as many as suit the device)."""
        super().__init__()
        self.arrays = (images,) if labels is None else (images, labels)
        self.rows = rows or backend.prediction_batch_size()

    def __len__(self) -> int:
        return -(-len(self.arrays[0]) // self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return tuple(array[index * self.rows : (index + 1) * self.rows] for array in self.arrays)


def stream(batches: keras.utils.PyDataset):
    """Returns `batches` as `fit`, `evaluate` and `predict` have to take them: on TensorFlow, as a tf.data pipeline.

    It has no autotuning. Keras' own pipeline tunes itself, and in TensorFlow 2.20 and 2.21 its end often waits up to a
    minute for the sleeping tuning thread.
    """
    if keras.config.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    parts = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batches[0]]
    # TensorFlow keeps every generator until the process ends: it must not hold the rows
    kept: Any = weakref.ref(batches)
    pipeline = tf.data.Dataset.from_generator(
        lambda: (kept()[index] for index in range(len(kept()))), output_signature=tuple(parts)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    # without their number Keras warns after the last batch
    counted = pipeline.apply(tf.data.experimental.assert_cardinality(len(batches)))
    pipeline = counted.prefetch(1).with_options(options)
    pipeline.batches = batches
    return pipeline


def batches_per_call(xla_scope: backend.XlaScope, steps: int) -> int:
    """Returns the number of batches that one call of the training function takes; an epoch has `steps`."""
    # without XLA few enough that an interruption need not wait
    return {"epoch": steps, "step": 1, "none": min(32, steps)}[xla_scope]


class LoopModel(keras.Model):
    """Trains on several batches in one call, so that the device does not wait for Python and the data pipeline.

    Keras' `steps_per_execution` runs into the next epoch if the steps of an epoch do not divide by it. In a loop that
    XLA compiles for a processor each operation runs on one core: a step of convolutions is compiled by itself there.
    """

    def __init__(self, network: keras.Model, batch_size: int):
        """Shares the layers, weights and dtype policy of `network`, a functional model."""
        super().__init__(network.input, network.output, name=network.name)
        self.dtype_policy = network.dtype_policy  # with mixed_float16 `compile` adds the scaling of the loss
        self.batch_size = batch_size

    def train_step(self, *arguments):
        """Trains on a chunk: (state, data) -> (logs, state) on JAX, else (data) -> logs."""
        *state, (images, labels, *_) = arguments
        parts = [keras.ops.reshape(part, (-1, self.batch_size, *part.shape[1:])) for part in (images, labels)]
        train_step = super().train_step
        if state:
            import jax

            final, logs = jax.lax.scan(lambda state, batch: train_step(state, batch)[::-1], state[0], tuple(parts))
            return {name: values[-1] for name, values in logs.items()}, final
        import tensorflow as tf

        def step(number):
            train_step(tuple(part[number] for part in parts))
            return number + 1

        steps = tf.shape(parts[0])[0]
        tf.while_loop(lambda number: number < steps, step, [tf.constant(0)], parallel_iterations=1)
        return self.get_metrics_result()
