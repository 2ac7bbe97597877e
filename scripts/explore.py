"""Shows what the data is: shapes, labels, duplicates and leaks as text, digits and their means as pictures."""

from _src import cli


def main() -> None:
    options = cli.Parser(__doc__).parse_args()
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits, explore, places
    from digit_recognizer.run import Run

    place = places.resolve(options.input, options.output)
    with place.announced():
        explore.explore(Run(place.output), digits.load(place.input))


if __name__ == "__main__":
    cli.main(main)
