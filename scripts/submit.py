"""Checks submission.csv of a run, sends it to Kaggle and waits for its score."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import command, competition, source, submission
from digit_recognizer.errors import UserError
from digit_recognizer.run import Run


def told(run: Run, name: str) -> bool:
    """Tells when the same bytes were sent to the competition; False where they were not."""
    record = competition.sent_before(run, name)
    if record is None:
        return False
    score = f", public score {record['public_score']}" if record["public_score"] is not None else ""
    print(f"the same bytes were sent to {name} at {record['time']}{score}", flush=True)
    return True


def confirm(run: Run) -> None:
    """Raises UserError unless the user wants the same bytes sent again."""
    try:
        answer = input("Send them again? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError(f"{run.submission} is not sent a second time: --yes sends it without asking")


def submit() -> None:
    parser = command.Parser(__doc__)
    command.add_competition_option(parser)
    parser.add_argument(
        "--message",
        metavar="TEXT",
        help="on Kaggle (default: recipe, folds, seed, out-of-fold accuracy, commit)",
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=command.duration,
        default="10m",
        help="for the score, at most, such as 90s (default: 10m)",
    )
    parser.add_argument("--no-wait", action="store_true", help="for the score")
    parser.add_argument("--yes", action="store_true", help="send the same bytes again without asking")
    parser.add_argument("--dry-run", action="store_true", help="do all but send")
    options = parser.parse_args()
    place = source.find(options.input, options.output)
    run = Run(place.output)
    competition.refuse_other_data(place, run)
    dataset = command.read_dataset(place)
    command.check_run(run, dataset)
    submission.check(run.submission, dataset)
    accuracy = competition.out_of_fold_accuracy(run, dataset)
    message = options.message or competition.default_message(run, accuracy)
    print(f"{run.submission}: {len(dataset.test.ids)} rows, as the competition takes them", flush=True)
    print(f"message: {message}", flush=True)
    if options.dry_run:
        told(run, options.competition)
        print(f"--dry-run: nothing is sent to {options.competition}")
        return
    with run.lock():
        if told(run, options.competition) and not options.yes:
            confirm(run)
        seconds = 0 if options.no_wait else options.wait
        competition.submit(run, options.competition, message, accuracy, seconds)


if __name__ == "__main__":
    command.main(
        submit, "what was sent is in submissions.json, and its score will be on the competition's page"
    )
