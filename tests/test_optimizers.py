"""The optimizer of our own."""

import keras
import numpy as np
import pytest
from keras import ops

from digit_recognizer.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(90, 12), (12, 90), (20, 20)])
def test_orthogonal_keeps_the_directions_and_evens_the_singular_values(shape):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=shape) * generator.uniform(0.1, 10, shape[1])
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    found = u.T @ ops.convert_to_numpy(orthogonal(ops.cast(matrix, "float32"))) @ v.T
    assert found == pytest.approx(np.diag(np.diag(found)), abs=1e-3)
    assert np.all((np.diag(found) > 0.6) & (np.diag(found) < 1.3))


def test_muon_moves_kernels_by_its_momentum_and_the_rest_as_adam():
    generator = np.random.default_rng(0)
    shapes = (3, 3, 4, 8), (3, 3, 1, 8), (5, 6), (8,)  # the first is a kernel
    starts = [generator.normal(size=shape).astype("float32") for shape in shapes]
    ours, theirs = ([keras.Variable(start) for start in starts] for _ in range(2))
    muon, adam = Muon(1e-3), keras.optimizers.Adam(1e-3)
    average = 0
    for _ in range(3):
        gradients = [ops.cast(generator.normal(size=shape), "float32") for shape in shapes]
        before = ops.convert_to_numpy(ours[0])
        muon.apply(gradients, ours)
        adam.apply(gradients, theirs)
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            assert ops.convert_to_numpy(mine) == pytest.approx(ops.convert_to_numpy(other), abs=1e-6)
        gradient = ops.convert_to_numpy(gradients[0]).reshape(36, 8)
        average = 0.9 * average + gradient
        u, _, v = np.linalg.svd(gradient + 0.9 * average, full_matrices=False)
        move = (before - ops.convert_to_numpy(ours[0])).reshape(36, 8)
        sizes = np.diag(u.T @ move @ v.T)
        assert np.all((sizes > 0.6e-2) & (sizes < 1.3e-2))
