"""Tells what each fold and the whole ensemble scored: a table, cv_report.json, cv_report.csv, pictures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import command, source
from digit_recognizer import report as reports
from digit_recognizer.run import Run


def report() -> None:
    options = command.Parser(__doc__).parse_args()
    place = source.find(options.input, options.output)
    place.tell()
    run, dataset = Run(place.output), command.read_dataset(place)
    command.check_run(run, dataset)
    with run.lock():
        command.keep_dataset(place, dataset)
        print(reports.text(reports.write(run, dataset)))
    print(f"{run.cv_report_json}, {run.cv_report_csv}, pictures in {run.report}")
    place.tell()


if __name__ == "__main__":
    command.main(report)
