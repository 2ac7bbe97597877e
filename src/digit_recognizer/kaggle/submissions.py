"""A competition on Kaggle: its files, submissions to it, and their scores."""

import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from digit_recognizer.data import places
from digit_recognizer.data.digits import Labels
from digit_recognizer.data.places import Source
from digit_recognizer.errors import UserError
from digit_recognizer.files import commit, read_json, write_json
from digit_recognizer.kaggle.client import connect, page, speaking, telling
from digit_recognizer.run import Run

# Between two looks at a submission, in seconds: most are scored within ten, the rest may take minutes.
FIRST_PAUSE, LONGEST_PAUSE, BACK_OFF = 2.0, 30.0, 1.5

_CLOCKS = timedelta(minutes=10)  # by which Kaggle's and ours may differ


def refuse_other_data(place: Source, run: Run) -> None:
    """Raises UserError where `run` is not one of a competition, or nothing is there to check it with."""
    data = "sample" if place.is_sample else (run.settings() or {}).get("data")
    what = {"sample": "the built-in sample", "mnist": "MNIST's own files"}.get(data)
    if what:
        raise UserError(
            f"{run.folder} is of {what}, which is never sent: get the competition's files with "
            "python scripts/download.py, train, and give --output where the run is not output/run"
        )


def out_of_fold_accuracy(run: Run, labels: Labels) -> float | None:
    """Of the predictions that submission.csv is made of; None where the run has none of validated rows."""
    if not run.oof_probabilities.exists():
        return None
    try:
        oof = np.load(run.oof_probabilities, allow_pickle=False)
        covered = np.isfinite(oof).all(axis=1)
        right = oof[covered].argmax(axis=1) == labels.train[covered]
    except (ValueError, EOFError, IndexError):
        raise UserError(f"{run.oof_probabilities} is damaged: run scripts/ensemble.py again") from None
    return float(right.mean()) if covered.any() else None


def default_message(run: Run, accuracy: float | None) -> str:
    """What a submission is called: recipe, folds, seed, out-of-fold accuracy and the commit."""
    settings = run.settings() or {}
    ensemble = read_json(run.ensemble_json) if run.ensemble_json.exists() else {"members": [], "missing": []}
    parts = [settings.get("name", "run")]
    if "runs" in settings:
        parts = [f"blend of {len(settings['runs'])} runs", f"{len(ensemble['members'])} members"]
    elif settings.get("holdout"):
        parts.append(f"holdout {settings['holdout']:g}")
    elif "folds" in settings:
        repeats = f" x {settings['repeats']}" if settings.get("repeats", 1) > 1 else ""
        parts.append(f"{settings['folds']} folds{repeats}")
    if ensemble["missing"]:
        parts.append(f"{len(ensemble['missing'])} not finished")
    if "seed" in settings:
        parts.append(f"seed {settings['seed']}")
    if accuracy is not None:
        parts.append(f"out-of-fold accuracy {accuracy:.5f}")
    made_by = commit()
    return ", ".join(parts + ([f"commit {made_by}"] if made_by else []))


def sent(run: Run) -> list[dict[str, Any]]:
    """What submissions.json records, the first submission first."""
    return read_json(run.submissions_json, list) if run.submissions_json.exists() else []


def sent_before(run: Run, competition: str) -> dict[str, Any] | None:
    """The record of the last submission of the same bytes to the same competition, or None."""
    same = {"sha256": _hash(run.submission), "competition": competition}
    return next((record for record in reversed(sent(run)) if same.items() <= record.items()), None)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def submit(run: Run, competition: str, message: str, accuracy: float | None) -> dict[str, Any]:
    """Sends submission.csv, and returns what it records of that in submissions.json.

    Raises UserError where Kaggle does not take it, naming the daily limit if it is that.
    """
    api = connect()
    _check_limit(api, competition)
    record = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "competition": competition,
        "sha256": _hash(run.submission),
        "message": message,
        "ref": None,
        "status": "pending",
        "public_score": None,
        "out_of_fold_accuracy": accuracy,
    }
    with telling(competition, f"; {page(competition, 'submissions')} shows what Kaggle has"), speaking():
        answer = api.competition_submit(str(run.submission), message, competition, quiet=False)
    # the client does not raise where the upload fails: it answers so
    if not answer.ref and not answer.message.lower().startswith("success"):
        raise UserError(
            f"the upload failed, and nothing is submitted (the client says: {answer.message}): "
            "try the same command again"
        )
    record["ref"] = answer.ref or None
    write_json(run.submissions_json, [*sent(run), record])
    left = _limits(api, competition)
    print(
        f"{run.submission} is sent to {competition}"
        + (f"; {left.num_allowed_now} left today" if left else ""),
        flush=True,
    )
    return record


