"""download.py and run_all.sh, and what keeps the client from Kaggle, through the real kaggle client."""

import io
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, finish, start
from damage import damaged_bytes, survives, try_damage
from kaggle_server import KEY, PAGE, forget_client, packed, refused

from digit_recognizer.data.paths import FILES, SAMPLE_NOTICE
from digit_recognizer.files import read_json
from digit_recognizer.kaggle.client import unpack
from digit_recognizer.runs.directory import Run


def holds(folder: Path, csvs: Path) -> bool:
    """Whether `folder` holds the three files whole, and nothing else."""
    same = all((folder / name).read_bytes() == (csvs / name).read_bytes() for name in FILES)
    return same and sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def archive_of(members) -> bytes:
    """Returns an archive of members, pairs of a name, or a ZipInfo, and contents."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in members:
            file.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def get(call, tmp_path):
    """Runs download.py with --input tmp_path/input."""
    return lambda *options: call("download", "--input", tmp_path / "input", *options)


@pytest.fixture
def no_variables(monkeypatch, server):
    """The server's credentials are not in variables: the test puts them elsewhere."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)


def test_download(server, get, csvs, tmp_path):
    outcome = get()
    assert (outcome.code, outcome.error) == (0, ""), outcome
    assert holds(tmp_path / "input", csvs) and "train.csv: " in outcome.out
    server.asked.clear()
    outcome = get()
    assert outcome.code == 0 and "already: nothing is downloaded" in outcome.out and not server.asked


def test_another_competition_of_the_same_shape(server, get, csvs, tmp_path):
    (csvs / "Dig-MNIST.csv").write_text("more\n")
    server.archive = packed(csvs, (*FILES, "Dig-MNIST.csv"))
    assert get("--competition", "Kannada-MNIST").code == 0 and holds(tmp_path / "input", csvs)
    assert b"Kannada-MNIST" in server.asked_for("DownloadDataFiles")[0][1]
    assert refused(get("--competition", "a/b"), "--competition: 'a/b'")


@pytest.fixture
def large(server, csvs):
    """Files whose archive takes more than two of the blocks of 1 MiB that the client keeps."""
    (csvs / "train.csv").write_bytes(random.Random(0).randbytes(2_500_000))
    server.archive = packed(csvs)
    return csvs


def test_a_download_that_is_cut_continues(server, get, large, tmp_path):
    server.cuts = [1_500_000, 1_200_000]
    assert get().code == 0 and holds(tmp_path / "input", large)
    ranges = [headers.get("Range") for headers, _ in server.asked_for("digit-recognizer.zip")]
    assert ranges == [None, "bytes=1048576-", "bytes=2097152-"]


def test_a_download_that_stays_cut_is_kept_and_continues_later(server, get, large, tmp_path):
    server.cuts = [1_500_000] + [0] * 9
    folder = tmp_path / "input"
    words = ("broke off: run the same command again", f"download {PAGE}/data and unpack it into {folder}")
    assert refused(get(), *words)
    assert not [*folder.glob("*.csv")]
    server.cuts, server.asked = [], []
    outcome = get()
    assert outcome.code == 0 and "1,048,576 bytes have arrived before" in outcome.out
    assert holds(folder, large)
    assert server.asked_for("digit-recognizer.zip")[-1][0]["Range"] == "bytes=1048576-"


def test_no_credentials(get, tmp_path):
    ways = ("KAGGLE_API_TOKEN", "access_token", "KAGGLE_USERNAME", "kaggle.json", "kaggle auth login")
    by_hand = f"download {PAGE}/data and unpack it into {tmp_path / 'input'}"
    assert refused(get(), "settings/api", *ways, by_hand)
    assert not (tmp_path / "input").exists()


def test_the_address_of_the_file_refuses(server, get, tmp_path):
    server.file_status = 403
    assert refused(get(), "the address of the file answers 403")
    assert not [*(tmp_path / "input").iterdir()]


PAIR = '{"username": "somebody", "key": "0123456789"}'
NEW_TOKEN = "make a new token at https://www.kaggle.com/settings/api and put it there, as UTF-8 without BOM"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "credentials"),
        (b'{"username": "somebody"}', "credentials"),
        (b"wrong", "kaggle.json is damaged (Expecting value"),
        (b"[1, 2]", "kaggle.json is damaged (it is no JSON object"),
        (PAIR.encode("utf-16"), "kaggle.json is damaged ('utf-8' codec"),
        (PAIR.encode("utf-8-sig"), "kaggle.json is damaged (Unexpected UTF-8 BOM"),
    ],
)
def test_files_without_credentials(server, get, tmp_path, monkeypatch, no_variables, content, words):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_bytes(content)
    assert refused(get(), words, NEW_TOKEN)
    (tmp_path / "kaggle.json").rename(tmp_path / "token")
    if content[:1] > b"\x7f":
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
        assert refused(get(), "token is damaged", NEW_TOKEN)
    assert not server.asked


