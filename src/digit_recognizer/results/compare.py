"""Which of several runs is better, and how sure that is: paired comparisons of what they predict out of fold.

A pair is compared on the rows that both predicted. Two classifiers of the same rows make mostly the same
errors, so the difference of their errors is known much better than the errors of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, poisson

from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.scores import scores
from digit_recognizer.files import UserError
from digit_recognizer.results.analysis import wilson_interval
from digit_recognizer.results.ensemble import read_members, refuse_repetition
from digit_recognizer.results.out_of_fold import covered_rows, load_oof, out_of_fold, wrong_rows
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import Member

_RESAMPLES = 2000
_CHUNK = 50  # resamples at a time: 50 x 42,000 weights are 8 MB
_LEAST = np.finfo(float).eps  # a probability of 0 has no logarithm; scikit-learn clips at the same


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs side by side. `compare_runs` tells what the columns of the tables are."""

    names: list[str]  # of the runs, all different
    runs: pd.DataFrame
    pairs: pd.DataFrame
    members: list[list[Member]]  # of each run
    probabilities: np.ndarray  # float32 (runs, training rows, 10), out of fold, NaN where not predicted

    @property
    def is_finished(self) -> bool:
        """Whether no member of any run is left to train."""
        return all(member.is_finished for members in self.members for member in members)


def compare_runs(runs: Sequence[Run], dataset: Dataset) -> Comparison:
    """Compares runs by their finished members; `ensemble.py` need not have run.

    The table `runs` has a line for each run, the most accurate on the common rows first:
        members, finished: members of the run, and those that are finished.
        rows, errors, accuracy, low, high, log_loss: out of fold, on the rows that the run predicted;
            [low, high] is the 95 % interval of the accuracy (Wilson).
        per_row: members that predict a row, in the mean. More of them make fewer errors.
        common_rows, common_errors, common_log_loss: the same on the rows that all runs predicted.
        parameters: of one network. seconds: training of a member, in the mean.
    The table `pairs` has a line for each two runs `first` and `second`, on the rows that both predicted:
        rows, errors_first, errors_second.
        difference: errors of the second run minus errors of the first; low, high: its 95 % interval.
        only_first, only_second: rows that only this one has wrong.
        p: exact McNemar test that both err equally often, two-sided; for this pair alone.
        loss_difference, loss_low, loss_high: log loss of the second less that of the first, and its 95 %
            interval.
    Intervals of differences are percentiles of a Poisson bootstrap of the rows.

    Raises UserError where there are fewer than two runs, or one is of other data or has no finished member.
    Source: McNemar (1947); Dietterich, 'Approximate statistical tests for comparing supervised classification
    learning algorithms' (1998); Hanley and MacGibbon, 'Creating non-parametric bootstrap samples using Poisson
    frequencies' (2006).
    """
    if len(runs) < 2:
        raise UserError("a comparison takes two runs or more")
    refuse_repetition(runs)
    names = _names([run.folder for run in runs])
    members = [read_members(run, dataset) for run in runs]
    for run, own in zip(runs, members, strict=True):
        if not any(member.is_finished for member in own):
            raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    rows = len(dataset.train_labels)
    oof = np.stack(
        [
            load_oof(run, rows) if is_blend(run.require_settings()) else out_of_fold(own, rows)
            for run, own in zip(runs, members, strict=True)
        ]
    )
    lines = [_line(own, each, oof, dataset.train_labels) for own, each in zip(members, oof, strict=True)]
    table = pd.DataFrame(lines, index=pd.Index(names, name="run"))
    table.insert(0, "recipe", [str(run.require_settings().get("name", "")) for run in runs])
    table = table.sort_values(["common_errors", "common_log_loss", "log_loss"])
    return Comparison(names, table, _pairs(names, oof, dataset.train_labels), members, oof)


def _names(folders: list[Path]) -> list[str]:
    """As many last parts of each path as tell the paths, all different, apart."""
    paths = [folder.resolve() for folder in folders]
    count = 1
    while len({path.parts[-count:] for path in paths}) < len(paths):
        count += 1
    return [str(Path(*path.parts[-count:])) for path in paths]


