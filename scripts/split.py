"""Writes folds.csv: which rows of train.csv are validated in which fold."""

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__)
    cli.add_split_options(parser)
    options = parser.parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits, places, plan
    from digit_recognizer.run import Run

    place = places.resolve(options.input, options.output)
    with place.announced():
        plan.split(Run(place.output), digits.load_labels(place.input), cli.recipe_options(options))


if __name__ == "__main__":
    cli.main(main)
