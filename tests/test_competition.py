"""submit.py, and what the client's words become, through the real kaggle client against a stand-in server."""

import base64
import errno
import io
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from conftest import finish, read_until, start
from kaggle_server import KEY, PAGE, SIGNATURE, forget_client, refused

from digit_recognizer import cli, recipes
from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.kaggle import client, public_score, records, submissions
from digit_recognizer.results import submission
from digit_recognizer.runs import plan
from digit_recognizer.runs.directory import Run


@pytest.fixture
def run(dataset, csvs, recipe, tmp_path):
    """A run directory as ensemble.py leaves it, with one of 80 rows predicted wrong."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_json(run.recipe_json, recipes.to_json(recipe) | plan.data_settings(dataset) | {"commit": "abc1234"})
    write_json(
        run.ensemble_json,
        {"members": [{"member": name, "weight": 0.5} for name in ("fold_00", "fold_01")], "missing": []},
    )
    oof = np.eye(10, dtype=np.float32)[dataset.train_labels]
    oof[0] = np.roll(oof[0], 1)
    np.save(run.oof_probabilities, oof)
    submission.write(run.submission, dataset, np.eye(10)[np.arange(20) % 10])
    return run


def test_a_submission_and_its_score(server, call, run, csvs):
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert (outcome.code, outcome.error) == (0, ""), outcome
    [record] = read_json(run.submissions_json, list)
    message = "bn_cnn, 2 folds, seed 42, out-of-fold accuracy 0.98750, commit abc1234"
    assert record["message"] == message and f"message: {message}" in outcome.out
    assert record | {"time": "", "sha256": "", "message": ""} == {
        "time": "",
        "competition": "digit-recognizer",
        "sha256": "",
        "message": "",
        "ref": 101,
        "status": "complete",
        "public_score": 0.99571,
        "out_of_fold_accuracy": 0.9875,
    }
    assert record["time"].endswith("+00:00") and len(record["sha256"]) == 64
    assert "public score 0.99571, out-of-fold accuracy 0.98750 (+0.00821)" in outcome.out
    assert "waiting for the score, 00:00 of at most 10:00: pending" in outcome.out
    assert server.asked_for("blob")[0][1] == run.submission.read_bytes()
    told = outcome.out + outcome.error + "".join(path.read_text() for path in run.folder.glob("*.json"))
    assert KEY not in told and SIGNATURE not in told


def test_a_submission_as_a_process(server, run, csvs):
    places = ("--input", csvs, "--output", run.folder)
    outcome = finish(start("submit", *places, "--message", "mine", VERBOSE="1"))
    assert (outcome.code, outcome.error) == (0, "") and "public score 0.99571" in outcome.out
    assert KEY not in outcome.out and "Authorization" not in outcome.out
    assert read_json(run.submissions_json, list)[0]["message"] == "mine"


def test_what_is_left_today_is_told(server, call, run, csvs):
    import kaggle

    outcome = call("submit", "--input", csvs, "--output", run.folder, "--no-wait")
    knows = hasattr(kaggle.api, "competition_get_submission_limits")
    assert ("4 left today" in outcome.out) == knows
    server.faults["GetSubmissionLimits"] = (500, "")  # no reason not to send
    assert call("submit", "--input", csvs, "--output", run.folder, "--no-wait", "--yes").code == 0


def test_the_daily_limit(server, call, run, csvs):
    import kaggle

    places = ("--input", csvs, "--output", run.folder)
    if hasattr(kaggle.api, "competition_get_submission_limits"):
        server.limits = {"numToday": 5, "numTotal": 9, "numAllowedNow": 0}
        assert refused(
            call("submit", *places), "daily limit", "5 sent today, 0 are left until 00:00 UTC, in "
        )
        server.limits |= {"limitedByTotal": True}
        assert refused(call("submit", *places), "9 sent in all, 0 are left")
        assert not server.asked_for("StartSubmissionUpload")
    server.limits = {}  # what one has who has not entered yet
    server.faults["CreateSubmission"] = (400, "Your team has used its submission allowance (5 of 5).")
    assert refused(call("submit", *places), "daily limit", "0 are left", "allowance (5 of 5)")
    assert not run.submissions_json.exists()


@pytest.mark.parametrize("put_status", [500, 403, None])
def test_an_upload_that_failed_is_an_error_though_the_client_does_not_raise(
    server, call, run, csvs, put_status
):
    server.put_status = put_status
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert refused(outcome, "the upload failed, and nothing is submitted", "Could not submit to competition")
    assert not server.asked_for("CreateSubmission") and not run.submissions_json.exists()


def test_an_answer_that_is_no_success(server, call, run, csvs):
    server.answer = {"message": "The competition is over", "ref": 0}
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert refused(outcome, "nothing is submitted", "The competition is over")


def test_kaggle_cannot_score_it(server, call, run, csvs):
    server.score = {"status": "ERROR", "errorDescription": "Submission must have\n28000 rows"}
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert refused(outcome, "could not score it: Submission must have 28000 rows", f"{PAGE}/submissions")
    record = read_json(run.submissions_json, list)[0]
    assert (record["status"], record["error"]) == ("error", "Submission must have 28000 rows")


def test_no_number_of_the_submission(server, call, run, csvs):
    """Found again by its message, and a score that Kaggle does not show is none."""
    server.answer = {"message": "Successfully submitted to Digit Recognizer"}
    server.score = {"status": "COMPLETE", "publicScore": ""}
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert outcome.code == 0 and "public score not shown by Kaggle, out-of-fold" in outcome.out
    assert read_json(run.submissions_json, list)[0]["ref"] == 55


def test_no_score_in_time(server, call, run, csvs, monkeypatch):
    places = ("--input", csvs, "--output", run.folder)
    server.looks_until_scored = 10**6
    outcome = call("submit", *places, "--wait", "0.1s")
    later = f"submit.py --score --output {run.folder} looks later, and {PAGE}/submissions shows it"
    assert outcome.code == 0 and later in outcome.out
    [record] = read_json(run.submissions_json, list)
    assert record["status"] == "pending"
    server.faults["ListSubmissions"] = (503, "")  # what is sent is sent
    outcome = call("submit", *places, "--wait", "0.1s", "--yes")
    assert outcome.code == 0 and "answers 503" in outcome.out and "no score yet: " in outcome.out
    server.asked, server.faults = [], {}
    assert call("submit", *places, "--competition", "another", "--no-wait").code == 0
    assert not server.asked_for("ListSubmissions") and len(read_json(run.submissions_json, list)) == 3


def test_a_score_that_came_later(server, call, run, csvs, monkeypatch):
    places = ("--input", csvs, "--output", run.folder)
    assert refused(call("submit", "--score", *places), "submissions.json records no submission")
    server.looks_until_scored = 10**6
    assert call("submit", *places, "--no-wait").code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "no score yet" in call("submit", *places).out  # it was looked up, and asked whether to send again
    outcome = call("submit", "--score", "--no-wait", "--output", run.folder)  # which needs no CSVs
    assert outcome.code == 0 and "digit-recognizer: no score yet" in outcome.out

    server.looks_until_scored = 0
    with run.lock():
        outcome = call("submit", "--score", "--output", run.folder)
        assert refused(outcome, "public score 0.99571", "is not recorded", "another process is writing")
    assert "(+0.00821)" in call("submit", "--score", "--output", run.folder).out
    [record] = read_json(run.submissions_json, list)
    assert (record["status"], record["public_score"]) == ("complete", 0.99571)
    server.asked = []
    assert "public score 0.99571" in call("submit", "--score", "--output", run.folder).out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "digit-recognizer at" in call("submit", *places).out and not server.asked


def test_the_run_is_free_while_it_waits(server, call, run, csvs, monkeypatch):
    """What another process writes meanwhile stays."""
    look_up = public_score.look_up

    def sent_meanwhile(api, record, refs):
        with run.lock():
            records.add_record(run, record | {"status": "other"})
        return look_up(api, record, refs)

    monkeypatch.setattr(public_score, "look_up", sent_meanwhile)
    server.looks_until_scored = 0
    assert call("submit", "--input", csvs, "--output", run.folder).code == 0
    assert [record["status"] for record in read_json(run.submissions_json, list)] == ["complete", "other"]


def test_ctrl_c_while_it_waits(server, run, csvs):
    server.looks_until_scored = 10**6
    process = start("submit", "--input", csvs, "--output", run.folder)
    read_until(process, "waiting for the score")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130 and "what was sent is in submissions.json" in outcome.error
    assert "Traceback" not in outcome.error
    assert read_json(run.submissions_json, list)[0]["status"] == "pending"


def test_a_run_that_is_being_written_is_not_sent(server, call, run, csvs):
    with run.lock():
        assert refused(call("submit", "--input", csvs, "--output", run.folder), "another process is writing")
    assert not server.asked


def test_a_bar_on_a_terminal(server, call, run, csvs, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert outcome.code == 0 and "of at most 10:00" in outcome.error
    assert "waiting for the score" not in outcome.out


def test_the_same_bytes_twice(server, call, run, csvs, monkeypatch):
    places = ("--input", csvs, "--output", run.folder, "--no-wait")
    assert call("submit", *places).code == 0
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        outcome = call("submit", *places)
        assert (
            refused(outcome, "is not sent a second time", "--yes")
            and "the same bytes were sent" in outcome.out
        )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with monkeypatch.context() as patch:
        patch.setenv("JPY_PARENT_PID", "1")  # a notebook's cell would wait for ever
        assert refused(call("submit", *places), "is not sent a second time", "--yes")
    assert len(server.submissions) == 1
    assert "the same bytes were sent" in call("submit", *places, "--dry-run").out
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert call("submit", *places).code == 0 and call("submit", *places, "--yes").code == 0
    assert call("submit", *places, "--competition", "another").code == 0
    assert [record["competition"] for record in read_json(run.submissions_json, list)][2:] == [
        "digit-recognizer",
        "another",
    ]


def test_a_dry_run_needs_no_client_and_no_credentials(call, run, csvs, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle", None)
    before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    outcome = call("submit", "--input", csvs, "--output", run.folder, "--dry-run")
    assert outcome.code == 0 and "20 rows, as the competition takes them" in outcome.out
    assert "--dry-run: nothing is sent to digit-recognizer" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before
    assert refused(call("submit", "--input", csvs, "--output", run.folder), "no Kaggle credentials")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], ("has 19 rows", "has 20", "ImageId 20 is missing")),
        (lambda lines: ["Id,Label", *lines[1:]], ("its first line is 'Id,Label'",)),
        (lambda lines: [*lines, "21,0"], ("row 21 (line 22) has the id '21'",)),
        (lambda lines: [*lines[:-1], "1,0"], ("row 20 (line 21) has the id '1' a second time",)),
        (lambda lines: [*lines[:-1], "20,10"], ("row 20 (line 21) has the label '10'",)),
        (lambda lines: [*lines[:-1], "20,"], ("row 20 (line 21) has the label ''",)),
        (lambda lines: [*lines[:-1], "20"], ("row 20 (line 21) has 1 columns",)),
        (lambda lines: [], ("its first line is ''",)),
        (lambda lines: None, ("is missing: run scripts/ensemble.py first",)),
    ],
)
def test_a_submission_that_the_competition_would_not_take(server, call, run, csvs, change, words):
    lines = change(run.submission.read_text().splitlines())
    run.submission.unlink()
    if lines is not None:
        run.submission.write_text("\n".join(lines) + "\n")
    assert refused(call("submit", "--input", csvs, "--output", run.folder), *words)
    assert not server.asked


def test_the_sample_is_never_sent(server, call, run, csvs, tmp_path, monkeypatch):
    monkeypatch.setattr("digit_recognizer.data.paths.ROOT", tmp_path)
    places = ("--input", csvs, "--output", run.folder)
    write_json(run.recipe_json, read_json(run.recipe_json) | {"data": "sample"})
    assert refused(call("submit", *places), "the built-in sample, which is never sent")
    run.recipe_json.unlink()
    assert refused(call("submit", *places), "holds no run (no recipe.json)")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    assert refused(call("submit", "--dry-run"), "the built-in sample, which is never sent")
    assert not server.asked


def test_a_real_run_without_its_data_is_not_the_sample(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr("digit_recognizer.data.paths.ROOT", tmp_path)
    outcome = call("submit", "--dry-run", "--output", run.folder)
    assert refused(outcome, f"no data to check {run.folder} with", "python scripts/download.py", "--input")


def test_a_run_of_other_data_is_not_sent(server, call, run, csvs):
    lines = (csvs / "train.csv").read_text().splitlines()
    (csvs / "train.csv").write_text("\n".join([*lines[:-1], lines[1]]) + "\n")
    assert refused(call("submit", "--input", csvs, "--output", run.folder), "holds a run with labels")


def test_a_blend_is_sent_like_a_run(server, call, run, csvs, dataset):
    write_json(run.recipe_json, {"name": "blend"} | plan.data_settings(dataset) | {"runs": ["a", "b"]})
    outcome = call("submit", "--input", csvs, "--output", run.folder)
    assert outcome.code == 0
    message = read_json(run.submissions_json, list)[0]["message"]
    assert message.startswith("blend of 2 runs, 2 members, out-of-fold accuracy 0.98750")


def test_messages(run, recipe):
    write_json(run.recipe_json, recipes.to_json(recipe) | {"repeats": 3})
    write_json(run.ensemble_json, {"members": [{"member": "fold_00", "weight": 1}], "missing": ["fold_01"]})
    assert submissions.default_message(run, None) == "bn_cnn, 2 folds x 3, 1 not finished, seed 42"
    write_json(run.recipe_json, recipes.to_json(recipe) | {"folds": 1, "holdout": 0.15})
    run.ensemble_json.unlink()
    assert (
        submissions.default_message(run, 0.5) == "bn_cnn, holdout 0.15, seed 42, out-of-fold accuracy 0.50000"
    )


def test_out_of_fold_accuracy_is_of_the_rows_covered(run, dataset):
    oof = np.load(run.oof_probabilities)
    oof[10:] = np.nan
    np.save(run.oof_probabilities, oof)
    assert submissions.out_of_fold_accuracy(run, dataset) == 0.9
    run.oof_probabilities.write_bytes(b"spoilt")
    with pytest.raises(UserError, match="damaged, or not of"):
        submissions.out_of_fold_accuracy(run, dataset)
    run.oof_probabilities.unlink()
    assert submissions.out_of_fold_accuracy(run, dataset) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((401, "Unauthenticated"), ("credentials of KAGGLE_USERNAME and KAGGLE_KEY (401)", "settings/api")),
        (
            (403, "You must accept\nthe rules"),
            (f"(403): accept its rules at {PAGE}/rules", "accept the rules)"),
        ),
        ((404, "Not found"), ("no competition 'digit-recognizer' (404)", "--competition")),
        ((429, "Too many"), ("answers 429: try again later", "Too many")),
        ((503, ""), ("answers 503: try again later",)),
        ((418, "Teapot"), ("refuses the request (418)", "Teapot")),
    ],
)
def test_what_kaggle_refuses(server, call, run, csvs, tmp_path, fault, words):
    server.faults = {"DownloadDataFiles": fault}
    assert refused(call("download", "--input", tmp_path / "input"), *words)
    assert not (tmp_path / "input").exists() or list((tmp_path / "input").iterdir()) == []
    for method in ("StartSubmissionUpload", "CreateSubmission"):  # before the upload, and after it
        server.faults = {method: fault}
        assert refused(call("submit", "--input", csvs, "--output", run.folder), *words)
        unknown = method == "CreateSubmission" and fault[0] >= 500  # it may have arrived
        assert run.submissions_json.exists() == unknown


def test_no_network(server, call, run, csvs, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:password@127.0.0.1:1")
    outcome = call("download", "--input", tmp_path / "input")
    assert refused(outcome, "no connection to Kaggle", f"{PAGE}/data and unpack it into {tmp_path / 'input'}")
    assert "password" not in outcome.error
    assert refused(call("submit", "--input", csvs, "--output", run.folder), "no connection to Kaggle")


def test_what_nobody_foresaw_is_told_without_its_message():
    with (
        pytest.raises(UserError, match="failed with KeyError: pip install"),
        client.kaggle_errors("digit-recognizer"),
    ):
        raise KeyError(SIGNATURE)


def test_what_the_client_says_has_no_secrets(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    said = f"GET https://a:b@storage.googleapis.com/x.zip?GoogleAccessId=1&Signature={SIGNATURE} with {KEY}"
    assert client.redacted(said) == "GET https://...@storage.googleapis.com/x.zip?... with ..."


def test_durations(call):
    assert [cli.duration(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
    for text in ("", "10 m", "-1s", "ten"):
        assert refused(
            call("submit", f"--wait={text}"), f"argument --wait: {text!r} is no duration such as 90s"
        )


def sending(run, message="mine", minutes=0):
    """Leaves the record of a submission whose process ended before Kaggle's answer came."""
    record = records.new_record(run, "digit-recognizer", message, None)
    began = datetime.now(UTC) - timedelta(minutes=minutes)
    records.add_record(run, record | {"time": began.isoformat(timespec="seconds")})


