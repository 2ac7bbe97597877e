"""Checks submission.csv of a run, sends it to Kaggle and waits for its score."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import cli
from digit_recognizer.data import places
from digit_recognizer.errors import UserError
from digit_recognizer.kaggle import client, submissions
from digit_recognizer.results import submission
from digit_recognizer.run import Run


def follow(run: Run, record: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Waits for a score that is still to come, and records it; others may write the run while it waits."""
    found = submissions.wait_for_score(record, seconds)
    try:
        with run.lock():
            submissions.keep(run, record, found)
    except UserError as error:
        raise UserError(f"{submissions.result(found)}; that is not recorded: {error}") from None
    return found


def look_again(run: Run, seconds: float) -> None:
    """Tells of every submission what came of it, and waits for the scores that are still to come."""
    records = submissions.sent(run)
    if not records:
        raise UserError(f"{run.submissions_json} records no submission: give --output, or leave --score out")
    for record in records:
        if record["status"] == "pending":
            record = follow(run, record, seconds)
        print(f"{record['time']}, {record['competition']}: {submissions.result(record)}", flush=True)


def told(run: Run, name: str, look: bool) -> bool:
    """Tells when the same bytes were sent to the competition; False where they were not.

    A score that was still to come is looked up, if `look`.
    """
    record = submissions.sent_before(run, name)
    if record is None:
        return False
    if look and record["status"] == "pending":
        record = follow(run, record, 0)
    print(f"the same bytes were sent to {name} at {record['time']}: {submissions.result(record)}", flush=True)
    return True


def confirm(run: Run) -> None:
    """Raises UserError unless the user wants the same bytes sent again; a notebook's cell can't be answered."""
    try:
        answer = "" if places.in_notebook() else input("Send them again? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError(f"{run.submission} is not sent a second time: --yes sends it without asking")


def submit() -> None:
    parser = cli.Parser(__doc__)
    cli.add_competition_option(parser)
    parser.add_argument(
        "--message",
        metavar="TEXT",
        help="on Kaggle (default: recipe, folds, seed, out-of-fold accuracy, commit)",
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=cli.duration,
        default="10m",
        help="for the score, at most, such as 90s (default: 10m)",
    )
    parser.add_argument("--no-wait", action="store_true", help="for the score")
    parser.add_argument("--score", action="store_true", help="send nothing: look up scores still to come")
    parser.add_argument("--yes", action="store_true", help="send the same bytes again without asking")
    parser.add_argument("--dry-run", action="store_true", help="do all but send")
    options = parser.parse_args()
    seconds = 0 if options.no_wait else options.wait
    if options.score:
        look_again(Run(places.output_folder(options.output)), seconds)
        return
    place = places.find(options.input, options.output)
    run = Run(place.output)
    submissions.refuse_other_data(place, run)
    dataset = cli.read_dataset(place)
    cli.check_run(run, dataset)
    submission.check(run.submission, dataset)
    accuracy = submissions.out_of_fold_accuracy(run, dataset)
    message = options.message or submissions.default_message(run, accuracy)
    print(f"{run.submission}: {len(dataset.test.ids)} rows, as the competition takes them", flush=True)
    print(f"message: {message}", flush=True)
    if options.dry_run:
        told(run, options.competition, look=False)
        print(f"--dry-run: nothing is sent to {options.competition}")
        return
    if told(run, options.competition, look=True) and not options.yes:
        confirm(run)
    with run.lock():
        record = submissions.submit(run, options.competition, message, accuracy)
    if seconds:
        record = follow(run, record, seconds)
    later = f"python scripts/submit.py --score --output {run.folder} looks later"
    page = client.page(options.competition, "submissions")
    if record["status"] == "error":
        raise UserError(f"{submissions.result(record)} (see {page})")
    print(
        submissions.result(record)
        + (f": {later}, and {page} shows it" if record["status"] == "pending" else "")
    )


if __name__ == "__main__":
    cli.main(submit, "what was sent is in submissions.json, and submit.py --score looks for its score later")
