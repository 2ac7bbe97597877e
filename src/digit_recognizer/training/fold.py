"""Trains a member of a run. START HERE.

What an epoch computes depends only on the weights, the optimizer, the callbacks and (seed, repeat, fold, epoch). The
first three are saved after every epoch in one atomic step; the order of the rows, augmentation and dropout follow from
the last. So a member that is killed at any moment and started again ends with the same bytes as one left alone.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import atomic, write_array, write_json
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member, scores
from digit_recognizer.training import backend, batches, networks
from digit_recognizer.training.callbacks import BatchStatistics, Reseed, ValidationWeights, assign, values
from digit_recognizer.training.checkpoint import MONITOR, Checkpoint, Row
from digit_recognizer.training.optimization import compile_model, schedule_callbacks
from digit_recognizer.training.predict import predict_with_tta, views_of


class FoldTrainer:
    """Trains members, one after the other, with one compiled network: a process never frees what compiling takes.

    Each member begins with its own weights and optimizer state, and does not depend on the members before it. After an
    exception in `train` make a new trainer: JAX may have taken its variables.

    Attributes: `network`, of Keras' own layers, float32, is saved and predicts; `learner` has layers and a number
    format that train fast; an epoch has `rows` training rows and `steps`.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_rows: int,
        xla_scope: backend.XlaScope | None = None,
        prediction_batch: int | None = None,
    ):
        """Builds the networks for members with this number of training rows, and clears Keras' session.

        `xla_scope` is the part of the training that XLA compiles, `prediction_batch` the rows of a batch in prediction;
        None: the quickest on this device.
        """
        keras.utils.clear_session()  # layers have the same names in every process
        self.recipe, self.rows = recipe, batches.rows_of_epoch(recipe, train_rows)
        self.steps = batches.steps_of_epoch(recipe, self.rows)
        dtype = backend.compute_dtype(recipe.precision)
        quickest = backend.xla_scope(dtype, recipe.epochs * self.rows, bool(recipe.filters))
        self.xla_scope = xla_scope or quickest
        self.prediction_batch = prediction_batch or backend.prediction_batch_size()
        self.network = networks.build(recipe)
        self.network.jit_compile = self.xla_scope != "none"
        self.learner = make_learner(recipe, self.rows, self.xla_scope, dtype)
        self.statistics = None
        if recipe.batchnorm_statistics == "recomputed":
            self.statistics = BatchStatistics(recipe, networks.layer_set_of(self.xla_scope), dtype)
        self._first_state = values(self.learner.optimizer.variables)

    def epochs(self, images, labels, member: Member, epochs_done: int = 0) -> batches.ShuffledEpochs:
        """Returns the epochs after `epochs_done`, for `batches.stream`: uint8 images (rows, 28, 28), labels (rows,)."""
        chunk = batches.batches_per_call(self.xla_scope, self.steps)
        return batches.ShuffledEpochs(images, labels, self.recipe, member, epochs_done, chunk)

    def fits(self, train_rows: int) -> bool:
        """Returns whether an epoch of members with this number of training rows has the same steps."""
        return batches.rows_of_epoch(self.recipe, train_rows) == self.rows

    def train(
        self,
        member: Member,
        dataset: Dataset,
        identity: str = "",
        callbacks: Iterable[keras.callbacks.Callback] = (),
        on_epoch: Callable[[Row | None], None] = lambda row: None,
    ) -> dict[str, Any]:
        """Trains a member from where it stopped, and returns its metrics.

        Afterwards the member's folder holds model.keras (the weights of the recipe's `kept_epoch`), history.csv, the
        probabilities of the validation rows and of the test rows (float32 (n, 10)) and, written last, metrics.json. The
        state and the metrics record the run's `identity`. `on_epoch` is called with the row of history.csv of each
        saved epoch, and with None before the predictions. Raises UserError if the loss stops being a number.
        """
        member.folder.mkdir(parents=True, exist_ok=True)
        self._initialize(member)
        update = self.statistics.updater(self.recipe, member, dataset) if self.statistics else lambda model: None
        validated = ValidationWeights(update)
        state, schedule = member.folder / "state.npz", schedule_callbacks(self.recipe, MONITOR)
        checkpoint = Checkpoint(state, identity, self.recipe.kept_epoch, schedule, validated, on_epoch)
        checkpoint.restore(self.learner)
        if not checkpoint.stopped and len(checkpoint.history) < self.recipe.epochs:
            between = [Reseed(self.recipe, member), validated, *schedule, checkpoint, *callbacks]
            self._fit(member, dataset, len(checkpoint.history), between)
        self.network.set_weights(checkpoint.kept_weights)
        on_epoch(None)
        return self._finish(member, dataset, checkpoint)

    def _initialize(self, member: Member) -> None:
        """Gives the learner the member's initial weights and the optimizer its first state."""
        random = batches.random_numbers(self.recipe, member, 0, batches.LAYERS)
        keras.utils.set_random_seed(int(random.integers(2**31)))
        assign(self.learner.weights, values(networks.build(self.recipe).weights))
        assign(self.learner.optimizer.variables, self._first_state)

    def _fit(self, member: Member, dataset: Dataset, epochs_done: int, callbacks: list) -> None:
        epochs = self.epochs(*dataset.training_data(member.train_rows), member, epochs_done)
        rows = member.validation_rows
        validation = batches.Batches(dataset.train_images[rows], dataset.train_labels[rows], self.prediction_batch)
        self.learner.fit(
            batches.stream(epochs),
            shuffle=False,  # it would shuffle batches across epochs
            steps_per_epoch=epochs.chunks,
            epochs=self.recipe.epochs,
            initial_epoch=epochs_done,
            validation_data=batches.stream(validation),
            callbacks=callbacks,
            verbose=0,
        )

    def _finish(self, member: Member, dataset: Dataset, checkpoint: Checkpoint) -> dict[str, Any]:
        """Predicts with the kept epoch's network and writes the files of a finished member."""
        began, folder = time.perf_counter(), member.folder
        with atomic(folder / "model.keras") as file:
            self.network.save(file)
        predict = partial(predict_with_tta, views=views_of(self.recipe), batch=self.prediction_batch)
        probabilities = predict(self.network, dataset.train_images[member.validation_rows])
        write_array(folder / "validation_probabilities.npy", probabilities)
        write_array(folder / "test_probabilities.npy", predict(self.network, dataset.test_images))
        checkpoint.write_history()
        metrics = {
            "identity": checkpoint.identity,
            "repeat": member.repeat,
            "fold": member.fold,
            **scores(dataset.train_labels[member.validation_rows], probabilities),
            "parameters": self.network.count_params(),
            "best_epoch": checkpoint.kept_epoch,
            "epochs": len(checkpoint.history),
            "device": backend.card_name(),
            "seconds": sum(row["seconds"] for row in checkpoint.history) + time.perf_counter() - began,
        }
        write_json(folder / "metrics.json", metrics)
        checkpoint.path.unlink(missing_ok=True)
        return metrics


def make_learner(recipe: Recipe, rows: int, xla_scope: backend.XlaScope, compute_dtype: str) -> keras.Model:
    """Returns the compiled network for epochs of `rows`; `fit` takes chunks of `batches_per_call` batches."""
    model = networks.build(recipe, networks.layer_set_of(xla_scope), compute_dtype)
    if xla_scope != "step":
        model = batches.LoopModel(model, min(recipe.batch_size, rows))
    compile_model(model, recipe, batches.steps_of_epoch(recipe, rows), jit_compile=xla_scope != "none")
    model.optimizer.build(model.trainable_variables)
    # the metrics create their variables on first use; in a step TensorFlow would trace it twice
    model.compute_metrics(None, keras.ops.zeros(1, "uint8"), keras.ops.ones((1, CLASSES)))
    model.reset_metrics()
    return model
