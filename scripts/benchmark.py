"""Times the program beside the usual ways to do the same work: prints a table and writes benchmark.csv.

The parts are train (training steps, without validation), read (reading the CSVs), predict, submission (five folds of
`fast`, from the CSVs to submission.csv), and accuracy (training to a validation accuracy of 0.9940). The usual ways
are the tutorial's network as published in Keras, PyTorch if it is installed (pip install -r
src/digit_recognizer/benchmark/requirements.txt), and pandas.
"""

import argparse
from pathlib import Path

from _src import cli

from digit_recognizer.files import UserError
from digit_recognizer.recipes import check_value, did_you_mean, settable_fields

PARTS = ("train", "read", "predict", "submission", "accuracy")
SLOW = ("submission", "accuracy")  # up to an hour, on a processor or for each seed


def parse() -> argparse.Namespace:
    parser = cli.Parser(__doc__, has_paths=False)
    add = parser.add_argument
    add("--input", metavar="DIR", type=Path, help="folder of the competition's files (default: input)")
    add(
        "--output",
        metavar="DIR",
        type=Path,
        help="folder of benchmark.csv (default: output/benchmark; with --quick output/benchmark_quick)",
    )
    chosen = parser.add_mutually_exclusive_group().add_argument
    chosen(
        "--only",
        metavar="PARTS",
        help="measure these parts, such as train,read (default: all but submission and accuracy)",
    )
    chosen("--full", action="store_true", help="measure all parts; that can take hours")
    add("--quick", action="store_true", help="check that it works: the numbers mean nothing, the sample will do")
    add("--threads", metavar="T", type=int, help="number of threads (default: one for each core)")
    add(
        "--seeds",
        metavar="S",
        type=int,
        nargs="+",
        default=[42, 43, 44],
        help="seeds of accuracy; those that benchmark.csv has are not measured again (default: 42 43 44)",
    )
    options = parser.parse_args()
    chosen_parts = [part for part in PARTS if options.full or part not in SLOW]
    options.parts = options.only.split(",") if options.only else chosen_parts
    for part in options.parts:
        if part not in PARTS:
            raise UserError(f"--only {options.only}: unknown part {part!r}{did_you_mean(part, PARTS)}")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: it must be at least 1")
    for seed in options.seeds:
        check_value(settable_fields()["seed"], seed)
    return options


def main() -> None:
    options = parse()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.benchmark import run_benchmark
    from digit_recognizer.training import backend

    threads = options.threads or backend.cores()
    run_benchmark(options.input, options.output, options.parts, options.seeds, threads, options.quick)


if __name__ == "__main__":
    cli.main(main, "what was measured is in benchmark.csv: --only measures the other parts, and accuracy goes on")
