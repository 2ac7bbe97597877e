"""What the parts of the benchmark measure with, and how much of it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from digit_recognizer.benchmark import torch_baseline
from digit_recognizer.benchmark.timing import Row
from digit_recognizer.benchmark.torch_baseline import TorchWay
from digit_recognizer.data.digits import Dataset
from digit_recognizer.recipes import Recipe
from digit_recognizer.training import backend


@dataclass(frozen=True)
class Workload:
    """The data, and the amount of work of each part."""

    dataset: Dataset
    input: Path | None  # folder of the data; None: the built-in sample
    seeds: list[int]  # of part b
    threads: int  # of the backend
    rounds: int = 5
    steps: int = 60  # training steps of a round
    batches: int = 32  # augmented or normalised in a round
    members: int = 15  # of part g's ensemble
    folds: int = 5  # members that predict in part f
    rows: int = 2048  # of the smallest training whose growth is measured
    times: tuple[int, ...] = (1, 2, 4, 8)  # of these rows, in an epoch
    group: int = 3  # epochs or members whose cost is one row
    predicted: int | None = None  # rows of test.csv; None: all
    epochs: int = 50  # of part b, at most
    torch_compile: bool = False  # whether torch.compile takes part
    measured: dict[str, list[Row]] = field(default_factory=dict)  # rows of each part so far, on this machine

    def torch_ways(self) -> list[TorchWay]:
        """Returns PyTorch's ways. Needs `backend.start`.

        There are none, which a line says, where it is not installed or the backend has an accelerator.
        """
        if backend.find_accelerator():
            print("left out: PyTorch, which computes on the processor alone here", flush=True)
            return []
        return torch_baseline.torch_ways(self.threads, half_precision(), self.torch_compile)


# The same, to tell whether the benchmark works: its numbers mean nothing.
QUICK = {"rounds": 2, "steps": 2, "batches": 2, "members": 3, "folds": 3, "rows": 512, "group": 1}
QUICK |= {"times": (1, 2), "predicted": 128, "epochs": 1}


def first_rows(dataset: Dataset, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first training images and labels; from the first on again where there are fewer."""
    chosen = np.arange(rows) % len(dataset.train_images)
    return dataset.train_images[chosen], dataset.train_labels[chosen]


def on_tensorflow(what: str) -> bool:
    """Returns whether the backend is TensorFlow; else says that `what`, which needs it, is left out."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        return True
    print(f"left out on JAX: {what}", flush=True)
    return False


def half_precision() -> bool:
    """Returns whether this machine has instructions for bfloat16. Needs `backend.start`."""
    return backend.compute_dtype("auto") == "bfloat16"


def execution_plan(recipe: Recipe, rows: int) -> tuple[backend.XlaScope, str]:
    """Returns the XLA scope and the compute dtype with which train.py would train on this number of rows."""
    dtype = backend.compute_dtype(recipe.precision)
    return backend.xla_scope(dtype, recipe.epochs * rows, recipe.has_convolutions), dtype