def test_a_full_disk_after_sending_loses_no_record(server, call, run, csvs, monkeypatch):
    """The record is there before anything is sent, and what came of it is looked up later."""
    places = ("--input", csvs, "--output", run.folder)
    write, written = records.write_json, []

    def full_after_one(path, value):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(write(path, value))

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_json", full_after_one)
        outcome = call("submit", *places)
    assert refused(outcome, "is sent to digit-recognizer, but", "can't be written (No space left on device)")
    assert read_json(run.submissions_json, list)[0]["status"] == "sending"
    server.looks_until_scored = 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    outcome = call("submit", *places)
    assert refused(outcome, "is not sent a second time") and "public score 0.99571" in outcome.out
    assert len(server.submissions) == 1 and read_json(run.submissions_json, list)[0]["ref"] == 101


def test_a_full_disk_before_sending_sends_nothing(server, call, run, csvs, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(records, "write_json", full)
    assert refused(
        call("submit", "--input", csvs, "--output", run.folder), "submissions.json", "No space left"
    )
    assert not server.submissions and not server.asked_for("StartSubmissionUpload")


def test_a_submission_cut_while_it_was_sent(server, call, run, csvs, monkeypatch):
    places = ("--input", csvs, "--output", run.folder)
    sending(run)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    outcome = call("submit", *places)  # it may still be on its way
    assert refused(outcome, "is not sent a second time") and "not known whether it reached" in outcome.out
    server.faults["ListSubmissions"] = (503, "")
    assert "not known whether it reached" in call("submit", "--score", "--no-wait", *places).out
    server.faults = {}
    run.submissions_json.unlink()
    sending(run, minutes=5)
    outcome = call("submit", *places, "--no-wait")
    assert outcome.code == 0 and "never reached Kaggle" in outcome.out
    [record] = read_json(run.submissions_json, list)
    assert (record["status"], record["ref"]) == ("pending", 101)


def test_an_answer_that_never_came_is_looked_up(server, call, run, csvs):
    server.faults["CreateSubmission"] = (502, "")
    places = ("--input", csvs, "--output", run.folder)
    assert refused(call("submit", *places, "--message", "mine"), "answers 502")
    assert read_json(run.submissions_json, list)[0]["status"] == "sending"
    server.submissions = [{"looks": 9, "description": "mine"}]  # it had arrived all the same
    server.faults = {}
    assert "public score 0.99571" in call("submit", "--score", *places).out


def test_a_clock_that_was_hours_ahead_sends_nothing_twice(server, call, run, csvs, monkeypatch):
    """By its time the listed submission is an older one, by its message it may be ours: the user decides."""
    sending(run, minutes=5)
    listed = datetime.now(UTC) - timedelta(hours=3)
    server.submissions = [{"looks": 9, "description": "mine", "date": f"{listed:%Y-%m-%dT%H:%M:%S}.1234567Z"}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    places = ("--input", csvs, "--output", run.folder)
    outcome = call("submit", *places)
    assert refused(outcome, "is not sent a second time") and "not known whether it reached" in outcome.out
    assert "this machine's clock" in call("submit", "--score", "--no-wait", *places).out
    assert len(server.submissions) == 1
    records.add_record(run, read_json(run.submissions_json, list)[0] | {"ref": 101, "status": "complete"})
    assert (
        "never reached Kaggle" in call("submit", "--score", "--no-wait", *places).out
    )  # that one was another


def test_a_lost_submission_gets_no_score_of_another(server, call, run, csvs):
    """The only one that is listed with its message has the number of another record."""
    sending(run, minutes=5)
    scored = {"ref": 101, "status": "complete", "public_score": 0.5}
    records.add_record(run, read_json(run.submissions_json, list)[0] | scored)
    server.submissions = [{"looks": 9, "description": "mine"}]
    outcome = call("submit", "--score", "--no-wait", "--input", csvs, "--output", run.folder)
    assert outcome.code == 0 and "never reached Kaggle" in outcome.out
    [record] = read_json(run.submissions_json, list)
    assert (record["ref"], record["public_score"]) == (101, 0.5)


def test_a_submission_before_all_that_kaggle_lists_may_have_arrived(server, call, run, csvs, monkeypatch):
    """Kaggle lists the last ones alone: older ones are there all the same."""
    sending(run, minutes=5)
    server.submissions = [{"looks": 9, "description": "another"} for _ in range(25)]
    places = ("--input", csvs, "--output", run.folder)
    outcome = call("submit", "--score", "--no-wait", *places)
    assert outcome.code == 0 and "not known whether it reached Kaggle" in outcome.out, outcome
    assert read_json(run.submissions_json, list)[0]["status"] == "sending"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert refused(call("submit", *places), "is not sent a second time")
    # now the list goes back to the time before it
    server.submissions[-1]["date"] = "2020-01-01T00:00:00Z"
    assert "never reached Kaggle" in call("submit", "--score", "--no-wait", *places).out


def test_a_score_that_cannot_be_recorded_is_told(server, call, run, csvs, monkeypatch):
    sending(run, minutes=5)
    server.submissions = [{"looks": 9, "description": "mine"}]

    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(records, "write_json", full)
    outcome = call("submit", "--score", "--no-wait", "--input", csvs, "--output", run.folder)
    assert refused(outcome, "public score 0.99571", "that is not recorded", "No space left")


def test_a_terminal_is_told_why_a_look_failed(server, call, run, csvs, monkeypatch):
    sending(run)
    server.faults["ListSubmissions"] = (503, "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    outcome = call("submit", "--score", "--no-wait", "--input", csvs, "--output", run.folder)
    assert outcome.code == 0 and "waited for the score" in outcome.out and "answers 503" in outcome.out


@pytest.mark.parametrize("content", ["[1]", "[{}]", '[{"time": "x"}]', "{}", "["])
def test_damaged_records(server, call, run, csvs, content):
    run.submissions_json.write_text(content)
    for option in ("--score", "--dry-run"):
        outcome = call("submit", option, "--input", csvs, "--output", run.folder)
        assert refused(outcome, "submissions.json is damaged")


def test_a_submission_written_anew_while_asking(server, call, run, csvs, monkeypatch):
    """Only the bytes that were checked are sent."""
    ask = submissions.already_submitted

    def another(*arguments, **options):
        run.submission.write_text("ImageId,Label\n")
        return ask(*arguments, **options)

    monkeypatch.setattr(submissions, "already_submitted", another)
    assert refused(call("submit", "--input", csvs, "--output", run.folder), "was written meanwhile")
    assert not server.submissions


TOKEN = "planted-token-0123456789"


def plant(kind, tmp_path, monkeypatch):
    """Puts the token where the client looks for it."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    folder = tmp_path / "home/.kaggle"
    folder.mkdir(parents=True)
    if kind == "variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    elif kind == "file":
        (folder / "access_token").write_text(f"{TOKEN}\n")
    elif kind == "kaggle.json":
        write_json(folder / "kaggle.json", {"username": "somebody", "key": TOKEN})
    else:
        monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
        monkeypatch.setenv("KAGGLE_KEY", TOKEN)


@pytest.mark.parametrize("fault", ["none", "refused", "broken"])
@pytest.mark.parametrize("kind", ["variable", "file", "kaggle.json", "key"])
def test_credentials_stay_out_of_everything(server, call, run, csvs, tmp_path, monkeypatch, kind, fault):
    """Kaggle's answers hold the token too, as a careless server's might."""
    plant(kind, tmp_path, monkeypatch)
    monkeypatch.setenv("VERBOSE", "1")
    server.looks_until_scored = 0
    if fault == "refused":
        methods = ("DownloadDataFiles", "CreateSubmission", "ListSubmissions", "SaveKernel")
        server.faults = {method: (418, f"no {TOKEN}") for method in methods}
        sending(run)
    if fault == "broken":
        monkeypatch.setenv("HTTP_PROXY", f"http://somebody:{TOKEN}@127.0.0.1:1")
        sending(run)
    made = {name: tmp_path / name for name in ("downloaded", "kernel")}
    run_options = ("--input", csvs, "--output", run.folder)
    lines = [
        ("download", "--input", made["downloaded"]),
        ("submit", *run_options, "--yes"),
        ("submit", "--score", "--no-wait", *run_options),
        ("kernel", "--output", made["kernel"], "--owner", "somebody"),
        ("kernel", "--output", made["kernel"], "--notebook", "--pack-only", "--owner", "somebody"),
    ]
    basic = base64.b64encode(f"somebody:{TOKEN}".encode()).decode()
    for line in lines:
        forget_client()
        outcome = call(*line)
        assert "Traceback" not in outcome.error and outcome.code in (0, 2), outcome
        assert fault != "none" or outcome.code == 0, outcome
        assert fault == "none" or outcome.code == 2 or "--score" in line or "--pack-only" in line, outcome
        files = [path for folder in (run.folder, *made.values()) for path in folder.rglob("*")]
        said = (
            outcome.out
            + outcome.error
            + "".join(path.read_bytes().decode(errors="replace") for path in files if path.is_file())
        )
        assert TOKEN not in said and basic not in said, line