def _line(
    members: list[Member], oof: np.ndarray, all_oof: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    finished = [member for member in members if member.is_finished]
    metrics = [member.metrics() for member in finished]
    parameters = metrics[0].get("parameters")
    covered, common = covered_rows(oof), np.all([covered_rows(each) for each in all_oof], axis=0)
    own = scores(labels[covered], oof[covered])
    shared = scores(labels[common], oof[common]) if common.any() else {}
    low, high = wilson_interval(own["rows"] - own["errors"], own["rows"])
    return {
        "members": len(members),
        "finished": len(finished),
        **{name: own[name] for name in ("rows", "errors", "accuracy")},
        "low": low,
        "high": high,
        "log_loss": own["log_loss"],
        "per_row": sum(len(member.validation_rows) for member in finished) / own["rows"],
        "common_rows": int(common.sum()),
        "common_errors": shared.get("errors"),
        "common_log_loss": shared.get("log_loss"),
        "parameters": parameters if isinstance(parameters, int) else None,
        "seconds": float(np.mean([each["seconds"] for each in metrics])),
    }


def _pairs(names: list[str], oof: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The table of pairs, in the order of `names`."""
    covered = np.array([covered_rows(each) for each in oof])
    wrong = np.array([wrong_rows(each, labels) for each in oof])
    right = np.array([each[np.arange(len(labels)), labels] for each in oof], np.float64)
    losses = -np.log(np.maximum(np.where(covered, right, 1), _LEAST))
    pairs = list(combinations(range(len(names)), 2))
    both = np.array([covered[a] & covered[b] for a, b in pairs])
    errors = np.array([wrong[b].astype(float) - wrong[a] for a, b in pairs]) * both
    excess = np.array([losses[b] - losses[a] for a, b in pairs]) * both
    error_intervals, loss_intervals = np.split(
        _bootstrap(np.tile(both, (2, 1)), np.vstack([errors, excess])), 2
    )
    lines = []
    for number, (a, b) in enumerate(pairs):
        shared = both[number]
        rows = int(shared.sum())
        only_first, only_second = int((errors[number] < 0).sum()), int((errors[number] > 0).sum())
        discordant = only_first + only_second
        lines.append(
            {
                "first": names[a],
                "second": names[b],
                "rows": rows,
                "errors_first": int(wrong[a][shared].sum()),
                "errors_second": int(wrong[b][shared].sum()),
                "difference": only_second - only_first,
                "low": rows * error_intervals[number, 0],
                "high": rows * error_intervals[number, 1],
                "only_first": only_first,
                "only_second": only_second,
                "p": binomtest(only_first, discordant).pvalue if discordant else 1.0,
                "loss_difference": excess[number].sum() / rows if rows else np.nan,
                "loss_low": loss_intervals[number, 0],
                "loss_high": loss_intervals[number, 1],
            }
        )
    return pd.DataFrame(lines)


def _bootstrap(counted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The 95 % intervals, float (pairs, 2), of the means of `values` (pairs, rows) over the rows `counted`.

    Each resample weighs each row by a Poisson number of mean 1; the same weights serve all pairs, so that a
    pair has the same interval whatever it is compared along with.
    """
    random = np.random.default_rng(0)
    counted, values = counted.T.astype(np.float32), values.T.astype(np.float32)
    # a table of 65,536 draws is ten times as fast as random.poisson
    draws = poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1).astype(np.float32)
    means = []
    for _ in range(_RESAMPLES // _CHUNK):
        weights = draws[random.integers(0, 2**16, (_CHUNK, len(values)), np.uint16)]
        with np.errstate(invalid="ignore", divide="ignore"):  # a pair without a common row
            means.append((weights @ values) / (weights @ counted))
    return np.percentile(np.concatenate(means), [2.5, 97.5], axis=0).T


def format_comparison(comparison: Comparison) -> str:
    """Returns both tables as lines for a terminal."""
    table, pairs = comparison.runs, comparison.pairs
    runs = pd.DataFrame(
        {
            "recipe": table["recipe"],
            "finished": [f"{a} of {b}" for a, b in zip(table["finished"], table["members"], strict=True)],
            "per row": table["per_row"].map("{:.1f}".format),
            "rows": table["rows"],
            "errors": table["errors"],
            "accuracy": table["accuracy"].map("{:.5f}".format),
            "95 %": [f"{a:.5f} to {b:.5f}" for a, b in zip(table["low"], table["high"], strict=True)],
            "log loss": table["log_loss"].map("{:.5f}".format),
            "common rows": table["common_rows"],
            "errors there": table["common_errors"].map("{:.0f}".format, na_action="ignore").fillna("-"),
            "s a member": table["seconds"].map("{:,.0f}".format),
        }
    )
    lines = [
        "Out of fold; the fewest errors on the rows that all runs predicted are first:",
        runs.to_string(),
        "",
    ]
    for pair in pairs.itertuples():
        lines.append(f"{pair.second} against {pair.first}, {pair.rows} rows that both predicted:")
        if pair.rows:
            lines.append(f"  {describe_pair(pair)}")
    lines.append("McNemar: exact, two-sided, for each pair alone; intervals: 95 %, bootstrap of the rows")
    return "\n".join(lines)


def describe_pair(pair: Any) -> str:
    """Returns what a line of the table of pairs says, in words; `pair` has its columns as attributes."""
    return (
        f"{pair.errors_second} errors against {pair.errors_first}: {pair.difference:+d} "
        f"({pair.low:+.1f} to {pair.high:+.1f}); only the second wrong {pair.only_second}, only the first "
        f"{pair.only_first}; McNemar p = {pair.p:.3g}; log loss {pair.loss_difference:+.5f} "
        f"({pair.loss_low:+.5f} to {pair.loss_high:+.5f})"
    )
