"""Describes the data: shapes, labels, duplicates and leaks as text, digits as a picture."""

from _src import cli


def main() -> None:
    options = cli.Parser(__doc__).parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits, explore, paths
    from digit_recognizer.runs.directory import Run
    from digit_recognizer.runs.plan import check_data

    locations = paths.resolve(options.input, options.output)
    run = Run(locations.output)
    with locations.announced(), run.lock():
        dataset = digits.load(locations.input)
        if run.settings():
            check_data(run, dataset)
        explore.explore(dataset, run.explore)


if __name__ == "__main__":
    cli.main(main)
