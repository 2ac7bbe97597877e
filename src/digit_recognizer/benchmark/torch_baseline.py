"""The tutorial's network and training in PyTorch, for the benchmark to compare with.

It is the same network with the same initial distribution, optimizer, learning rate and augmentation, written
for speed: channels_last, augmentation of the whole batch, fused Adam, and on request bfloat16 autocast and
torch.compile. Each function imports PyTorch itself, so that this module can be imported without it.
"""

import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from digit_recognizer.benchmark.baseline import AUGMENTATION, BATCH
from digit_recognizer.data.digits import SIDE

_PREDICTED_ROWS = 256  # of a batch


class TorchWay(NamedTuple):
    """How PyTorch computes."""

    dtype: str  # float32 or bfloat16
    compiled: bool  # by torch.compile

    @property
    def name(self) -> str:
        """The name in the table."""
        return f"PyTorch, {'compiled' if self.compiled else 'eager'}, {self.dtype}"


def torch_ways(threads: int, half_precision: bool, compiled: bool = False) -> list[TorchWay]:
    """Returns the ways that this machine has, and makes PyTorch compute with this number of threads.

    What is left out is printed: everything without PyTorch, and torch.compile without a C++ compiler.

    Args:
        threads: of PyTorch.
        half_precision: whether bfloat16 is one of the ways.
        compiled: whether torch.compile is one; with PyTorch 2.13 it has ended the process by a damaged heap.
    """
    if not importlib.util.find_spec("torch"):
        print(
            "left out: PyTorch, which is not installed: "
            "pip install -r src/digit_recognizer/benchmark/requirements.txt",
            flush=True,
        )
        return []
    import torch

    torch.set_num_threads(threads)
    if compiled and not shutil.which(os.environ.get("CXX", "g++")):
        print("left out: torch.compile, which needs a C++ compiler (g++)", flush=True)
        compiled = False
    dtypes = ["float32", "bfloat16"] if half_precision else ["float32"]
    return [TorchWay(dtype, by_compiler) for dtype in dtypes for by_compiler in {False, compiled}]


def build():
    """Returns the tutorial's network, an nn.Sequential from float (n, 1, 28, 28) to logits (n, 10).

    Normalisation has Keras' epsilon and momentum, the weights have Keras' initial distribution.
    """
    import torch
    from torch import nn

    def convolution(inputs: int, filters: int) -> nn.Module:
        return nn.Conv2d(inputs, filters, 3, padding=1)

    def rest(normalisation: nn.Module | None) -> list[nn.Module]:
        # pooling first gives the same values as ReLU first, at a quarter of the work
        return [*([normalisation] if normalisation else []), nn.MaxPool2d(2), nn.ReLU(inplace=True)]

    keras_defaults = {"eps": 1e-3, "momentum": 0.01}  # of 1 - momentum, as PyTorch has it
    network = nn.Sequential(
        convolution(1, 64),
        *rest(nn.BatchNorm2d(64, **keras_defaults)),
        convolution(64, 128),
        *rest(nn.BatchNorm2d(128, **keras_defaults)),
        convolution(128, 192),
        *rest(None),
        nn.Flatten(),
        nn.Linear(192 * 3 * 3, 256),
        nn.BatchNorm1d(256, **keras_defaults),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 10),
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network.to(memory_format=torch.channels_last)


def augment(pixels):
    """Returns float (n, 1, 28, 28) of 0 to 1, each picture rotated, zoomed and shifted, of uint8 (n, 28, 28)."""
    import torch
    from torch.nn import functional

    rotation, zoom, shift = AUGMENTATION.values()
    draw = torch.rand(5, len(pixels)) * 2 - 1
    angle = draw[0] * (rotation * math.pi / 180)
    height, width = 1 + zoom * draw[1], 1 + zoom * draw[2]
    down, across = 2 * shift * draw[3], 2 * shift * draw[4]  # the picture is 2 high and wide
    sine, cosine = torch.sin(angle), torch.cos(angle)
    to_x = torch.stack([cosine * width, sine * height, across], dim=1)
    to_y = torch.stack([-sine * width, cosine * height, down], dim=1)
    shape = [len(pixels), 1, SIDE, SIDE]
    grid = functional.affine_grid(torch.stack([to_x, to_y], dim=1), shape, align_corners=False)
    return functional.grid_sample(pixels.reshape(shape) / 255, grid, align_corners=False)


class TorchTraining:
    """Trains the tutorial's network with Adam on batches of augmented pictures."""

    def __init__(self, way: TorchWay, seed: int, learning_rate: float = 1e-3):
        """Makes the network; with `way.compiled` the first step compiles it.

        Augmentation is not compiled: PyTorch 2.13 then reads outside the pictures now and then.
        """
        import torch

        torch.manual_seed(seed)
        self.way, self.network = way, build()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, eps=1e-7, fused=True
        )  # Keras' epsilon
        self._loss = torch.compile(self._mean_loss) if way.compiled else self._mean_loss

    def _mean_loss(self, images, labels):
        """The mean cross-entropy of a batch of augmented pictures."""
        from torch.nn import functional

        with _autocast(self.way):
            logits = self.network(images)
        return functional.cross_entropy(logits.float(), labels)

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Trains on whole batches of the rows in a random order, and returns the seconds.

        Args:
            images: uint8 (n, 28, 28).
            labels: uint8 (n,).
        """
        import torch

        began = time.perf_counter()
        pixels, targets = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        self.network.train()
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            loss = self._loss(augment(pixels[rows]), targets[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - began

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Returns accuracy and mean cross-entropy on images uint8 (n, 28, 28) with labels uint8 (n,)."""
        probabilities = predict(self.network, self.way, images)
        right = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)
        return float((probabilities.argmax(axis=1) == labels).mean()), float(-np.log(right).mean())


def _autocast(way: TorchWay):
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=way.dtype == "bfloat16")


def predict(network, way: TorchWay, images: np.ndarray) -> np.ndarray:
    """Returns class probabilities, float32 (n, 10), of images uint8 (n, 28, 28).

    `network` is that of `build`, or what torch.compile made of it.
    """
    import torch

    network.eval()
    found = []
    with torch.inference_mode(), _autocast(way):
        for pixels in torch.from_numpy(images).split(_PREDICTED_ROWS):
            found.append(network(pixels[:, None] / 255).float().softmax(dim=1))
    return torch.cat(found).numpy()


def predictor(way: TorchWay) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `predict` of a new network: from uint8 (n, 28, 28) to float32 (n, 10)."""
    import torch

    network = build()
    network = torch.compile(network) if way.compiled else network
    return lambda images: predict(network, way, images)


def train_as_published(
    way: TorchWay,
    seed: int,
    epochs: int,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    watch: Callable[[float], None],
) -> None:
    """Trains with the tutorial's schedule: the rate falls at a plateau, training stops without a lower loss.

    Args:
        way: how PyTorch computes.
        seed: of all random numbers.
        epochs: at most.
        train: images uint8 (n, 28, 28) and labels uint8 (n,).
        validation: likewise.
        watch: is called with the validation accuracy after each epoch.
    """
    import torch

    training = TorchTraining(way, seed)
    # Keras reduces the rate at the third bad epoch, PyTorch after more bad ones than its patience
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        training.optimizer,
        mode="max",
        factor=0.5,
        patience=2,
        threshold=1e-4,
        threshold_mode="abs",
        min_lr=1e-5,
    )
    best, waited = math.inf, 0
    for _ in range(epochs):
        training.epoch(*train)
        accuracy, loss = training.evaluate(*validation)
        watch(accuracy)
        plateau.step(accuracy)
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= 10:
            break
