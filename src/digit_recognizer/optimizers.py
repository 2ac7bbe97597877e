"""The optimizer of our own."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("digit_recognizer")
class Muon(keras.optimizers.Adam):
    """Moves each kernel of a convolution by an orthogonal matrix near its momentum, all else as Adam.

    A gradient's few large singular values would otherwise decide alone: the network learns in fewer epochs.
    Kernels of one input channel, which are too small a matrix for that, stay with Adam. Keras' own Muon
    takes the kernels of dense layers alone.

    Source: Jordan et al., 'Muon: an optimizer for hidden layers in neural networks' (2024).
    """

    momentum = 0.9
    kernel_rate = 10.0  # times the learning rate, which is Adam's

    def update_step(self, gradient, variable, learning_rate):
        """Called by Keras for each variable."""
        if len(variable.shape) != 4 or variable.shape[2] == 1:
            super().update_step(gradient, variable, learning_rate)
            return
        average = self._momentums[self._get_variable_index(variable)]
        self.assign(average, average * self.momentum + gradient)
        move = orthogonal(ops.reshape(gradient + average * self.momentum, (-1, variable.shape[-1])))
        rate = ops.cast(learning_rate, variable.dtype) * self.kernel_rate
        self.assign_sub(variable, rate * ops.reshape(move, variable.shape))


def orthogonal(matrix):
    """The float matrix (rows, columns) with its singular values brought near 1: to between 0.7 and 1.2.

    Five rounds of Newton and Schulz' iteration, as a polynomial that rises as fast as can be from 0; very
    small singular values stay below. A round multiplies the matrix by a polynomial of its square, which is
    of few columns and commutes with the others': so the rounds go over the squares alone, and the matrix,
    of many rows, is multiplied twice instead of ten times.
    """
    rows, columns = matrix.shape
    if rows < columns:  # the square is smaller the other way round
        return ops.transpose(orthogonal(ops.transpose(matrix)))
    matrix = matrix / (ops.norm(matrix) + 1e-7)
    square = ops.matmul(ops.transpose(matrix), matrix)
    factor = identity = ops.eye(columns, dtype=matrix.dtype)
    for _ in range(5):
        step = 3.4445 * identity - 4.775 * square + 2.0315 * ops.matmul(square, square)
        factor = ops.matmul(factor, step)
        square = ops.matmul(ops.matmul(step, square), step)
    return ops.matmul(matrix, factor)
