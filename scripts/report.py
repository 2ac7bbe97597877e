"""Tells what a run scored: a page for the browser, a table, cv_report.json and .csv, pictures; or compares several."""

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
        help="run directories to compare; the comparison goes into --output (default: the run in --output)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="while the training goes on: write the page anew after each epoch, until all folds are finished",
    )
    options = parser.parse_args()
    if options.runs and options.output is None:
        raise UserError("the comparison goes into a directory of its own: give --output DIR")
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits, paths
    from digit_recognizer.results.compare import format_comparison
    from digit_recognizer.results.comparison_page import write_comparison
    from digit_recognizer.results.report import format_report, write_report
    from digit_recognizer.results.watch import watch_comparison, watch_run
    from digit_recognizer.runs.directory import Run

    locations = paths.resolve(options.input, options.output)
    with locations.announced():
        run, dataset = Run(locations.output), digits.load(locations.input)
        runs = [Run(folder) for folder in options.runs]
        if options.watch:
            watch_comparison(run, runs, dataset) if runs else watch_run(run, dataset)
        elif runs:
            print(format_comparison(write_comparison(run, runs, dataset)))
            print(f"{run.report / 'index.html'}, runs.csv and pairs.csv beside it")
        else:
            print(format_report(write_report(run, dataset)))
            print(
                f"{run.report / 'index.html'}, {run.cv_report_json}, {run.cv_report_csv}, pictures in {run.report}"
            )


if __name__ == "__main__":
    cli.main(main)
