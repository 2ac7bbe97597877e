"""submit.py, and what Kaggle's answers become, through the real kaggle client against a stand-in server."""

import hashlib
import io
import re
import signal
import sys

import numpy as np
import pytest
from conftest import finish, read_until, start
from kaggle_server import KEY, PAGE, SIGNATURE, refused

from digit_recognizer import cli, recipes
from digit_recognizer.data import paths
from digit_recognizer.files import read_json, write_json
from digit_recognizer.kaggle.submissions import Submission, write_submissions
from digit_recognizer.runs.directory import Run


@pytest.fixture
def run(dataset, csvs, recipe, tmp_path):
    """A run directory as ensemble.py leaves it, with one of 80 rows predicted wrong."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    data = {"data": dataset.kind, "fingerprint": dataset.fingerprint}
    write_json(run.recipe_json, recipes.to_json(recipe) | data | {"commit": "abc1234"})
    oof = np.eye(10, dtype=np.float32)[dataset.train_labels]
    oof[0] = np.roll(oof[0], 1)
    np.save(run.oof_probabilities, oof)
    lines = [",".join(dataset.columns), *(f"{id},{row % 10}" for row, id in enumerate(dataset.ids))]
    run.submission.write_text("\n".join(lines) + "\n")
    members = [{"member": name, "weight": 0.5} for name in ("fold_00", "fold_01")]
    write_json(run.ensemble_json, {"members": members, "missing": [], "submission_sha256": digest(run)})
    return run


def digest(run) -> str:
    return hashlib.sha256(run.submission.read_bytes()).hexdigest()


def records(run) -> list[dict]:
    return read_json(run.submissions_json, kind=list)


@pytest.fixture
def submit(call, run, csvs):
    """Runs submit.py on the run."""
    return lambda *options: call("submit", "--input", csvs, "--output", run.folder, *options)


def test_a_submission_and_its_score(server, submit, run):
    outcome = submit()
    assert (outcome.code, outcome.error) == (0, ""), outcome
    [record] = records(run)
    message = f"bn_cnn, 2 members, seed 42, out-of-fold accuracy 0.98750, commit abc1234 [{digest(run)[:8]}]"
    assert record["message"] == message and f"message: {message}" in outcome.out
    assert server.submissions[0]["description"] == message
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["time"])
    assert record | {"time": "", "message": ""} == {
        "time": "",
        "competition": "digit-recognizer",
        "sha256": digest(run),
        "message": "",
        "out_of_fold_accuracy": 0.9875,
        "ref": 101,
        "status": "complete",
        "public_score": 0.99571,
        "error": None,
    }
    assert "public score 0.99571, out-of-fold accuracy 0.98750 (+0.00821)" in outcome.out
    states = re.findall(r"^waiting for the score, \d+ s: (.*)$", outcome.out, re.MULTILINE)
    assert states == ["no score yet", outcome.out.splitlines()[-1].partition("digit-recognizer: ")[2]]
    assert server.asked_for("blob")[0][1] == run.submission.read_bytes()
    texts = outcome.out + outcome.error + "".join(path.read_text() for path in run.folder.glob("*.json"))
    assert KEY not in texts and SIGNATURE not in texts


def test_the_daily_limit(server, submit, run):
    server.faults["CreateSubmission"] = (400, "Your team has used its submission allowance (5 of 5).")
    assert refused(submit(), "daily limit of digit-recognizer", "until 00:00 UTC", "allowance (5 of 5)")
    assert records(run) == []
    server.faults = {}
    assert submit().code == 0  # what was refused was not sent
    assert [record["status"] for record in records(run)] == ["complete"]


@pytest.mark.parametrize("put_status", [500, 403, None])
def test_an_upload_that_failed_is_an_error_though_the_client_does_not_raise(server, submit, run, put_status):
    server.put_status = put_status
    assert refused(submit(), "nothing is submitted", "Could not submit to competition")
    assert not server.asked_for("CreateSubmission") and records(run) == []
    server.put_status, server.answer = 200, {"message": "The competition is over", "ref": 0}
    assert refused(submit(), "nothing is submitted", "The competition is over")


def test_kaggle_cannot_score_it(server, submit, run):
    server.score = {"status": "ERROR", "errorDescription": "Submission must have\n28000 rows"}
    assert refused(submit(), "could not score it: Submission must have 28000 rows", f"{PAGE}/submissions")
    assert (records(run)[0]["status"], records(run)[0]["error"]) == ("error", "Submission must have 28000 rows")


def test_kaggle_does_not_tell_the_number(server, submit, run):
    """The submission is found by its key, and a score that Kaggle does not show is none."""
    server.answer = {"message": "Successfully submitted to Digit Recognizer"}
    server.score = {"status": "COMPLETE", "publicScore": ""}
    outcome = submit()
    assert outcome.code == 0 and "public score not shown by Kaggle" in outcome.out
    assert records(run)[0]["ref"] == 55


def test_no_score_in_time(server, submit, run):
    server.looks_until_scored = 10**6
    outcome = submit("--wait", "0.1s")
    later = f"submit.py --score --output {run.folder} looks later"
    assert outcome.code == 0 and later in outcome.out and records(run)[0]["status"] == "pending"
    assert submit("--competition", "another", "--no-wait").code == 0
    assert len(records(run)) == 2


def test_a_score_that_came_later(server, call, submit, run):
    assert refused(submit("--score"), "submissions.json records no submission")
    server.looks_until_scored = 10**6
    assert submit("--no-wait").code == 0
    assert "no score yet" in submit().error  # it was looked up, and is not sent again
    outcome = call("submit", "--score", "--no-wait", "--output", run.folder)  # needs no CSVs
    assert outcome.code == 0 and "digit-recognizer: no score yet" in outcome.out
    server.looks_until_scored = 0
    with run.lock():
        outcome = submit("--score")
        assert refused(outcome, "another process is writing") and "public score 0.99571" in outcome.out
    assert "(+0.00821)" in submit("--score").out
    assert (records(run)[0]["status"], records(run)[0]["public_score"]) == ("complete", 0.99571)
    server.asked = []
    assert "public score 0.99571" in submit("--score").out and not server.asked


def test_kaggle_is_away(server, submit, run):
    """What is sent is sent: while the score is waited for, a request may fail, but not the first one."""
    server.looks_until_scored = 2
    server.passing_faults = {"ListSubmissions": [None, None, (503, ""), (503, "")]}
    outcome = submit()
    assert outcome.code == 0 and "answers 503" in outcome.out and "public score 0.99571" in outcome.out
    server.faults["ListSubmissions"] = (503, "")
    assert refused(submit("--yes"), "answers 503")  # nothing is sent
    write_json(run.submissions_json, [records(run)[0] | {"status": "pending"}])
    assert refused(submit("--score"), "answers 503")
    assert len(server.submissions) == len(records(run)) == 1


def test_ctrl_c_while_it_waits(server, run, csvs):
    server.looks_until_scored = 10**6
    process = start("submit", "--input", csvs, "--output", run.folder)
    read_until(process, "waiting for the score")
    with run.lock():  # other processes may write the run meanwhile
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
    assert outcome.code == 130 and "what was sent is in submissions.json" in outcome.error
    assert "Traceback" not in outcome.error and records(run)[0]["status"] == "pending"


def test_a_run_that_is_being_written_or_of_other_data_is_not_sent(server, submit, run, csvs):
    with run.lock():
        assert refused(submit(), "another process is writing")
    lines = (csvs / "train.csv").read_text().splitlines()
    (csvs / "train.csv").write_text("\n".join([*lines[:-1], lines[1]]) + "\n")
    assert refused(submit(), "holds a run with fingerprint")
    assert not server.asked


def test_the_same_bytes_twice(server, submit, run):
    assert submit("--no-wait").code == 0
    assert refused(submit(), "is not sent, because the same bytes were sent", "--yes sends it all the same")
    assert len(server.submissions) == 1
    assert "the same bytes were sent" in submit("--dry-run").out
    assert submit("--no-wait", "--yes").code == 0
    assert submit("--no-wait", "--competition", "another", "--yes").code == 0
    assert [record["competition"] for record in records(run)] == ["digit-recognizer"] * 2 + ["another"]


def test_the_same_bytes_sent_from_another_copy_of_the_run(server, submit, run):
    """Kaggle's list has the key, and the record is made anew."""
    assert submit("--message", "mine").code == 0
    run.submissions_json.unlink()
    outcome = submit()
    assert refused(outcome, "is not sent", "2026-08-01 00:00:00", "public score 0.99571")
    assert len(server.submissions) == 1


