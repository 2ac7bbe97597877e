"""How a device trains and predicts, and the next simpler way if an accelerator fails."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from digit_recognizer.training import backend
from digit_recognizer.training.backend import XlaScope

_SMALLEST_BATCH = 256  # rows of a batch in prediction


@dataclass(frozen=True)
class Execution:
    """How a device trains and predicts."""

    xla_scope: XlaScope
    prediction_batch: int  # rows

    def simpler(self, error: Exception) -> "Execution | None":
        """Returns the next simpler way after `error`, or None. Needs `start`.

        If memory is short, that is half the prediction batch. Otherwise XLA compiles a step instead of an epoch, then
        nothing; JAX always compiles. A processor has no simpler way.
        """
        if backend.find_accelerator() is None:
            return None
        is_memory = re.search("resource_?exhausted|out of memory|MemoryError", f"{type(error).__name__}: {error}", re.I)
        if is_memory and self.prediction_batch > _SMALLEST_BATCH:
            return replace(self, prediction_batch=self.prediction_batch // 2)
        if self.xla_scope == "epoch":
            return replace(self, xla_scope="step")
        return replace(self, xla_scope="none") if (self.xla_scope, backend.name()) == ("step", "tensorflow") else None

    def to_json(self) -> dict[str, Any]:
        """Returns what recipe.json records, with the name of the device."""
        return {"device": backend.device_name()} | asdict(self)

    def __str__(self) -> str:
        compiled = {"epoch": "an epoch in one XLA call", "step": "a step in one XLA call", "none": "no XLA"}
        return f"{compiled[self.xla_scope]} and predictions of {self.prediction_batch} rows"


def recorded_execution(recorded: Any) -> Execution | None:
    """Returns the execution recorded in recipe.json, None if another device recorded it. Needs `start`."""
    batches = (_SMALLEST_BATCH << power for power in range(4))
    ways = (Execution(scope, batch) for batch in batches for scope in get_args(XlaScope))
    return next((way for way in ways if way.to_json() == recorded), None) if recorded else None
