"""Gets the competition's files from Kaggle into --input. The same command again goes on with a cut download."""

from _src import cli

from digit_recognizer.data import paths
from digit_recognizer.kaggle.client import download


def main() -> None:
    parser = cli.Parser(__doc__)
    cli.add_competition_option(parser)
    parser.add_argument(
        "--if-needed", action="store_true", help="do nothing where data is there, or where there is no way to get it"
    )
    options = parser.parse_args()
    if options.if_needed and not paths.needs_download(options.input):
        return
    download(options.competition, paths.input_folder(options.input))


if __name__ == "__main__":
    cli.main(main, kept="what has arrived is kept: the same command goes on with it")
