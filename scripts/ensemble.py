"""Averages the finished folds of one run, or of several, into submission.csv."""

from pathlib import Path

from _src import cli

from digit_recognizer.files import UserError


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="*",
        help="run directories to blend into --output (default: the run in --output, or the runs of several recipes below it)",
    )
    parser.add_argument(
        "--weights",
        choices=["equal", "oof"],
        default="equal",
        help="equal: the same for all members; oof: for each run, for the lowest out-of-fold log loss (default: equal)",
    )
    options = parser.parse_args()
    if options.runs and options.output is None:
        raise UserError("a blend of several runs needs a directory of its own: give --output DIR")
    # imported after the options are checked, so that --help and a mistake are answered at once
    from digit_recognizer.data import digits, paths
    from digit_recognizer.results import ensemble
    from digit_recognizer.runs.directory import Run

    locations = paths.resolve(options.input, options.output)
    with locations.announced():
        run, dataset = Run(locations.output), digits.load(locations.input)
        runs = [Run(folder) for folder in options.runs] or run.child_runs() or [run]
        print(ensemble.format_blend(run, ensemble.blend(run, runs, dataset, options.weights)))


if __name__ == "__main__":
    cli.main(main)
