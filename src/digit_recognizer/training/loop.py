"""The training loop over several batches inside one call."""

import keras

from digit_recognizer.training.backend import XlaScope


def batches_per_call(xla_scope: XlaScope, steps: int) -> int:
    """Returns how many of the `steps` of an epoch one call of `fit`'s training function takes."""
    # without XLA few enough that an interruption need not wait
    return {"epoch": steps, "step": 1, "none": min(32, steps)}[xla_scope]


class LoopModel(keras.Model):
    """Trains on several batches in one call.

    Between two calls Python and the data pipeline take their time, and the device waits. Keras' own
    `steps_per_execution` does the same on TensorFlow, but not on JAX, and it runs into the next epoch where
    the steps of an epoch do not divide by it. Inside a loop that XLA compiles for a processor each operation
    runs on one core: a step of convolutions is compiled by itself there, and `fit` has the loop.
    """

    def __init__(self, network: keras.Model, batch_size: int):
        """`network` is a functional model, whose layers, weights and dtype policy this one shares."""
        super().__init__(network.input, network.output, name=network.name)
        self.dtype_policy = network.dtype_policy  # with mixed_float16 `compile` adds the scaling of the loss
        self.batch_size = batch_size

    def train_step(self, *arguments):
        """Trains on a chunk: with (state, data) on JAX, which returns (logs, state), else with (data)."""
        *state, data = arguments
        batches = [
            keras.ops.reshape(part, (-1, self.batch_size, *part.shape[1:]))
            for part in data[:2]  # images and labels: there are no sample weights
        ]
        return self._scan(state[0], batches) if state else self._loop(batches)

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
