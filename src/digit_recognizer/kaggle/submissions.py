"""A submission to a competition: checked, told what was sent before, sent, recorded."""

from datetime import UTC, datetime
from typing import Any

from digit_recognizer.data import digits, paths
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.paths import Locations
from digit_recognizer.data.scores import scores
from digit_recognizer.files import UserError
from digit_recognizer.kaggle.client import NotDoneError, connect, filtered_output, kaggle_errors, page
from digit_recognizer.kaggle.public_score import format_score, update_record
from digit_recognizer.kaggle.records import (
    UNDECIDED,
    Record,
    add_record,
    last_of_same_bytes,
    new_record,
    replace_record,
    sha256,
)
from digit_recognizer.results import submission
from digit_recognizer.results.ensemble import read_ensemble
from digit_recognizer.results.out_of_fold import covered_rows, load_oof
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import check_data


def submit(
    place: Locations,
    competition: str,
    message: str | None = None,
    *,
    seconds: float = 0,
    resend: bool = False,
    dry_run: bool = False,
) -> None:
    """Checks a run's submission.csv, sends it, waits for its score and prints it.

    Args:
        place: the data that the run was trained on, and the run directory.
        competition: the last part of its address on Kaggle.
        message: that Kaggle shows with the submission; None: made of the run.
        seconds: to wait for the score at most.
        resend: send bytes that were sent before without asking.
        dry_run: do all but send.

    Raises UserError where the competition would not take the file, Kaggle refuses it or can't score it, or the
    user does not want the same bytes sent again.
    """
    run = Run(place.output)
    refuse_other_data(place, run)
    dataset = digits.load(place.input)
    check_data(run, dataset)
    submission.check(run.submission, dataset)
    checked = sha256(run.submission)
    accuracy = out_of_fold_accuracy(run, dataset)
    message = message or default_message(run, accuracy)
    print(f"{run.submission}: {len(dataset.ids)} rows, as the competition takes them", flush=True)
    print(f"message: {message}", flush=True)
    sent = already_submitted(run, competition, look=not dry_run)
    if dry_run:
        print(f"--dry-run: nothing is sent to {competition}")
        return
    if sent and not resend:
        confirm_resending(run)
    with run.lock():
        if sha256(run.submission) != checked or last_of_same_bytes(run, competition) != sent:
            raise UserError(f"{run.folder} was written meanwhile: run the same command again")
        record = send(run, competition, message, accuracy)
    if seconds:
        record = update_record(run, record, seconds) or record
    _print_outcome(run, record)


def _print_outcome(run: Run, record: Record) -> None:
    outcome, own_page = format_score(record), page(record["competition"], "submissions")
    if record["status"] == "error":
        raise UserError(f"{outcome} (see {own_page})")
    if record["status"] == "pending":
        later = f"python scripts/submit.py --score --output {run.folder}"
        outcome += f": {later} looks later, and {own_page} shows it"
    print(outcome)


def refuse_other_data(place: Locations, run: Run) -> None:
    """Raises UserError where `run` is not of a competition's data, or there is no data to check it with."""
    data = (run.settings() or {}).get("data", "sample" if place.is_sample else None)
    what = {"sample": "the built-in sample", "mnist": "MNIST's own files"}.get(data)
    if what:
        raise UserError(
            f"{run.folder} is of {what}, which is never sent: get the competition's files with "
            "python scripts/download.py, train, and give --output where the run is not output/run"
        )
    if place.is_sample:
        raise UserError(
            f"there is no data to check {run.folder} with: get the competition's files with "
            "python scripts/download.py, or give the --input that it was trained on"
        )


def out_of_fold_accuracy(run: Run, dataset: Dataset) -> float | None:
    """Returns the accuracy over the rows that a member predicted; None without oof_probabilities.npy."""
    if not run.oof_probabilities.exists():
        return None
    oof = load_oof(run, len(dataset.train_labels))
    covered = covered_rows(oof)
    return scores(dataset.train_labels[covered], oof[covered])["accuracy"]


