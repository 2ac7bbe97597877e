"""By how much a run's accuracy flatters where its epochs were chosen by the rows that score it."""

from typing import Any

import numpy as np
import pandas as pd


def count(folds: list[dict[str, Any]], histories: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Returns how many validated rows are wrong in the epochs that predict, in the last ones and in the best ones.

    The accuracies are history.csv's, without test-time augmentation. `chosen` counts the members that predict with
    another epoch than their last.

    Args:
        folds: lines of cv_report.json's `folds`.
        histories: of the members, by name, each as history.csv has it; members without an epoch are left out.
    """
    found = {"rows": 0, "chosen": 0, "predicting": 0, "last": 0, "best": 0}
    for fold in folds:
        if fold["member"] not in histories:  # a history.csv without a line
            continue
        accuracy = np.clip(np.nan_to_num(histories[fold["member"]]["val_accuracy"]), 0, 1)
        epoch = int(np.clip(fold["best_epoch"], 1, len(accuracy)))
        errors = np.rint((1 - accuracy) * fold["rows"]).astype(int)
        found["rows"] += fold["rows"]
        found["chosen"] += int(epoch < len(errors))
        for name, wrong in (("predicting", errors[epoch - 1]), ("last", errors[-1]), ("best", errors.min())):
            found[name] += int(wrong)
    return found


def describe(found: dict[str, int]) -> str:
    """Returns whether the choice of the epochs flatters; `found` is what `count` returns."""
    if not found["chosen"]:
        return (
            f"the last epochs predict: {found['last']} rows are wrong in them, each picture predicted once; "
            f"choosing the best ones by these rows would show {found['best']}"
        )
    return (
        f"the rows that score the members chose the epochs that predict, which flatters: {found['predicting']} rows "
        f"are wrong in these, {found['last']} in the last ones, each picture predicted once"
    )
