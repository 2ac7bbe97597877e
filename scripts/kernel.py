"""Packs the project as a Kaggle kernel, pushes it, waits for its end and fetches its output.

Options of train.py come last, after --, such as: -- --folds 10 --time-budget 11h
"""

from pathlib import Path

from _src import cli

from digit_recognizer.data import paths
from digit_recognizer.kaggle import packing


def main() -> None:
    parser = cli.Parser(__doc__, places=False)
    add = parser.add_argument
    cli.add_competition_option(parser)
    add("--title", default="Digit Recognizer k-fold ensemble", help="the kernel's (default: %(default)s)")
    add("--owner", metavar="NAME", help="your name at Kaggle (default: as the client knows it)")
    add("--accelerator", choices=packing.ACCELERATORS, default="t4x2", help="(default: %(default)s)")
    add("--internet", action="store_true", help="let the session use the internet, which nothing here needs")
    add("--previous", metavar="OWNER/KERNEL", help="go on from the output of an earlier kernel")
    add("--notebook", action="store_true", help="pack a notebook that ends with the report, not a script")
    add("--pack-only", action="store_true", help="leave the packed kernel to look at, and push nothing")
    add("--no-wait", action="store_true", help="push, and neither wait nor fetch")
    add("--fetch", action="store_true", help="push nothing: wait for the kernel that is at Kaggle, and fetch")
    add("--output", metavar="DIR", type=Path, help="for the kernel and its output (default: output/kernel)")
    add("options", metavar="OPTION", nargs="*", help="options of train.py")
    options = parser.parse_args()
    if options.fetch and (options.pack_only or options.no_wait):
        parser.error("--fetch waits for a kernel that is at Kaggle: leave out --pack-only and --no-wait")
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.kaggle import kernel

    packed = packing.Kernel(
        owner=options.owner or ("OWNER" if options.pack_only else kernel.owner_name()),
        title=options.title,
        competition=options.competition,
        accelerator=options.accelerator,
        internet=options.internet,
        previous=options.previous,
        notebook=options.notebook,
    )
    training_options = packing.training_options(options.options, bool(options.previous))
    folder = paths.output_folder(options.output, "kernel")
    if options.fetch:
        kernel.wait_and_fetch(folder, packed.metadata()["id"])
        return
    kernel.pack_and_run(
        folder, packed, training_options, push=not options.pack_only, wait=not options.no_wait
    )


if __name__ == "__main__":
    cli.main(
        main, kept="a kernel that is pushed goes on at Kaggle: --fetch waits for it and fetches its output"
    )
