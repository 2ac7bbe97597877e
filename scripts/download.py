"""Gets the competition's files from Kaggle into --input. The same command again goes on with a cut download."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import command, competition, source


def download() -> None:
    parser = command.Parser(__doc__)
    command.add_competition_option(parser)
    options = parser.parse_args()
    competition.download(options.competition, source.input_folder(options.input))


if __name__ == "__main__":
    command.main(download, "what has arrived is kept: the same command goes on with it")
