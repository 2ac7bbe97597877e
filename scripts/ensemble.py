"""Averages the finished folds of one run, or of several, into submission.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import command, source
from digit_recognizer import ensemble as ensembles
from digit_recognizer.errors import UserError
from digit_recognizer.run import Run, write_json


def ensemble() -> None:
    parser = command.Parser(__doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="*",
        help="run directories to blend into --output (default: the run there, or those below it)",
    )
    parser.add_argument(
        "--weights",
        choices=["equal", "oof"],
        default="equal",
        help="of the runs: every member the same, or those of the least out-of-fold log loss (default: equal)",
    )
    options = parser.parse_args()
    if options.runs and options.output is None:
        raise UserError("several runs are blended into a directory of their own: give --output DIR")
    place = source.find(options.input, options.output)
    place.tell()
    run = Run(place.output)
    runs = [Run(folder) for folder in options.runs] or run.below() or [run]
    dataset = command.read_dataset(place)
    predictions = [ensembles.predict(each, command.read_members(each, dataset), dataset) for each in runs]
    if options.weights == "oof":
        weights = ensembles.oof_weights(predictions, dataset.train.labels)
    else:
        weights = ensembles.equal_weights(predictions)

    with run.lock():
        if run not in runs:
            blend = {"name": "blend"} | command.identity(dataset)
            run.check_identity(blend)
            write_json(run.recipe_json, blend | {"runs": [str(each.folder) for each in runs]})
        command.keep_dataset(place, dataset)
        ensembles.write(run, dataset, predictions, weights)
    for each, prediction, weight in zip(runs, predictions, weights, strict=True):
        print(f"{each.folder}: {len(prediction.members)} members, weight {weight:.4f}")
        if prediction.missing:
            print(f"{each.folder}: not finished, and not in it: {', '.join(prediction.missing)}")
    print(f"{run.submission}: {len(dataset.test.ids)} rows")
    place.tell()


if __name__ == "__main__":
    command.main(ensemble)
