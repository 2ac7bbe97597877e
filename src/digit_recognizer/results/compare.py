"""Which of several runs is better, and how certain that is: paired comparisons of what they predict out of fold.

A pair is compared on the rows that both predicted. Two classifiers make mostly the same errors, so the difference
of their errors is known much better than the errors of either.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, poisson

from digit_recognizer.data.digits import Dataset
from digit_recognizer.recipes import format_value, settable_fields
from digit_recognizer.results.ensemble import Ensemble, average_members, open_ensemble, refuse_repetition
from digit_recognizer.results.evaluation import accuracy_interval
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import covered_rows, scores, wrong_rows

_RESAMPLES = 2000
_CHUNK = 50  # resamples at a time: 50 x 42,000 weights are 8 MB
_LEAST = np.finfo(float).eps  # a probability of 0 has no logarithm; scikit-learn clips at the same


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Comparison:
    """Several runs side by side. `compare_runs` describes the columns of the tables."""

    ensembles: dict[str, Ensemble]  # of the finished members of each run, by its name
    runs: pd.DataFrame
    pairs: pd.DataFrame  # in the order in which the runs were given


def compare_runs(runs: Sequence[Run], dataset: Dataset) -> Comparison:
    """Compares runs by their finished members; `ensemble.py` need not have run.

    The table `runs` has a line for each run, the most accurate first; `shared_...` are its scores on the rows that all
    runs predicted, and `differs_in` are the fields of its recipe in which not all runs agree. The table `pairs` has a
    line for each two runs, on the rows that both predicted; a difference is the second run's minus the first's. `low`
    and `high` are the ends of 95 % intervals: Wilson's for an accuracy, else percentiles of a Poisson bootstrap of the
    rows. `mcnemar_p` is exact, two-sided, and for this pair alone.

    Raises UserError if a run is given twice, is of other data, or has no finished member. Source: McNemar (1947);
    Dietterich, 'Approximate statistical tests for comparing supervised classification learning algorithms' (1998);
    Hanley and MacGibbon, 'Creating non-parametric bootstrap samples using Poisson frequencies' (2006).
    """
    refuse_repetition(runs)
    folders, labels = [run.folder.resolve() for run in runs], dataset.train_labels
    home = os.path.commonpath([folder.parent for folder in folders])
    names = [os.path.relpath(folder, home) for folder in folders]
    readers = [open_ensemble if is_blend(run.require_settings()) else average_members for run in runs]
    ensembles = {name: read(run, dataset) for name, read, run in zip(names, readers, runs, strict=True)}
    common = np.all([covered_rows(ensemble.oof) for ensemble in ensembles.values()], axis=0)
    table = pd.DataFrame([_line(ensemble, labels, common) for ensemble in ensembles.values()])
    table.insert(0, "run", names)
    table.insert(2, "differs_in", _differences([run.require_settings() for run in runs]))
    table = table.sort_values(["shared_errors", "shared_log_loss", "log_loss"])
    return Comparison(ensembles, table, _pairs(list(ensembles.values()), names))


def _differences(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Returns, for the contents of several recipe.json, the fields in which not all agree, as --set takes them."""
    table = pd.DataFrame(settings, dtype=object).reindex(columns=list(settable_fields()))
    table = table.map(format_value, na_action="ignore")
    table = table.loc[:, table.nunique() > 1]
    return [" ".join(f"{name}={value}" for name, value in line.dropna().items()) for _, line in table.iterrows()]


def _line(ensemble: Ensemble, labels: np.ndarray, common: np.ndarray) -> dict[str, Any]:
    """Returns a run's line of the table; `common`, bool (training rows,), marks the rows that all runs predict."""
    metrics, covered = [member.metrics() for member in ensemble.members], covered_rows(ensemble.oof)
    scored = scores(labels[covered], ensemble.oof[covered])
    shared = scores(labels[common], ensemble.oof[common]) if common.any() else {}
    return {
        "recipe": str(ensemble.run.require_settings().get("name", "")),
        "members": len(metrics) + len(ensemble.others),
        "finished": len(metrics),
        "members_per_row": sum(len(member.validation_rows) for member in ensemble.members) / scored["rows"],
        **scored,
        **{f"accuracy_{end}": value for end, value in accuracy_interval(scored["errors"], scored["rows"]).items()},
        "shared_rows": int(common.sum()),
        **{f"shared_{number}": shared.get(number) for number in ("errors", "log_loss")},
        "parameters": metrics[0].get("parameters"),
        "seconds_per_member": round(float(np.mean([values["seconds"] for values in metrics])), 1),
    }


