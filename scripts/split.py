"""Writes folds.csv: which rows of train.csv are validated in which fold."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from digit_recognizer import command, folds, source
from digit_recognizer.run import Run, atomic


def split() -> None:
    parser = command.Parser(__doc__)
    command.add_split_options(parser)
    options = parser.parse_args()
    place = source.find(options.input, options.output)
    place.tell()
    run = Run(place.output)
    recipe = command.make_recipe(place, run.settings(), None, command.given(options))
    dataset = command.read_dataset(place)
    table = folds.split(dataset.train.labels, recipe)
    with run.lock():
        run.check_identity(command.identity(dataset) | {"split": folds.fingerprint(table)})
        command.keep_dataset(place, dataset)
        with atomic(run.folds_csv) as file:
            folds.to_csv(file, table, dataset.train.labels)
    for repeat, column in enumerate(table.T):
        sizes = ", ".join(str(size) for size in np.bincount(column[column >= 0]))
        print(f"{run.folds_csv}: repeat {repeat}: {sizes} of {len(table)} rows validated in each fold")
    place.tell()


if __name__ == "__main__":
    command.main(split)