def test_tokens_that_are_refused(server, get, monkeypatch, no_variables):
    monkeypatch.setenv("KAGGLE_API_TOKEN", f"{KEY}\n")
    assert refused(get(), "the Kaggle token contains a line break", NEW_TOKEN)
    monkeypatch.setenv("KAGGLE_API_TOKEN", KEY)
    for status in (401, 403):
        server.faults = {"IntrospectToken": (status, f"bad token {KEY}")}
        forget_client()
        assert refused(get(), "credentials of KAGGLE_API_TOKEN", NEW_TOKEN)


def test_a_key_that_others_can_read_is_named(server, get, tmp_path, monkeypatch, no_variables):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text(PAIR)
    (tmp_path / "kaggle.json").chmod(0o644)
    outcome = get()
    assert outcome.code == 0 and outcome.out.count("readable by other users") == 1


def test_a_home_that_cannot_be_written(server, get, tmp_path, monkeypatch):
    """Root can write anywhere but below a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert refused(get(), str(tmp_path / "file"), "repair that, then the same command continues")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "elsewhere"))
    forget_client()
    assert get().code == 0


def test_the_client_is_missing_or_too_old(server, get, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "kaggle", None)
        assert refused(get(), "kaggle is not installed")
    (tmp_path / "kaggle-1.7.4.5.dist-info").mkdir()
    (tmp_path / "kaggle-1.7.4.5.dist-info/METADATA").write_text("Name: kaggle\nVersion: 1.7.4.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert refused(get(), "kaggle 1.7.4.5 is too old, 2.0 is needed: pip install --upgrade kaggle")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTP_PROXY", "http://a:password@127.0.0.1:1", "no connection to Kaggle: check the network and HTTPS_PROXY"),
        ("HTTP_PROXY", "socks5://127.0.0.1:9", "needs PySocks: pip install pysocks"),
        ("HTTP_PROXY", "http://", "HTTPS_PROXY is not the address of a proxy"),
        ("HTTP_PROXY", "", "no connection to Kaggle: check the network"),
        ("KAGGLE_API_ENVIRONMENT", "PROD", "the proxy wants a password (407): set HTTPS_PROXY"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "REQUESTS_CA_BUNDLE names a file that does not exist"),
    ],
)
def test_faults_of_the_network(server, get, tmp_path, monkeypatch, variable, value, words):
    if variable == "REQUESTS_CA_BUNDLE":
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "PROD")
    monkeypatch.setenv("HTTPS_PROXY", server.proxy)
    monkeypatch.setenv(variable, value)
    outcome = get()
    assert refused(outcome, words, f"{PAGE}/data and unpack it into {tmp_path / 'input'}")
    assert "password@" not in outcome.error and not (tmp_path / "input").joinpath(".download").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_a_certificate_that_is_not_trusted(server, get, tmp_path, monkeypatch):
    """As behind a company's proxy that inspects connections."""
    server.tunnel = tmp_path / "certificate.pem"
    names = ("-keyout", server.tunnel, "-out", tmp_path / "certificate", "-subj", "/CN=company")
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(["openssl", "req", *kind, *names], check=True, capture_output=True)
    with server.tunnel.open("a") as file:
        file.write((tmp_path / "certificate").read_text())
    monkeypatch.setenv("HTTPS_PROXY", server.proxy)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "PROD")
    assert refused(get(), "no trusted TLS connection: set REQUESTS_CA_BUNDLE")


def test_an_answer_that_is_no_json(server, get, monkeypatch):
    server.answers_html = True
    assert refused(get(), "no zip archive of digit-recognizer has arrived: check --competition and the network")
    monkeypatch.setenv("KAGGLE_API_TOKEN", KEY)
    forget_client()
    assert refused(get(), "the answer is not Kaggle's: a proxy or a sign-in page")


def test_a_full_disk(server, get, csvs, tmp_path):
    staging = tmp_path / "input/.download"
    staging.mkdir(parents=True)
    (staging / "digit-recognizer.zip").symlink_to("/dev/full")
    assert refused(get(), "No space left on device", "the same command")
    (staging / "digit-recognizer.zip").unlink()
    (tmp_path / "input/.test.csv").symlink_to("/dev/full")
    assert refused(get(), "test.csv: No space left on device", "the same command")
    names = [path.name for path in (tmp_path / "input").iterdir() if not path.name.startswith(".")]
    assert names == ["train.csv"]
    server.cuts = [0] * 9  # the archive has arrived: nothing is downloaded again
    assert get().code == 0 and holds(tmp_path / "input", csvs)


