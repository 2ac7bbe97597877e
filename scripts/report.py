"""Tells what each fold and the whole ensemble scored: a table, cv_report.json, cv_report.csv, pictures."""

from _src import cli

from digit_recognizer.data import digits, places
from digit_recognizer.results.report import format_report, write_report
from digit_recognizer.run import Run


def main() -> None:
    options = cli.Parser(__doc__).parse_args()
    place = places.resolve(options.input, options.output)
    with place.announced():
        run = Run(place.output)
        print(format_report(write_report(run, digits.load(place.input))))
        print(f"{run.cv_report_json}, {run.cv_report_csv}, pictures in {run.report}")


if __name__ == "__main__":
    cli.main(main)
