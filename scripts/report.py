"""Tells what a run scored: a page for the browser, a table, cv_report.json and .csv, pictures; or compares several."""

from pathlib import Path

from _src import cli

from digit_recognizer.data import digits, places
from digit_recognizer.errors import UserError
from digit_recognizer.results.compare import compare_runs, format_comparison, write_tables
from digit_recognizer.results.report import format_report, write_report
from digit_recognizer.run import Run


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="*",
        help="run directories to compare; the comparison goes into --output (default: the run in --output)",
    )
    options = parser.parse_args()
    if options.runs and options.output is None:
        raise UserError("the comparison goes into a directory of its own: give --output DIR")
    place = places.resolve(options.input, options.output)
    with place.announced():
        run, dataset = Run(place.output), digits.load(place.input)
        if options.runs:
            comparison = compare_runs([Run(folder) for folder in options.runs], dataset.labels)
            print(format_comparison(comparison))
            run.report.mkdir(parents=True, exist_ok=True)
            print(", ".join(map(str, write_tables(run.report, comparison))))
        else:
            print(format_report(write_report(run, dataset)))
            print(f"{run.cv_report_json}, {run.cv_report_csv}, pictures in {run.report}")


if __name__ == "__main__":
    cli.main(main)
