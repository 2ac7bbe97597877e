"""Trains the folds that are not finished yet, one network each. The same command again goes on.

Several recipes are trained on the same folds. Each has a run directory with its name in --output, and report.py compares
the runs.
"""

import argparse
import shlex
import time
from pathlib import Path

from _src import cli

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import paths
from digit_recognizer.files import UserError

BEGAN = time.monotonic()  # seconds; --time-budget counts from here


def parse() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    names = ", ".join(named_recipes.RECIPES)
    add(
        "--recipe",
        metavar="NAME",
        nargs="+",
        help=f"one, or several to compare, of: {names} (default: {named_recipes.DEFAULT})",
    )
    add("--list", action="store_true", help="list the recipes and their fields, and train nothing")
    add("--check", action="store_true", help="check the options and that the data is there, and train nothing")
    add(
        "--set",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="any field of the recipe (--list explains them)",
    )
    add("--fold", metavar="N", type=int, nargs="+", help="only these members, numbered from 0")
    cli.add_recipe_options(parser, "epochs", "batch_size", "folds", "repeats", "holdout", "seed")
    add(
        "--threads",
        metavar="T",
        type=int,
        help="for each fold (default: as many as the run was begun with, else its share of the cores)",
    )
    add("--workers", metavar="W", type=int, help="folds to train at once, on Ray (default: one on each GPU)")
    add("--address", metavar="ADDR", help="train on the Ray cluster of this machine: HOST:PORT of its head, or auto")
    add("--gpus-per-fold", metavar="G", type=float, help="such as 0.25 (default: all GPUs, shared out)")
    add("--add", metavar="DIR", type=Path, help="pictures in folders 0 to 9 that every fold learns from too")
    add(
        "--time-budget",
        metavar="TIME",
        type=cli.duration,
        default=float("inf"),
        help="stop before an epoch that, judged by the longest so far, would end after this time, such as 11h or 90m",
    )
    add("--resume-from", metavar="DIR", type=Path, help="go on from an earlier output, which stays as it is")
    add("--tensorboard", action="store_true", help="log each epoch for TensorBoard too, in --output/tensorboard")
    add("--overwrite", action="store_true", help="remove the run that is there and start anew")
    options = parser.parse_args()
    options.recipe = list(dict.fromkeys(options.recipe or [None]))
    for name in options.recipe:
        named_recipes.named(name or named_recipes.DEFAULT)
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: it must be at least 1")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: it must be at least 1")
    if (options.address or "").startswith("ray://"):
        raise UserError(
            f"--address {options.address}: Ray's client is not supported: run train.py on a machine of the cluster, "
            "with HOST:PORT or auto"
        )
    gpus = options.gpus_per_fold
    if gpus is not None and not (0 < gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise UserError(f"--gpus-per-fold {gpus:g}: it must be a part of one, such as 0.25, or a whole number")
    if gpus is not None and not (options.workers or options.address):
        raise UserError("--gpus-per-fold is for several folds at once: give --workers or --address too")
    if options.resume_from and options.overwrite:
        raise UserError("--resume-from goes on with a run, --overwrite begins anew: give one of them")
    if options.resume_from and len(options.recipe) > 1:
        raise UserError("--resume-from goes on with one run: give one --recipe, or none")
    return options


def main() -> None:
    options = parse()
    if options.list:
        print(named_recipes.listing())
        return
    fields = cli.recipe_options(options)
    if options.check:  # with the standard library alone: run_all.sh does so before it installs anything
        if not options.resume_from and not paths.output_folder(options.output).exists():  # a new run
            for name in options.recipe:
                recipes.change(named_recipes.named(name or named_recipes.DEFAULT), fields)
        paths.check(options.input, options.output)
        return
    # imported once the options are known to be good: --help and a mistake are answered at once
    from digit_recognizer.data import digits
    from digit_recognizer.runs.directory import Run, find_run
    from digit_recognizer.training import backend, session
    from digit_recognizer.training.cluster import ClusterOptions

    is_given = options.workers or options.address  # otherwise each GPU trains a fold
    training_options = session.TrainingOptions(
        fold_indices=options.fold,
        threads=options.threads,
        resume_from=find_run(options.resume_from) if options.resume_from else None,
        overwrite=options.overwrite,
        deadline=BEGAN + options.time_budget,
        tensorboard=options.tensorboard,
        cluster=ClusterOptions(options.workers, options.address, options.gpus_per_fold) if is_given else None,
    )
    backend.choose()
    locations = paths.resolve(options.input, options.output)
    with locations.announced():
        dataset = digits.load(locations.input, options.add)
        unfinished = session.train(locations.output, dataset, options.recipe, fields, training_options)
        if len(options.recipe) > 1:
            home, data = Run(locations.output), ["--input", str(options.input)] if options.input else []
            if runs := [str(run.folder) for run in home.child_runs()]:
                line = ["python", "scripts/report.py", *runs, *data, "--output", str(home.folder / "compared")]
                print(f"compare them: {shlex.join(line)}")
        if unfinished:
            names = ", ".join(str(member.folder.relative_to(locations.output)) for member in unfinished)
            print(
                f"the time budget is used up; not finished: {names}; {cli.same_command()} continues, or --resume-from"
            )


if __name__ == "__main__":
    cli.main(main, kept=f"every finished epoch is kept: {cli.same_command()} goes on")
