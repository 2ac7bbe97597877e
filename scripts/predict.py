"""Reads a person's own pictures of digits, photographed, scanned or drawn, with the ensemble of a run."""

from pathlib import Path

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__, has_paths=False)
    add = parser.add_argument
    add("pictures", metavar="PICTURE", type=Path, nargs="+", help="of digits that stand apart; or a folder of pictures")
    add("--input", metavar="DIR", type=Path, help="not needed: a trained run predicts without its data")
    add("--output", metavar="DIR", type=Path, help="the run (default: output/run, else output/sample)")
    add("--save", metavar="FILE", type=Path, help="the picture to write (default: report/predictions.png)")
    add("--csv", metavar="FILE", type=Path, help="a table to write: file, number, box, digit, probabilities, notes")
    add("--json", action="store_true", help="the same as JSON on standard output; no picture without --save")
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.inference.recognize import print_predictions
    from digit_recognizer.runs.directory import find_trained_run
    from digit_recognizer.training import backend

    backend.choose()
    run = find_trained_run(options.output)
    print_predictions(run, options.pictures, options.save, options.csv, options.json)


if __name__ == "__main__":
    cli.main(main)
