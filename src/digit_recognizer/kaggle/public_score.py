"""The score that Kaggle shows of a submission: looked up, waited for, recorded, put into words."""

from datetime import UTC, datetime, timedelta
from typing import Any

from digit_recognizer.files import UserError
from digit_recognizer.kaggle.client import connect, filtered_output, kaggle_errors
from digit_recognizer.kaggle.polling import poll
from digit_recognizer.kaggle.records import UNDECIDED, Record, read_records, replace_record
from digit_recognizer.runs.directory import Run

_CLOCK_DIFFERENCE = timedelta(minutes=10)  # between Kaggle's clock and a well-kept one, at most
_WRONG_CLOCK = timedelta(hours=26)  # what a clock set to another time zone may be ahead
_DELAY = timedelta(minutes=2)  # after which Kaggle lists whatever has reached it
_LISTED = 100  # submissions that Kaggle lists at once, the newest first
_FEW = 20  # that it lists at least, where there are more


def look_up_scores(run: Run, seconds: float) -> None:
    """Prints the outcome of each submission in submissions.json, and waits for the scores still to come.

    Each is waited for `seconds` at most, and recorded. Raises UserError where nothing was sent.
    """
    records = read_records(run)
    if not records:
        raise UserError(f"{run.submissions_json} records no submission: give --output, or leave --score out")
    for record in records:
        found = update_record(run, record, seconds) if record["status"] in UNDECIDED else record
        if found:
            print(f"{found['time']}, {found['competition']}: {format_score(found)}", flush=True)


def update_record(run: Run, record: Record, seconds: float) -> Record | None:
    """Waits for a submission's score, and records what is found; others may write the run meanwhile.

    Returns the new record, or None where the submission never reached Kaggle: its record is removed then.
    """
    refs = {each["ref"] for each in read_records(run) if each["ref"]}
    found = wait_for_score(record, seconds, refs)
    begun = f"the submission to {record['competition']} that was begun at {record['time']}"
    words = format_score(found) if found else f"{begun} never reached Kaggle"
    try:
        with run.lock():
            replace_record(run, record, found)
    except (UserError, OSError) as error:
        raise UserError(f"{words}; that is not recorded: {error}") from None
    if found is None:
        print(words, flush=True)
    return found


def wait_for_score(record: Record, seconds: float, refs: set[int]) -> Record | None:
    """Returns a new record of a submission once it is scored, or of what is known when the time is up.

    None stands for a submission that did not reach Kaggle. `refs` are Kaggle's numbers of the run's submissions,
    as far as they are known.
    """
    api, found = connect(), record

    def look() -> tuple[str, bool]:
        nonlocal found
        found, state = look_up(api, found, refs)
        return state, found is None or found["status"] not in UNDECIDED

    poll(look, "the score", seconds)
    return found


def look_up(api: Any, record: Record, refs: set[int]) -> tuple[Record | None, str]:
    """Returns a submission's record with what Kaggle knows now, None if it knows none, and the state in words.

    A record without a number can't be of a submission whose number is in `refs`. A submission may be listed a
    little later than it is sent. One whose sending was cut, and which is not listed then, did not arrive; unless
    one with its message is listed with an earlier time: where our clock is wrong it may be that one, and only the
    user can tell.
    """
    try:
        with kaggle_errors(record["competition"]), filtered_output():
            found = api.competition_submissions(record["competition"], page_size=_LISTED) or []
    except UserError as error:  # the submission is at Kaggle all the same: the next look may succeed
        return record, str(error)
    found = [each for each in found if each is not None]
    listed = [each for each in found if record["ref"] or each.ref not in refs]
    ours = next((each for each in listed if _is_recorded(each, record)), None)
    if ours is None:
        if len(found) >= _FEW and all(_is_later(each, record) for each in found):
            return record, "not among the last ones that Kaggle lists"
        age = datetime.now(UTC) - datetime.fromisoformat(record["time"])
        if record["status"] != "sending" or age <= _DELAY:
            return record, "not listed yet"
        if any(_is_recorded(each, record, _WRONG_CLOCK) for each in listed):
            return record, "one of an earlier time has this message: is this machine's clock right?"
        return None, "never sent"
    record = record | {"ref": ours.ref or None, "status": ours.status.name.lower()}
    if record["status"] == "complete":
        record["public_score"] = _number(ours.public_score)
    if record["status"] == "error":
        record["error"] = " ".join(ours.error_description.split()) or "no reason given"
    return record, record["status"]


def _date(submission: Any) -> datetime:
    """When it was submitted; Kaggle's times are UTC and do not say so."""
    return submission.date.replace(tzinfo=UTC) if submission.date else datetime.now(UTC)


def _is_later(submission: Any, record: Record) -> bool:
    return _date(submission) > datetime.fromisoformat(record["time"])


def _is_recorded(submission: Any, record: Record, tolerance: timedelta = _CLOCK_DIFFERENCE) -> bool:
    """Whether that is the recorded submission, by its number, else by its message and time.

    Our clock may be ahead of Kaggle's by `tolerance`.
    """
    if record["ref"]:
        return submission.ref == record["ref"]
    recent = _date(submission) > datetime.fromisoformat(record["time"]) - tolerance
    return recent and submission.description == record["message"]


def _number(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def format_score(record: Record) -> str:
    """Returns a submission's score beside the run's own accuracy, or why it has none, in words."""
    if record["status"] == "error":
        return f"Kaggle could not score it: {record.get('error')}"
    if record["status"] == "sending":
        return "not known whether it reached Kaggle"
    if record["status"] == "pending":
        return "no score yet"
    score, accuracy = record["public_score"], record["out_of_fold_accuracy"]
    line = f"public score {'not shown by Kaggle' if score is None else score}"
    if accuracy is not None:
        line += f", out-of-fold accuracy {accuracy:.5f}"
    if accuracy is not None and isinstance(score, float):
        line += f" ({score - accuracy:+.5f})"
    return line
