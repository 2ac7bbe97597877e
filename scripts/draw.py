"""Opens a page on this machine: draw a digit and see what the ensemble of a run says."""

from pathlib import Path

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__, has_paths=False)
    parser.add_argument("--output", metavar="DIR", type=Path, help="the run (default: output/run, else output/sample)")
    parser.add_argument("--port", metavar="N", type=int, default=0, help="of the page (default: a free one)")
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.inference.draw import serve
    from digit_recognizer.runs.directory import find_trained_run
    from digit_recognizer.training import backend

    backend.choose()
    serve(find_trained_run(options.output), options.port)


if __name__ == "__main__":
    cli.main(main, "the page is closed")
