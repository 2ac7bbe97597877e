"""Writes the ensemble of a run as one network that needs nothing of this project, and checks the file.

The network takes raw pixels and gives what predict.py computes: the weighted mean of the members' probabilities.
"""

from pathlib import Path

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__, has_paths=False)
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        type=Path,
        help="name.keras, name.tflite, name.onnx, or a name without ending: SavedModel",
    )
    add("--input", metavar="DIR", type=Path, help="not needed: a trained run is exported without its data")
    add("--output", metavar="DIR", type=Path, help="the run or blend (default: output/run, else output/sample)")
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.inference.export import export
    from digit_recognizer.runs.directory import find_trained_run

    export(find_trained_run(options.output), options.file)


if __name__ == "__main__":
    cli.main(main)
