"""What Keras is fed: the rows of each epoch in their order, the seeds of its random numbers, the data pipeline."""

import weakref
from typing import Any

import keras
import numpy as np

from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.training import backend

# Purposes of random numbers: the order of the rows; weights, augmentation and dropout; the rows for statistics.
_ROWS, _LAYERS, _STATISTICS = 0, 1, 2


def random_numbers(recipe: Recipe, member: Member, epoch: int, purpose: int) -> np.random.Generator:
    """Returns the generator that all randomness of a training comes from.

    It depends on (seed, repeat, fold, epoch, purpose) alone, so that nothing random has to be saved. Epochs
    count from 1; 0 is before the first, for the initial weights.
    """
    return np.random.default_rng([recipe.seed, member.repeat, member.fold, epoch, purpose])


def weights_seed(recipe: Recipe, member: Member) -> int:
    """Returns the seed of the member's initial weights."""
    return int(random_numbers(recipe, member, 0, _LAYERS).integers(2**31))


def layer_seeds(recipe: Recipe, member: Member, epoch: int) -> np.random.Generator:
    """Returns the generator of the seeds that augmentation and dropout have in that epoch, from 1."""
    return random_numbers(recipe, member, epoch, _LAYERS)


def statistics_random(recipe: Recipe, member: Member) -> np.random.Generator:
    """Returns the generator that chooses the rows for the statistics of batch normalisation."""
    return random_numbers(recipe, member, 0, _STATISTICS)


def rows_of_epoch(recipe: Recipe, rows: int) -> int:
    """Returns how many of the training `rows` an epoch takes: as many as fill whole batches."""
    batch_size = min(recipe.batch_size, rows)
    return rows // batch_size * batch_size


class ShuffledEpochs(keras.utils.PyDataset):
    """The training rows of a member, each epoch in its own order, all epochs in one sequence of chunks.

    One item is a chunk of batches; the last chunk of an epoch may have fewer. Keras prefetches across epochs,
    so item i must depend on i alone. The rows that do not fill a batch are left out, other ones each epoch,
    as the tutorial does: so every step has one shape and is compiled once.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        recipe: Recipe,
        member: Member,
        epochs_done: int = 0,
        batches: int = 1,
    ):
        """Prepares the epochs that are still to train.

        Args:
            images: uint8 (rows, 28, 28), the training rows of the member alone.
            labels: uint8 (rows,).
            recipe: gives the epochs, the batch size and the seed.
            member: whose order of rows this is.
            epochs_done: epochs trained already.
            batches: batches of a chunk.
        """
        super().__init__()
        self.images, self.labels, self.recipe, self.member = images, labels, recipe, member
        self.epochs_done = epochs_done
        self._rows = rows_of_epoch(recipe, len(images))
        self.chunk_rows = min(self._rows, batches * recipe.batch_size)
        self.chunks = -(-self._rows // self.chunk_rows)  # of an epoch
        self._epoch, self._order = 0, np.empty(0, int)

    def __len__(self) -> int:
        """Chunks in all epochs still to train."""
        return (self.recipe.epochs - self.epochs_done) * self.chunks

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (rows, 28, 28) and labels uint8 (rows,) of a chunk."""
        epoch, chunk = divmod(index, self.chunks)
        epoch += self.epochs_done + 1
        if epoch != self._epoch:
            self._epoch = epoch
            order = random_numbers(self.recipe, self.member, epoch, _ROWS).permutation(len(self.images))
            self._order = order[: self._rows]
        rows = self._order[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows]
        return self.images[rows], self.labels[rows]


class Batches(keras.utils.PyDataset):
    """Pictures in their order, with their labels if there are any, in batches that the machine predicts fast."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        """`images` are uint8 (n, 28, 28), `labels` uint8 (n,)."""
        super().__init__()
        self.arrays = (images,) if labels is None else (images, labels)
        self.rows = backend.prediction_batch_size()

    def __len__(self) -> int:
        """Batches; the last may have fewer rows."""
        return -(-len(self.arrays[0]) // self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Images and labels, as they were given, of a batch."""
        return tuple(array[index * self.rows : (index + 1) * self.rows] for array in self.arrays)


def stream(batches: keras.utils.PyDataset):
    """Returns `batches` as `fit`, `evaluate` and `predict` have to take them.

    On TensorFlow that is a tf.data pipeline that does not tune itself. Of arrays and of a PyDataset, Keras
    makes one that does: its tuning thread sleeps twice as long each time, up to a minute, and in TensorFlow
    2.20 and 2.21 it is often not woken when the pipeline ends, which then waits for it with nothing to do.
    """
    if keras.config.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    parts = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batches[0]]
    # TensorFlow keeps every generator until the process ends: the pipeline holds the rows, the generator must not.
    kept: Any = weakref.ref(batches)
    pipeline = tf.data.Dataset.from_generator(
        lambda: (kept()[index] for index in range(len(kept()))), output_signature=tuple(parts)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    # without their number Keras warns, after the last, that it got too few
    counted = pipeline.apply(tf.data.experimental.assert_cardinality(len(batches)))
    pipeline = counted.prefetch(1).with_options(options)
    pipeline.batches = batches
    return pipeline