def test_a_folder_that_cannot_be_written(server, call, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(call("download", "--input", tmp_path / "file"), "file", "Not a directory")


@pytest.mark.parametrize("start", [0, 100])
def test_a_damaged_archive(server, get, csvs, tmp_path, start):
    whole, server.archive = server.archive, server.archive[:start] + bytes(50) + server.archive[start + 50 :]
    server.archive = server.archive if start else server.archive[:500]
    assert refused(get(), "digit-recognizer.zip is damaged", "remove it, and run the same command again")
    archive = tmp_path / "input/.download/digit-recognizer.zip"
    assert [*(tmp_path / "input").iterdir()] == [archive.parent]
    server.archive, server.etag = whole, '"2"'
    archive.write_bytes(bytes(200))  # what arrives is checked, whatever has arrived before
    if get().code:
        archive.unlink()
        assert get().code == 0
    assert holds(tmp_path / "input", csvs)


def test_nothing_leaves_the_folder(server, call, csvs, tmp_path):
    """Only the three files are unpacked."""
    names = ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", zipfile.ZipInfo("evil")]
    names[-1].external_attr = (stat.S_IFLNK | 0o777) << 16  # a link
    members = [(name, (csvs / name).read_bytes()) for name in FILES]
    server.archive = archive_of([*members, *((name, "/etc") for name in names)])
    outcome = call("download", "--input", tmp_path / "in/put")
    assert (outcome.code, outcome.error) == (0, "") and holds(tmp_path / "in/put", csvs)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_an_archive_without_a_file_that_is_needed(server, get, tmp_path):
    server.archive = archive_of([("train.csv", "1\n"), ("test.csv", "1\n")])
    assert refused(get(), "digit-recognizer.zip has no sample_submission.csv", "take another --competition")
    assert not [*(tmp_path / "input").glob("*.csv")]


def test_archives_with_wrong_bytes(tmp_path, campaign):
    """It is a UserError, and nothing is half unpacked, or it does not matter."""
    archive, folder = tmp_path / "some.zip", tmp_path / "input"

    def case(damaged):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        archive.write_bytes(damaged)
        if survives(lambda: unpack(archive, folder), folder, "some.zip"):
            assert [(folder / name).read_text() for name in FILES] == ["1\n"] * 3

    try_damage(damaged_bytes(archive_of((name, "1\n") for name in FILES)), case, 150, campaign)


def test_an_archive_put_there_by_hand(get, csvs, server, tmp_path):
    given = tmp_path / "input/digit-recognizer.zip"
    given.parent.mkdir()
    given.write_bytes(server.archive)
    outcome = get()
    assert outcome.code == 0 and f"unpacking {given}" in outcome.out and not server.asked
    given.unlink()
    assert holds(tmp_path / "input", csvs)


def test_files_that_are_there_already(server, get, csvs, tmp_path):
    """One with the same bytes stays, one of the user's own is not written over."""
    folder = tmp_path / "input"
    folder.mkdir()
    shutil.copy(csvs / "train.csv", folder)
    (folder / "test.csv").write_text("my own\n")
    assert refused(get(), "test.csv differs from that in", "move it away")
    assert (folder / "test.csv").read_text() == "my own\n"
    assert not (folder / "sample_submission.csv").exists()
    (folder / "test.csv").unlink()
    assert get().code == 0
    assert holds(folder, csvs)


def run_all_of_a_copy(tmp_path, *options):
    """Runs run_all.sh of a copy of this checkout with an empty input/."""
    checkout = tmp_path / "checkout"
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "requirements.txt", checkout)
    (checkout / "input").mkdir()
    return finish(start(checkout / "scripts/run_all.sh", *options, cwd=checkout, VIRTUAL_ENV=sys.prefix))


def test_run_all_downloads_and_goes_on(server, csvs, tmp_path):
    """An impossible option ends the stages after the download, which have tests of their own."""
    outcome = run_all_of_a_copy(tmp_path, "--fold", "9")
    assert "--fold 9" in outcome.error and holds(tmp_path / "checkout/input", csvs)


def test_run_all_ends_if_the_download_fails(server, tmp_path):
    server.faults["DownloadDataFiles"] = (403, "")
    outcome = run_all_of_a_copy(tmp_path)
    assert refused(outcome, "download.py: error: Kaggle refuses digit-recognizer (403)")
    assert "SAMPLE" not in outcome.out and not (tmp_path / "checkout/output").exists()


def test_run_all_takes_the_sample_if_there_is_nothing_else(tmp_path):
    """It says so in the first line and in the last."""
    outcome = run_all_of_a_copy(tmp_path, "--recipe", "mlp", "--epochs", "1", "--fold", "0")
    assert (outcome.code, outcome.error) == (0, ""), outcome
    lines = outcome.out.splitlines()
    assert lines[0] == lines[-1] == SAMPLE_NOTICE and lines.count(SAMPLE_NOTICE) == 2
    run = Run(tmp_path / "checkout/output/sample")
    settings = read_json(run.recipe_json)
    assert (settings["data"], settings["folds"]) == ("sample", 3)
    assert len(run.submission.read_text().splitlines()) == 1 + 497
    assert read_json(run.cv_report_json)["sample"] and read_json(run.ensemble_json)["missing"]
