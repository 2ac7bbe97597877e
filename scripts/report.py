"""Reports what a run scored, as a page, a table, cv_report.json and .csv and pictures, or compares several runs."""

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
        help="run directories to compare; the comparison is written to --output (default: report on the run in --output, "
        "or compare the runs of several recipes below it)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="write the page again after each epoch of a training, until all folds are finished",
    )
    options = parser.parse_args()
    if options.runs and options.output is None:
        raise UserError("a comparison needs a directory of its own: give --output DIR")
    # imported after the options are checked, so that --help and a mistake are answered at once
    from digit_recognizer.data import digits, paths
    from digit_recognizer.results.compare import format_comparison
    from digit_recognizer.results.page import write_comparison
    from digit_recognizer.results.report import format_report, next_steps, watch, write_report
    from digit_recognizer.runs.directory import Run

    locations = paths.resolve(options.input, options.output)
    with locations.announced():
        run, dataset = Run(locations.output), digits.load(locations.input)
        runs = [Run(folder) for folder in options.runs] or ([] if run.recipe_json.exists() else run.child_runs())
        if options.watch:
            watch(run, runs, dataset)
        elif runs:
            print(format_comparison(write_comparison(run, runs, dataset)))
            print(f"{run.report / 'index.html'}, with runs.csv and pairs.csv beside it")
        else:
            report = write_report(run, dataset)
            print(f"{format_report(report)}\n\n{next_steps(locations, dataset.kind, report)}")


if __name__ == "__main__":
    cli.main(main)