def _limits(api: Any, competition: str) -> Any | None:
    """How many submissions are left, or None where the client or Kaggle does not know."""
    if not hasattr(api, "competition_get_submission_limits"):  # before 2.1
        return None
    try:
        with telling(competition), speaking():
            limits = api.competition_get_submission_limits(competition)
    except UserError:  # that it can't be looked up is no reason not to send
        return None
    # all zeros are those of someone who has not entered yet
    return limits if limits.num_allowed_now or limits.num_total else None


def _check_limit(api: Any, competition: str) -> None:
    """Raises UserError if no submission is left."""
    limits = _limits(api, competition)
    if limits is None or limits.num_allowed_now:
        return
    if limits.limited_by_total:
        raise UserError(f"the limit of {competition} is reached: {limits.num_total} sent in all, 0 are left")
    now = datetime.now(UTC)
    minutes = 24 * 60 - now.hour * 60 - now.minute
    raise UserError(
        f"the daily limit of {competition} is reached: {limits.num_today} sent today, 0 are left until 00:00 UTC, "
        f"in {minutes // 60} h {minutes % 60} min"
    )


def wait_for_score(record: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What Kaggle says of a recorded submission once it is scored, or after so many seconds: a new record."""
    api = connect()
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    form = "waiting for the score |{bar}| {elapsed} of at most " + tqdm.format_interval(seconds)
    lines = not places.on_terminal()
    with tqdm(total=seconds, bar_format=form, disable=lines, leave=False) as bar:
        while True:
            record, state = _look(api, record)
            left = deadline - time.monotonic()
            if record["status"] != "pending" or left <= 0:
                return record
            if lines:
                print(f"waiting for the score: {state}, {tqdm.format_interval(left)} left", flush=True)
            wake = time.monotonic() + min(pause, left)
            while (rest := wake - time.monotonic()) > 0:
                time.sleep(min(rest, 0.5))  # so that the bar moves
                bar.n = min(seconds, seconds - deadline + time.monotonic())
                bar.refresh()
            pause = min(pause * BACK_OFF, LONGEST_PAUSE)


def _look(api: Any, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A submission's record with what Kaggle says of it now, and its state in words."""
    try:
        with telling(record["competition"]), speaking():
            listed = api.competition_submissions(record["competition"]) or []
    except UserError as error:  # what is sent is sent: the next look may be luckier
        return record, str(error)
    ours = next((each for each in listed if each is not None and _is_it(each, record)), None)
    if ours is None:
        return record, "not listed yet"
    record = record | {"ref": ours.ref or None, "status": ours.status.name.lower()}
    if record["status"] == "complete":
        record["public_score"] = _number(ours.public_score)
    if record["status"] == "error":
        record["error"] = " ".join(ours.error_description.split()) or "no reason given"
    return record, record["status"]


def _is_it(submission: Any, record: dict[str, Any]) -> bool:
    """True if that is the recorded submission, by its number, else by its message and time."""
    if record["ref"]:
        return submission.ref == record["ref"]
    # Kaggle's times are UTC and say nothing of it
    date = submission.date.replace(tzinfo=UTC) if submission.date else datetime.now(UTC)
    recent = date > datetime.fromisoformat(record["time"]) - _CLOCKS
    return recent and submission.description == record["message"]


def _number(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def keep(run: Run, record: dict[str, Any], found: dict[str, Any]) -> None:
    """Puts `found` in the place of `record` in submissions.json."""
    write_json(run.submissions_json, [found if each == record else each for each in sent(run)])


def result(record: dict[str, Any]) -> str:
    """A submission's score beside the run's own accuracy, or why it has none, in words."""
    if record["status"] == "error":
        return f"Kaggle could not score it: {record['error']}"
    if record["status"] == "pending":
        return "no score yet"
    score, accuracy = record["public_score"], record["out_of_fold_accuracy"]
    line = f"public score {'not shown by Kaggle' if score is None else score}"
    if accuracy is not None:
        line += f", out-of-fold accuracy {accuracy:.5f}"
    if accuracy is not None and isinstance(score, float):
        line += f" ({score - accuracy:+.5f})"
    return line
