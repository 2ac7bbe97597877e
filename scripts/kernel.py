"""Packs the project as a Kaggle kernel, pushes it, waits for its end and fetches its output.

Options of train.py come last, after --, such as: -- --folds 10 --time-budget 11h
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import cli
from digit_recognizer.data import places
from digit_recognizer.kaggle import kernel as kernels
from digit_recognizer.kaggle.client import connect

BUDGET = "11h"  # a session ends after 12


def owner() -> str:
    """The user's name at Kaggle, as the client knows it."""
    return connect().get_config_value("username")


def kernel() -> None:
    parser = cli.Parser(__doc__, places=False)
    add = parser.add_argument
    cli.add_competition_option(parser)
    add("--title", default="Digit Recognizer k-fold ensemble", help="the kernel's (default: %(default)s)")
    add("--owner", metavar="NAME", help="your name at Kaggle (default: as the client knows it)")
    add("--accelerator", choices=kernels.ACCELERATORS, default="t4x2", help="(default: %(default)s)")
    add("--internet", action="store_true", help="let the session use the internet, which nothing here needs")
    add("--previous", metavar="OWNER/KERNEL", help="go on from the output of an earlier kernel")
    add("--pack-only", action="store_true", help="leave the packed kernel to look at, and push nothing")
    add("--no-wait", action="store_true", help="push, and neither wait nor fetch")
    add(
        "--output",
        metavar="DIR",
        type=Path,
        help="for the packed kernel and what it makes (default: output/kernel)",
    )
    add("options", metavar="OPTION", nargs="*", help="options of train.py")
    options = parser.parse_args()
    folder = options.output or Path(os.path.relpath(places.ROOT / "output" / "kernel"))
    train = list(options.options)
    if "--time-budget" not in train:
        train += ["--time-budget", BUDGET]
    if options.previous:
        train += ["--resume-from", "/kaggle/input"]
    name = options.owner or ("OWNER" if options.pack_only else owner())
    metadata = kernels.describe(
        name, options.title, options.competition, options.accelerator, options.internet, options.previous
    )
    code = kernels.pack(folder, metadata, train)
    print(f"{code}: {code.stat().st_size:,} bytes; {folder / kernels.METADATA}: {metadata['id']}")
    if options.pack_only:
        return
    pushed = kernels.push(folder)
    if options.no_wait:
        print(f"look at it at https://www.kaggle.com/code/{pushed}")
        return
    kernels.follow(pushed)
    kernels.fetch(pushed, folder / "output")
    print(
        f"its output is in {folder / 'output'}; python scripts/submit.py --output {folder / 'output'} sends it"
    )


if __name__ == "__main__":
    cli.main(kernel, kept="the kernel goes on at Kaggle; its page shows it")