def _pairs(ensembles: Sequence[Ensemble], names: Sequence[str]) -> pd.DataFrame:
    labels = ensembles[0].dataset.train_labels
    covered = np.array([covered_rows(ensemble.oof) for ensemble in ensembles])
    wrong = np.array([wrong_rows(ensemble.oof, labels) for ensemble in ensembles])
    of_label = np.array([ensemble.oof[np.arange(len(labels)), labels] for ensemble in ensembles], float)
    losses = -np.log(np.maximum(np.where(covered, of_label, 1), _LEAST))
    first, second = np.array(list(combinations(range(len(ensembles)), 2))).T
    both = covered[first] & covered[second]  # like errors and excess, (pairs, training rows)
    errors = (wrong[second].astype(float) - wrong[first]) * both
    excess = (losses[second] - losses[first]) * both
    error_ends, loss_ends = np.split(_bootstrap(np.vstack([both, both]), np.vstack([errors, excess])), 2)
    rows, only_first, only_second = both.sum(axis=1), (errors < 0).sum(axis=1), (errors > 0).sum(axis=1)
    discordant = zip(only_first.tolist(), only_second.tolist(), strict=True)
    columns = {
        "first": np.array(names)[first],
        "second": np.array(names)[second],
        "rows": rows,
        "errors_first": (wrong[first] & both).sum(axis=1),
        "errors_second": (wrong[second] & both).sum(axis=1),
        "error_difference": only_second - only_first,
        "error_difference_low": rows * error_ends[:, 0],
        "error_difference_high": rows * error_ends[:, 1],
        "wrong_only_in_first": only_first,
        "wrong_only_in_second": only_second,
        "mcnemar_p": [binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in discordant],
        "log_loss_difference": excess.sum(axis=1) / np.where(rows, rows, np.nan),
        "log_loss_difference_low": loss_ends[:, 0],
        "log_loss_difference_high": loss_ends[:, 1],
    }
    return pd.DataFrame(columns)


def _bootstrap(counted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the 95 % intervals, float (pairs, 2), of the means of `values` (pairs, rows) over the rows `counted`.

    Each resample weights the rows by Poisson numbers with mean 1. All pairs share the weights, so that the interval
    of a pair does not depend on the other runs of the comparison.
    """
    random = np.random.default_rng(0)
    counted, values = counted.T.astype(np.float32), values.T.astype(np.float32)
    # a table of 65,536 draws is five times as fast as random.poisson
    draws = poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1).astype(np.float32)
    means = []
    for _ in range(_RESAMPLES // _CHUNK):
        weights = draws[random.integers(0, 2**16, (_CHUNK, len(values)), np.uint16)]
        with np.errstate(invalid="ignore", divide="ignore"):  # a pair without a common row
            means.append((weights @ values) / (weights @ counted))
    return np.percentile(np.concatenate(means), [2.5, 97.5], axis=0).T


def format_comparison(comparison: Comparison) -> str:
    """Returns both tables as lines for a terminal; the fields that differ follow the table of runs."""
    table = comparison.runs
    numbers = table.drop(columns="differs_in").dropna(axis="columns", how="all")
    if (table["shared_rows"] == table["rows"]).all():
        numbers = numbers.drop(columns=["shared_rows", "shared_errors", "shared_log_loss"])
    fractions = [name for name in numbers if "accuracy" in name or "log_loss" in name]
    lines = ["Out of fold; the run with the fewest errors on the rows that all runs predicted is first:"]
    lines.append(numbers.to_string(index=False, na_rep="-", formatters=dict.fromkeys(fractions, "{:.5f}".format)))
    lines += [f"{line.run} differs in {line.differs_in}" for line in table.itertuples() if line.differs_in]
    lines.append("")
    for pair in comparison.pairs.itertuples():
        lines.append(f"{pair.second} against {pair.first}, {pair.rows} rows that both predicted:")
        if pair.rows:
            lines.append(
                f"  {pair.errors_second} errors against {pair.errors_first}: {pair.error_difference:+d} "
                f"({pair.error_difference_low:+.1f} to {pair.error_difference_high:+.1f}); McNemar p = "
                f"{pair.mcnemar_p:.3g}; log loss {pair.log_loss_difference:+.5f} "
                f"({pair.log_loss_difference_low:+.5f} to {pair.log_loss_difference_high:+.5f})"
            )
    lines.append("McNemar: exact, two-sided, for each pair alone; intervals: 95 %, bootstrap of the rows")
    return "\n".join(lines)
