"""Sends submission.csv to the competition, records that in submissions.json, and looks up the score.

The message of a submission ends with a key: the first eight digits of the SHA-256 of submission.csv. Kaggle's list of
submissions is searched for it, so the same bytes are recognized even if Kaggle's answer or our record was lost.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from digit_recognizer.data import digits, paths
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, read_json, reading, write_json
from digit_recognizer.kaggle.client import NotDoneError, connect, kaggle_request, poll, redacted
from digit_recognizer.results.ensemble import read_ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import covered_rows, load_oof
from digit_recognizer.runs.plan import check_data

LOW_ACCURACY = 0.9  # out of fold; submit.py asks before it sends a run below it


@dataclass(frozen=True)
class Submission:
    """An entry of submissions.json. It is written before anything is sent, and removed if Kaggle refuses it."""

    time: str  # UTC, when the sending began
    competition: str
    sha256: str  # of submission.csv
    message: str  # with the key at its end
    out_of_fold_accuracy: float
    ref: int | None = None  # Kaggle's number of the submission; None if it is not known to have arrived
    status: str = "pending"  # as Kaggle says: then complete or error
    public_score: float | None = None
    error: str | None = None  # why Kaggle cannot score it

    @property
    def key(self) -> str:
        """The end of the message."""
        return f"[{self.sha256[:8]}]"

    def __str__(self) -> str:
        """Returns the score beside the run's own accuracy, or why there is no score."""
        if self.status == "error":
            return f"Kaggle could not score it: {self.error}"
        if self.status == "pending":
            return "no score yet" if self.ref else "not known whether it reached Kaggle"
        if self.public_score is None:
            return "public score not shown by Kaggle"
        difference = self.public_score - self.out_of_fold_accuracy
        accuracy = f"out-of-fold accuracy {self.out_of_fold_accuracy:.5f} ({difference:+.5f})"
        return f"public score {self.public_score}, {accuracy}"