def default_message(run: Run, accuracy: float | None) -> str:
    """Returns recipe, folds, seed, out-of-fold accuracy of a run, and the commit it was begun with, in words."""
    settings = run.settings() or {}
    ensemble = read_ensemble(run)
    parts = [settings.get("name", "run")]
    if "runs" in settings:
        parts = [f"blend of {len(settings['runs'])} runs", f"{len(ensemble.weights)} members"]
    elif settings.get("holdout"):
        parts.append(f"holdout {settings['holdout']:g}")
    elif "folds" in settings:
        repeats = f" x {settings['repeats']}" if settings.get("repeats", 1) > 1 else ""
        parts.append(f"{settings['folds']} folds{repeats}")
    if ensemble.missing:
        parts.append(f"{len(ensemble.missing)} not finished")
    if "seed" in settings:
        parts.append(f"seed {settings['seed']}")
    if accuracy is not None:
        parts.append(f"out-of-fold accuracy {accuracy:.5f}")
    if settings.get("commit"):
        parts.append(f"commit {settings['commit']}")
    return ", ".join(parts)


def already_submitted(run: Run, competition: str, look: bool) -> Record | None:
    """Prints when the same bytes were sent to the competition; returns that record, or None.

    With `look`, Kaggle is asked for what the record leaves open.
    """
    record = last_of_same_bytes(run, competition)
    if record and look and record["status"] in UNDECIDED:
        record = update_record(run, record, 0) or last_of_same_bytes(run, competition)
    if record:
        sent = f"the same bytes were sent to {competition} at {record['time']}"
        print(f"{sent}: {format_score(record)}", flush=True)
    return record


def confirm_resending(run: Run) -> None:
    """Raises UserError unless the user wants the same bytes sent again; a notebook's cell can't be answered."""
    try:
        answer = "" if paths.in_notebook() else input("Send them again? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError(f"{run.submission} is not sent a second time: --yes sends it without asking")


def send(run: Run, competition: str, message: str, accuracy: float | None) -> Record:
    """Sends submission.csv, and returns its record in submissions.json; the run's lock has to be held.

    The record is there before anything is sent. It is removed where Kaggle has not taken the submission. Where
    that is not known, it stays, and a later look decides.

    Raises UserError where Kaggle does not take it, naming the daily limit if it is that.
    """
    api = connect()
    _check_limit(api, competition)
    record = new_record(run, competition, message, accuracy)
    add_record(run, record)
    try:
        ref = _upload(api, run, competition, message)
    except NotDoneError:
        replace_record(run, record, None)
        raise
    accepted = record | {"ref": ref, "status": "pending"}
    try:
        replace_record(run, record, accepted)
    except OSError as error:
        raise UserError(
            f"{run.submission} is sent to {competition}, but {run.submissions_json} can't be written "
            f"({error.strerror}): once that is mended, submit.py --score finds the submission and its score"
        ) from None
    left = _limits(api, competition)
    rest = f"; {left.num_allowed_now} left today" if left else ""
    print(f"{run.submission} is sent to {competition}{rest}", flush=True)
    return accepted


def _upload(api: Any, run: Run, competition: str, message: str) -> int | None:
    """Sends submission.csv, and returns Kaggle's number of the submission, None where it tells none."""
    alternative = f"; {page(competition, 'submissions')} shows what Kaggle has"
    with kaggle_errors(competition, alternative), filtered_output():
        answer = api.competition_submit(str(run.submission), message, competition, quiet=False)
    # the client does not raise where the upload fails: it answers so
    if not answer.ref and not answer.message.lower().startswith("success"):
        raise NotDoneError(
            f"the upload failed, and nothing is submitted (the client says: {answer.message}): "
            "try the same command again"
        )
    return answer.ref or None


def _limits(api: Any, competition: str) -> Any | None:
    """The submissions that are left, or None where the client or Kaggle does not know."""
    if not hasattr(api, "competition_get_submission_limits"):  # before 2.1
        return None
    try:
        with kaggle_errors(competition), filtered_output():
            limits = api.competition_get_submission_limits(competition)
    except UserError:  # sending does not need them
        return None
    # all are zero for someone who has not entered yet
    return limits if limits.num_allowed_now or limits.num_total else None


def _check_limit(api: Any, competition: str) -> None:
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
