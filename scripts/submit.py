"""Checks submission.csv of a run, sends it to Kaggle and waits for its score."""

from _src import cli


def main() -> None:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    cli.add_competition_option(parser)
    add("--message", metavar="TEXT", help="what Kaggle shows (default: recipe, members, seed, accuracy, commit)")
    add("--wait", metavar="TIME", type=cli.duration, default="10m", help="for the score at most (default: 10m)")
    add("--no-wait", action="store_true", help="do not wait for the score")
    add("--score", action="store_true", help="send nothing: look up the scores of what was sent")
    add("--yes", action="store_true", help="do not ask before the same bytes are sent again, or a run of low accuracy")
    add("--dry-run", action="store_true", help="do everything but send")
    options = parser.parse_args()
    # imported after the options are checked: --help and a mistake are answered at once
    from digit_recognizer.data import paths
    from digit_recognizer.kaggle import submissions
    from digit_recognizer.runs.directory import Run

    seconds = 0 if options.no_wait else options.wait
    if options.score:
        submissions.look_up_scores(Run(paths.output_folder(options.output)), seconds)
        return
    locations = paths.resolve(options.input, options.output)
    submissions.submit(
        locations, options.competition, options.message, seconds, yes=options.yes, dry_run=options.dry_run
    )


if __name__ == "__main__":
    cli.main(main, kept="what was sent is in submissions.json, and submit.py --score looks for its score later")
