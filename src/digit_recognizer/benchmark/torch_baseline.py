"""The network of the recipe bn_cnn in PyTorch on the processor, written for speed.

Images are uint8 (n, 28, 28), labels uint8 (n,). This module imports PyTorch, which the program does not require.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from torch import Tensor, nn
from torch.nn import functional

from digit_recognizer.benchmark.ways import BN_CNN
from digit_recognizer.training import backend

NAME = f"bn_cnn, PyTorch {torch.__version__}"
AUTOCAST = torch.autocast("cpu", torch.bfloat16, enabled=backend.compute_dtype("auto") == "bfloat16")

torch.set_num_threads(tf.config.threading.get_intra_op_parallelism_threads())


def epochs(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns a function that trains for an epoch, without validation, on whole batches in a random order."""
    network, batch_size, pixels = build(), BN_CNN.batch_size, torch.from_numpy(images)
    optimizer, targets = torch.optim.Adam(network.parameters(), fused=True), torch.from_numpy(labels.astype(np.int64))

    def train() -> None:
        for rows in torch.randperm(len(pixels))[: len(pixels) // batch_size * batch_size].split(batch_size):
            batch = augment(pixels[rows])
            with AUTOCAST:
                logits = network(batch)
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits.float(), targets[rows]).backward()
            optimizer.step()

    return {NAME: train}


def predictors(images: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns a function that predicts the images."""
    network, batches = build().eval(), torch.from_numpy(images).split(256)

    def predict() -> list[Tensor]:
        with torch.inference_mode(), AUTOCAST:
            return [network(pixels[:, None] / 255).softmax(dim=1) for pixels in batches]

    return {NAME: predict}


def build() -> nn.Sequential:
    """Returns the network, from float (n, 1, 28, 28) to logits (n, 10)."""
    # max-pooling and ReLU can change places; ReLU after it has a quarter of the work
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(128, 192, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()]
    layers += [nn.Linear(192 * 3 * 3, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(256, 10)).to(memory_format=torch.channels_last)


def augment(pixels: Tensor) -> Tensor:
    """Returns float (n, 1, 28, 28) from 0 to 1: each image rotated, zoomed and shifted by its own random numbers."""
    draw = torch.rand(5, len(pixels)) * 2 - 1
    angle = draw[0] * math.radians(BN_CNN.rotation)
    height, width = 1 + BN_CNN.zoom * draw[1:3]
    down, across = 2 * BN_CNN.shift * draw[3:5]  # the image is 2 high and wide
    sine, cosine = torch.sin(angle), torch.cos(angle)
    to_x = torch.stack([cosine * width, sine * height, across], dim=1)
    to_y = torch.stack([-sine * width, cosine * height, down], dim=1)
    shape = [len(pixels), 1, 28, 28]
    grid = functional.affine_grid(torch.stack([to_x, to_y], dim=1), shape, align_corners=False)
    return functional.grid_sample(pixels.reshape(shape) / 255, grid, align_corners=False)