def submit(
    locations: paths.Locations,
    competition: str,
    message: str | None = None,
    seconds: float = 0,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Checks the submission.csv of the run of `locations`, sends it, waits for its score and prints it.

    `message` is what Kaggle shows; None: made of the run. `seconds` are waited for the score at most. If there are
    doubts, a person is asked on a terminal; `yes` sends all the same, `dry_run` does everything but send. Raises
    UserError if the file is not the run's, the run is not of this data, there are doubts, or Kaggle refuses it or
    cannot score it.
    """
    run = Run(locations.output)
    with nullcontext() if dry_run else run.lock():
        submission = _prepare(run, digits.load(locations.input), competition, message)
        print(f"message: {submission.message}", flush=True)
        if dry_run:
            print("\n".join([*_doubts(submission, read_submissions(run)), "--dry-run: nothing is sent"]))
            return
        _send(run, submission, yes)
    for submission in look_up_scores(run, seconds)[-1:]:
        if submission.status == "error":
            raise UserError(f"{submission} (see https://www.kaggle.com/competitions/{competition}/submissions)")


def _prepare(run: Run, dataset: Dataset, competition: str, message: str | None) -> Submission:
    """Checks that submission.csv is the run's and of this data, and returns its entry for submissions.json."""
    if dataset.kind != "competition":
        raise UserError(f"{dataset.kind} data is never sent: run scripts/download.py, or give the run's --input")
    settings, advice = check_data(run, dataset), "run python scripts/ensemble.py again"
    with reading(run.submission, advice):
        digest = sha256(run.submission.read_bytes()).hexdigest()
    if read_json(run.ensemble_json, advice).get("submission_sha256") != digest:
        raise UserError(f"{run.submission} is not the file that scripts/ensemble.py wrote: {advice}")
    oof = load_oof(run.oof_probabilities, len(dataset.train_labels))
    accuracy = float((oof.argmax(axis=1) == dataset.train_labels)[covered_rows(oof)].mean())
    weights, missing = read_ensemble(run)
    parts = [settings["name"], f"{len(weights)} members"]
    parts += [f"{len(missing)} not finished"] if missing else []
    parts += [f"seed {settings['seed']}"] if "seed" in settings else []  # a blend has none
    parts += [f"out-of-fold accuracy {accuracy:.5f}"]
    parts += [f"commit {settings['commit']}"] if settings.get("commit") else []
    print(f"{run.submission}: {len(dataset.ids)} rows, as scripts/ensemble.py wrote them for this data")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    submission = Submission(now, competition, digest, message or ", ".join(parts), accuracy)
    return replace(submission, message=f"{submission.message} {submission.key}")


def _doubts(submission: Submission, earlier: Sequence[Submission]) -> list[str]:
    """Returns why a person should decide: a low accuracy, or earlier submissions of the same bytes."""
    accuracy, same = submission.out_of_fold_accuracy, (submission.sha256, submission.competition)
    sent = [entry for entry in earlier if (entry.sha256, entry.competition) == same]
    doubts = [f"the out-of-fold accuracy is only {accuracy:.5f}"] if accuracy < LOW_ACCURACY else []
    return doubts + [f"the same bytes were sent to {entry.competition} at {entry.time}: {entry}" for entry in sent]


def _ask(question: str) -> bool:
    """Returns whether a person answers yes; without a terminal nobody does."""
    if not sys.stdin.isatty() or not paths.on_terminal():
        return False
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _send(run: Run, submission: Submission, yes: bool) -> None:
    """Sends submission.csv and records it; the run's lock has to be held.

    If it is not known whether Kaggle received it, the record stays, and the key in the message tells later.
    """
    api, competition = connect(), submission.competition
    listed = {competition: _list_submissions(api, competition)}
    earlier = [_updated(entry, listed) for entry in read_submissions(run)]
    refs = {entry.ref for entry in earlier}
    for item in listed[competition]:  # the same bytes may have been sent from a copy of this run
        if item.ref not in refs and item.description.endswith(submission.key):
            earlier.append(_updated(replace(submission, time=f"{item.date} UTC"), {competition: [item]}))
    if earlier:
        write_submissions(run, earlier)
    doubts = "; ".join(_doubts(submission, earlier))
    if doubts and not yes and not _ask(f"{doubts}: send {run.submission} all the same?"):
        raise UserError(f"{run.submission} is not sent, because {doubts}: --yes sends it all the same")
    write_submissions(run, [*earlier, submission])
    try:
        with kaggle_request(competition):
            answer = api.competition_submit(str(run.submission), submission.message, competition, quiet=True)
        if not answer.ref and not answer.message.lower().startswith("success"):  # the client does not raise
            raise NotDoneError(f"nothing is submitted ({redacted(answer.message)}): run the same command again")
    except NotDoneError:
        write_submissions(run, earlier)
        raise
    print(f"{run.submission} is sent to {competition}", flush=True)
    write_submissions(run, [*earlier, replace(submission, ref=answer.ref or None)])


def read_submissions(run: Run) -> list[Submission]:
    """Returns the entries of submissions.json, the oldest first; raises UserError if the file is damaged."""
    path, advice = run.submissions_json, "move it away"
    entries = read_json(path, advice, list) if path.exists() else []
    with reading(path, advice):
        submissions = [Submission(**entry) for entry in entries]
        [f"{entry} {entry.key}" for entry in submissions]  # raises if a value has a wrong type
    return submissions


def write_submissions(run: Run, submissions: Sequence[Submission]) -> None:
    """Writes submissions.json; the run's lock has to be held."""
    write_json(run.submissions_json, [asdict(submission) for submission in submissions])


def _list_submissions(api: Any, competition: str) -> list[Any]:
    """Returns the newest 100 submissions as Kaggle lists them, the newest first."""
    with kaggle_request(competition):
        return [item for item in api.competition_submissions(competition, page_size=100) or [] if item]


def _updated(submission: Submission, listed: dict[str, list[Any]]) -> Submission:
    """Returns the submission as the list of its competition has it: by its number, else the newest with its key."""
    for item in listed.get(submission.competition, ()) if submission.status == "pending" else ():
        if item.ref == submission.ref if submission.ref else item.description.endswith(submission.key):
            status = item.status.name.lower()
            score = float(item.public_score) if item.public_score and status == "complete" else None
            error = (redacted(item.error_description) or "no reason given") if status == "error" else None
            return replace(submission, ref=item.ref or None, status=status, public_score=score, error=error)
    return submission


def look_up_scores(run: Run, seconds: float) -> list[Submission]:
    """Waits for scores, `seconds` at most, records and prints all outcomes; raises UserError if nothing was sent."""
    submissions, listed = read_submissions(run), {}
    if not submissions:
        raise UserError(f"{run.submissions_json} records no submission: give --output, or leave --score out")
    if pending := {entry.competition for entry in submissions if entry.status == "pending"}:
        api = connect()

        def look() -> tuple[str, bool]:
            listed.update({competition: _list_submissions(api, competition) for competition in pending})
            latest = [_updated(entry, listed) for entry in submissions]
            waiting = [entry for entry in latest if entry.status == "pending" and entry.ref]
            return str(waiting[-1] if waiting else latest[-1]), not waiting

        poll(look, "the score", seconds)
        with run.lock():  # other processes may have written the run meanwhile
            submissions = [_updated(entry, listed) for entry in read_submissions(run)]
            write_submissions(run, submissions)
    for entry in submissions:
        print(f"{entry.time}, {entry.competition}: {entry}", flush=True)
    if any(entry.status == "pending" for entry in submissions):
        print(f"python scripts/submit.py --score --output {run.folder} looks later")
    return submissions