@pytest.fixture
def low(run):
    """Ten of 80 rows of the run are wrong."""
    oof = np.load(run.oof_probabilities)
    oof[1:10] = np.roll(oof[1:10], 1, axis=1)
    np.save(run.oof_probabilities, oof)
    return oof


@pytest.mark.parametrize(("answer", "sent"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_a_person_on_a_terminal_is_asked(server, submit, low, monkeypatch, answer, sent):
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(paths, "on_terminal", lambda: True)
    outcome = submit("--no-wait")
    assert "the out-of-fold accuracy is only 0.87500: send" in outcome.out and "all the same? [y/N]" in outcome.out
    assert len(server.submissions) == sent and outcome.code == (0 if sent else 2), outcome


def test_a_low_accuracy(server, submit, run, low, dataset):
    oof = low
    words = "the out-of-fold accuracy is only 0.8"
    assert refused(submit(), "is not sent", words) and not server.submissions
    assert words in submit("--dry-run").out
    oof[10:] = np.nan  # rows that no member predicted do not count
    oof[:10] = np.eye(10)[dataset.train_labels[:10]]
    np.save(run.oof_probabilities, oof)
    assert "out-of-fold accuracy 1.00000" in submit().out


def test_a_dry_run_needs_no_client_and_no_credentials(submit, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle", None)
    before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    outcome = submit("--dry-run")
    assert outcome.code == 0 and "20 rows" in outcome.out and "--dry-run: nothing is sent" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before
    assert refused(submit(), "no Kaggle credentials")


def test_only_the_file_of_the_ensemble_is_sent(server, submit, run):
    """Not one from elsewhere, and none with a changed label."""
    text = run.submission.read_text()
    for other in (text.replace("\n1,0\n", "\n1,1\n"), text[:-5], ""):
        run.submission.write_text(other)
        assert refused(submit(), "submission.csv is not the file that scripts/ensemble.py wrote: run")
    run.submission.unlink()
    assert refused(submit(), "submission.csv is missing: run python scripts/ensemble.py")
    run.submission.write_text(text)
    run.ensemble_json.unlink()
    assert refused(submit(), "ensemble.json is missing: run python scripts/ensemble.py")
    assert not server.asked


def test_the_sample_is_never_sent(server, call, submit, run, tmp_path, monkeypatch):
    monkeypatch.setattr("digit_recognizer.data.paths.ROOT", tmp_path)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    words = ("sample data is never sent", "run scripts/download.py", "the run's --input")
    assert refused(call("submit", "--dry-run"), *words)
    outcome = call("submit", "--dry-run", "--output", run.folder)
    assert refused(outcome, *words)
    assert refused(submit("--dry-run", "--output", tmp_path / "none"), "holds no run (no recipe.json)")
    assert not server.asked


def test_messages(submit, run, recipe):
    """Of a blend, and of a run with members that are missing."""
    settings, file = read_json(run.recipe_json), read_json(run.ensemble_json)
    data = {name: settings[name] for name in ("data", "fingerprint")}
    write_json(run.recipe_json, data | {"name": "blend", "runs": ["a", "b"]})
    assert "message: blend, 2 members, out-of-fold accuracy 0.98750 [" in submit("--dry-run").out
    write_json(run.recipe_json, settings)
    write_json(run.ensemble_json, file | {"missing": ["fold_02"]})
    assert "message: bn_cnn, 2 members, 1 not finished, seed 42, out-of-fold" in submit("--dry-run").out


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((401, "Unauthenticated"), ("credentials of KAGGLE_USERNAME and KAGGLE_KEY", "settings/api")),
        ((403, "You must accept\nthe rules"), (f"accept its rules at {PAGE}/rules", "must accept the rules)")),
        ((404, "Not found"), ("no competition digit-recognizer (404)", "--competition")),
        ((407, ""), ("the proxy wants a password (407)",)),
        ((429, "Too many"), ("answers 429: try again later", "Too many")),
        ((503, ""), ("answers 503: try again later",)),
        ((418, "Teapot"), ("refuses the request (418)", "Teapot")),
    ],
)
def test_what_kaggle_refuses(server, call, submit, run, tmp_path, fault, words):
    server.faults = {"DownloadDataFiles": fault}
    assert refused(call("download", "--input", tmp_path / "input"), *words)
    assert not [*(tmp_path / "input").iterdir()]
    for method in ("ListSubmissions", "StartSubmissionUpload", "CreateSubmission"):
        server.faults = {method: fault}
        run.submissions_json.unlink(missing_ok=True)
        assert refused(submit(), *words)
        statuses = [record["status"] for record in records(run)] if run.submissions_json.exists() else []
        is_unknown = fault[0] >= 500 and method != "ListSubmissions"  # which comes before anything is sent
        assert statuses == ["pending"] * is_unknown


def test_durations(call):
    assert [cli.duration(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
    for text in ("", "10 m", "-1s", "ten"):
        words = f"argument --wait: {text!r} is not a duration such as 90s"
        assert refused(call("submit", f"--wait={text}"), words)


def full_disk(path):
    """Makes every later write of a file with this name fail."""
    path.with_name(f".{path.name}").symlink_to("/dev/full")


def test_a_full_disk_before_sending_sends_nothing(server, submit, run):
    full_disk(run.submissions_json)
    assert refused(submit(), "submissions.json", "No space left")
    assert not server.submissions and not server.asked_for("StartSubmissionUpload")


def test_a_full_disk_after_sending_loses_no_record(server, submit, run):
    """The record is there before anything is sent, and what came of it is looked up later."""
    server.on_submission = lambda: full_disk(run.submissions_json)
    outcome = submit()
    assert refused(outcome, "submissions.json", "No space left") and "is sent to" in outcome.out
    assert (records(run)[0]["status"], records(run)[0]["ref"]) == ("pending", None)
    server.looks_until_scored, server.on_submission = 0, None
    assert refused(submit(), "is not sent", "public score 0.99571")
    assert "public score 0.99571" in submit("--score").out
    assert len(server.submissions) == 1 and records(run)[0]["ref"] == 101


def test_a_submission_cut_while_it_was_sent(server, submit, run):
    sent = Submission("2026-08-01T00:00:00+00:00", "digit-recognizer", digest(run), "mine", 0.5)
    write_submissions(run, [sent])
    assert refused(submit(), "is not sent", "not known whether it reached Kaggle")  # it may still be on its way
    assert "not known whether it reached" in submit("--score").out
    assert submit("--no-wait", "--yes").code == 0
    assert len(server.submissions) == 1 and len(records(run)) == 2


def test_a_cut_submission_is_found_by_its_key(server, submit, run):
    server.faults["CreateSubmission"] = (502, "")
    assert refused(submit("--message", "mine"), "answers 502")
    [record] = records(run)
    assert (record["ref"], record["message"]) == (None, f"mine [{digest(run)[:8]}]")
    server.faults = {}
    others = [{"looks": 9, "description": f"another [{number:08}]"} for number in range(25)]
    server.submissions = [*others, {"looks": 9, "description": record["message"]}, *others]  # it had arrived
    assert "public score 0.99571" in submit("--score").out
    assert (records(run)[0]["status"], records(run)[0]["ref"]) == ("complete", 101)
