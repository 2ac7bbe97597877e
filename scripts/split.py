"""Writes folds.csv: which rows of train.csv are validated in which fold."""

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__)
    cli.add_recipe_options(parser, "folds", "repeats", "holdout", "seed")
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits, paths
    from digit_recognizer.runs.directory import Run
    from digit_recognizer.runs.plan import split_rows

    locations = paths.resolve(options.input, options.output)
    with locations.announced():
        split_rows(Run(locations.output), digits.load(locations.input), cli.recipe_options(options))


if __name__ == "__main__":
    cli.main(main)
