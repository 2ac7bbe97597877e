"""Measures the program's speed beside that of the usual ways: a table, benchmark.json and benchmark.png.

Parts: a, training the tutorial's network; b, time to a validation accuracy of 0.9940 (long: only with --full
or --only b); c, augmentation; d, batch normalisation; e, reading the CSVs; f, predicting; g, how cost grows
with rows, members and epochs. PyTorch takes part in a, b and f where it is installed
(src/digit_recognizer/benchmark/requirements.txt) and Keras has the processor alone, as PyTorch has here.
"""

from pathlib import Path

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__, places=False)
    add = parser.add_argument
    add("--input", metavar="DIR", type=Path, help="where the competition's files are (default: input)")
    add(
        "--output",
        metavar="DIR",
        type=Path,
        help="where the results go (default: output/benchmark; with --quick output/benchmark_quick)",
    )
    chosen = parser.add_mutually_exclusive_group().add_argument
    chosen("--only", metavar="PARTS", help="such as a,c; what is there of others stays (default: all but b)")
    chosen("--full", action="store_true", help="all parts")
    add("--quick", action="store_true", help="tell whether it works: the numbers mean nothing")
    add("--threads", metavar="T", type=int, help="of the backend (default: the cores there are)")
    add("--torch-compile", action="store_true", help="torch.compile takes part too; it may end the process")
    add("--seeds", metavar="S", type=int, nargs="+", default=[42, 43, 44], help="of b; measured ones stay")
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.benchmark.parts import PARTS, USUAL, choose_parts, run_benchmark

    parts = list(PARTS) if options.full else choose_parts(options.only or USUAL)
    amount = {name: getattr(options, name) for name in ("seeds", "threads", "quick", "torch_compile")}
    run_benchmark(options.input, options.output, parts, **amount)


if __name__ == "__main__":
    cli.main(main, "each part that ended, of b each seed, is in benchmark.json: --only takes what is left")
