"""Shows what the data is: shapes, labels, duplicates and leaks as text, digits and their means as pictures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import command, source
from digit_recognizer import explore as explorations
from digit_recognizer.run import Run


def explore() -> None:
    options = command.Parser(__doc__).parse_args()
    place = source.find(options.input, options.output)
    place.tell()
    run, dataset = Run(place.output), command.read_dataset(place)
    run.check_identity(command.identity(dataset))
    print(explorations.text(dataset), flush=True)
    print(f"pictures: {', '.join(map(str, explorations.write_pictures(dataset, run.explore)))}")
    place.tell()


if __name__ == "__main__":
    command.main(explore, kept="nothing is half written")
