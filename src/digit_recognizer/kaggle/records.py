"""submissions.json of a run: a record of each submission, the first one first.

A record is written before its submission is sent, so that no fault afterwards can lose it. Its status is "sending"
until Kaggle has answered, then "pending" until there is a score, then "complete" or "error".
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.runs.directory import Run

Record = dict[str, Any]

UNDECIDED = ("sending", "pending")  # states that another look at Kaggle may change


def read_records(run: Run) -> list[Record]:
    """Returns the records of a run; raises UserError where the file is damaged."""
    if not run.submissions_json.exists():
        return []
    records = read_json(run.submissions_json, list)
    for number, record in enumerate(records, start=1):
        if not _is_record(record):
            raise UserError(f"{run.submissions_json} is damaged: entry {number} is no record: move it away")
    return records


def _is_record(value: Any) -> bool:
    try:
        datetime.fromisoformat(value["time"])
        texts = all(isinstance(value[name], str) for name in ("competition", "sha256", "message", "status"))
        number = value["out_of_fold_accuracy"] is None or isinstance(value["out_of_fold_accuracy"], float)
        return texts and number and {"ref", "public_score"} <= value.keys()
    except (TypeError, KeyError, ValueError, AttributeError):
        return False


def new_record(run: Run, competition: str, message: str, accuracy: float | None) -> Record:
    """Returns the record of a submission of the run's submission.csv that is about to be sent.

    `accuracy` is the run's, out of fold, or None where it has none.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "competition": competition,
        "sha256": sha256(run.submission),
        "message": message,
        "ref": None,
        "status": "sending",
        "public_score": None,
        "out_of_fold_accuracy": accuracy,
    }


def add_record(run: Run, record: Record) -> None:
    """Appends a record; the run's lock has to be held."""
    write_json(run.submissions_json, [*read_records(run), record])


def replace_record(run: Run, record: Record, updated: Record | None) -> None:
    """Puts `updated` in the place of `record`, or removes that; the run's lock has to be held."""
    records = [updated if each == record else each for each in read_records(run)]
    if records := [each for each in records if each is not None]:
        write_json(run.submissions_json, records)
    else:
        run.submissions_json.unlink(missing_ok=True)


def last_of_same_bytes(run: Run, competition: str) -> Record | None:
    """Returns the record of the last submission of the same bytes to the same competition, or None."""
    same = {"sha256": sha256(run.submission), "competition": competition}
    return next((record for record in reversed(read_records(run)) if same.items() <= record.items()), None)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
