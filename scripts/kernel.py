"""Packs the project as a Kaggle notebook, pushes it, waits for its end and fetches its output.

Options of train.py come last, after --, such as: -- --folds 10 --time-budget 11h
"""

from pathlib import Path

from _src import cli

from digit_recognizer.data import paths
from digit_recognizer.kaggle import kernel


def main() -> None:
    parser = cli.Parser(__doc__, has_paths=False)
    add = parser.add_argument
    cli.add_competition_option(parser)
    add("--title", default="Digit Recognizer k-fold ensemble", help="the kernel's title (default: %(default)s)")
    add("--owner", metavar="NAME", help="your name at Kaggle (default: as the client knows it)")
    add("--accelerator", choices=kernel.ACCELERATORS, default="t4x2", help="(default: %(default)s)")
    add("--previous", metavar="OWNER/KERNEL", help="continue from the output of an earlier kernel")
    add("--pack-only", action="store_true", help="push nothing: pack the kernel, and say how to try it")
    add("--no-wait", action="store_true", help="push the kernel, but neither wait for its end nor fetch its output")
    add("--fetch", action="store_true", help="push nothing: wait for the kernel at Kaggle and fetch its output")
    add("--output", metavar="DIR", type=Path, help="for the kernel and its output (default: output/kernel)")
    add("options", metavar="OPTION", nargs="*", help="options of train.py")
    options = parser.parse_args()
    if options.fetch and (options.pack_only or options.no_wait):
        parser.error("--fetch waits for a kernel that is at Kaggle: leave out --pack-only and --no-wait")
    folder = paths.output_folder(options.output, "kernel")
    owner = options.owner or ("OWNER" if options.pack_only else None)
    metadata = kernel.make_metadata(owner, options.title, options.competition, options.accelerator, options.previous)
    if not options.fetch:
        kernel.pack(folder, metadata, options.options)
    if options.pack_only:
        print(kernel.next_steps(folder, metadata["id"]))
        return
    if not options.fetch:
        kernel.push(folder, metadata["id"])
    if not options.no_wait:
        kernel.wait_and_fetch(folder, metadata["id"])


if __name__ == "__main__":
    cli.main(main, kept="a kernel that is pushed goes on at Kaggle: --fetch waits for it and fetches its output")
