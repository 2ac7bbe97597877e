"""download.py and run_all.sh, through the real kaggle client against a stand-in server."""

import errno
import io
import random
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, finish, start
from kaggle_server import KEY, PAGE, SIGNATURE, forget_client, packed, refused

from digit_recognizer.data import paths
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError, write_json
from digit_recognizer.kaggle.download import unpack


def holds(folder: Path, csvs: Path) -> bool:
    """True if `folder` holds the three files whole, and nothing else."""
    same = all((folder / name).read_bytes() == (csvs / name).read_bytes() for name in FILES)
    return same and sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def archive_of(**members) -> bytes:
    """An archive of the three files and `members`, names with their contents."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in ({name: "1\n" for name in FILES} | members).items():
            file.writestr(name, text)
    return content.getvalue()


def test_download(server, call, csvs, tmp_path):
    outcome = call("download", "--input", tmp_path / "input")
    assert (outcome.code, outcome.error) == (0, ""), outcome
    assert holds(tmp_path / "input", csvs) and "train.csv: " in outcome.out
    asked = len(server.asked)
    outcome = call("download", "--input", tmp_path / "input")
    assert outcome.code == 0 and "already: nothing is downloaded" in outcome.out
    assert len(server.asked) == asked


def test_another_competition_of_the_same_shape(server, call, csvs, tmp_path):
    (csvs / "Dig-MNIST.csv").write_text("more\n")
    server.archive = packed(csvs, (*FILES, "Dig-MNIST.csv"))
    outcome = call("download", "--input", tmp_path / "input", "--competition", "Kannada-MNIST")
    assert outcome.code == 0 and holds(tmp_path / "input", csvs)
    assert b"Kannada-MNIST" in server.asked_for("DownloadDataFiles")[0][1]
    assert refused(call("download", "--competition", "a/b"), "--competition: 'a/b'")


@pytest.fixture
def large(server, csvs):
    """Files whose archive takes more than two of the blocks of 1 MiB that the client keeps."""
    (csvs / "train.csv").write_bytes(random.Random(0).randbytes(2_500_000))
    server.archive = packed(csvs)
    return csvs


def test_a_download_that_is_cut_goes_on(server, call, large, tmp_path):
    server.cuts = [1_500_000, 1_200_000]
    outcome = call("download", "--input", tmp_path / "input")
    assert outcome.code == 0 and holds(tmp_path / "input", large)
    ranges = [headers.get("Range") for headers, _ in server.asked_for("digit-recognizer.zip")]
    assert ranges == [None, "bytes=1048576-", "bytes=2097152-"]


def test_a_download_that_stays_cut_is_kept_and_goes_on_later(server, call, large, tmp_path):
    server.cuts = [1_500_000] + [0] * 9
    folder = tmp_path / "input"
    outcome = call("download", "--input", folder)
    assert refused(outcome, "broke off", "what has arrived is kept", f"unpack it into {folder}")
    assert not paths.formats_in(folder)
    server.cuts, server.asked = [], []
    assert call("download", "--input", folder).code == 0
    assert holds(folder, large)
    assert server.asked_for("digit-recognizer.zip")[-1][0]["Range"] == "bytes=1048576-"


def test_download_as_a_process(server, large, tmp_path):
    """With the client's own pauses, of two seconds for the one cut."""
    server.cuts = [1_500_000]
    outcome = finish(start("download", "--input", tmp_path / "input", VERBOSE="1"))
    assert (outcome.code, outcome.error) == (0, "") and paths.formats_in(tmp_path / "input")
    assert "Resuming from 1048576 bytes" in outcome.out
    assert not any(secret in outcome.out for secret in (KEY, SIGNATURE, "Authorization"))


def test_no_credentials(call, tmp_path):
    folder = tmp_path / "input"
    ways = ("KAGGLE_API_TOKEN", "access_token", "KAGGLE_USERNAME", "kaggle.json", "kaggle auth login")
    outcome = call("download", "--input", folder)
    assert refused(outcome, "settings/api", *ways, f"download {PAGE}/data and unpack it into {folder}")
    assert not folder.exists()


def test_the_files_own_address_refuses(server, call, tmp_path):
    server.file_status = 403
    assert refused(call("download", "--input", tmp_path / "input"), "the file's own address answers 403")


@pytest.mark.parametrize("content", ["wrong", "{}", '{"username": "somebody"}'])
def test_credentials_that_are_not_whole(server, call, tmp_path, monkeypatch, content):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text(content)
    assert refused(
        call("download", "--input", tmp_path / "input"),
        f"credentials of {tmp_path}/kaggle.json",
        "settings/api",
    )


def test_a_token_that_has_expired(server, call, tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_TOKEN", KEY)
    for status in (401, 403):
        server.faults = {"IntrospectToken": (status, f"bad token {KEY}")}
        forget_client()
        assert refused(call("download", "--input", tmp_path / "input"), "credentials of KAGGLE_API_TOKEN")


@pytest.mark.parametrize("kind", ["variable", "file", "oauth"])
def test_tokens(server, call, csvs, tmp_path, monkeypatch, kind):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_ENABLE_OAUTH", "")
    folder = tmp_path / "home/.kaggle"
    folder.mkdir(parents=True)
    if kind == "variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", KEY)
    elif kind == "file":
        (folder / "access_token").write_text(f"{KEY}\n")
    else:
        until = {"access_token": KEY, "access_token_expiration": "2099-01-01T00:00:00+00:00"}
        write_json(folder / "credentials.json", until | {"refresh_token": "r", "username": "somebody"})
    outcome = call("download", "--input", tmp_path / "input")
    assert outcome.code == 0 and holds(tmp_path / "input", csvs) and KEY not in outcome.out + outcome.error
    assert server.asked_for("DownloadDataFiles")[0][0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_that_others_can_read_is_told(server, call, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text(f'{{"username": "somebody", "key": "{KEY}"}}')
    (tmp_path / "kaggle.json").chmod(0o644)
    outcome = call("download", "--input", tmp_path / "input")
    assert outcome.code == 0 and outcome.out.count("readable by other users") == 1 and KEY not in outcome.out


def test_the_client_is_not_installed(server, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle", None)
    outcome = call("download", "--input", tmp_path / "input")
    assert refused(outcome, "kaggle is not installed: pip install -r requirements.txt")


def test_a_full_disk(server, call, csvs, tmp_path, monkeypatch):
    staging = tmp_path / "input/.download"
    staging.mkdir(parents=True)
    (staging / "digit-recognizer.zip").symlink_to("/dev/full")
    assert refused(call("download", "--input", tmp_path / "input"), "the disk is full: make room")
    (staging / "digit-recognizer.zip").unlink()

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
        assert refused(call("download", "--input", tmp_path / "input"), "is full: 0 MB are needed, 0 MB free")

    def copy(packed, unpacked):
        unpacked.write(packed.read(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", copy)
        assert refused(call("download", "--input", tmp_path / "input"), "the disk is full: make room")
    assert [path.name for path in (tmp_path / "input").iterdir()] == [".download"]
    assert call("download", "--input", tmp_path / "input").code == 0 and holds(tmp_path / "input", csvs)


def test_a_folder_that_cannot_be_written(server, call, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(call("download", "--input", tmp_path / "file"), "file", "can't be read or written")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda whole: whole[: len(whole) // 2], ("no whole archive",)),
        (lambda whole: whole[:100] + bytes(50) + whole[150:], ("no whole archive",)),
        (lambda whole: b"<html>", ("no whole archive",)),
    ],
)
def test_a_damaged_archive_is_removed_and_downloaded_again(server, call, csvs, tmp_path, spoil, words):
    whole, server.archive = server.archive, spoil(server.archive)
    outcome = call("download", "--input", tmp_path / "input")
    assert refused(outcome, *words, "it is removed, and the same command downloads it again")
    assert not list((tmp_path / "input").rglob("*.*"))
    server.archive, server.etag = whole, '"2"'
    assert call("download", "--input", tmp_path / "input").code == 0 and holds(tmp_path / "input", csvs)


def test_a_partial_download_of_something_else(server, call, csvs, tmp_path):
    """The client goes on with it only if it can tell that it is the same; else the checksums do."""
    folder, staging = tmp_path / "input", tmp_path / "input/.download"
    staging.mkdir(parents=True)
    (staging / "digit-recognizer.zip").write_bytes(bytes(200))
    if call("download", "--input", folder).code:
        assert call("download", "--input", folder).code == 0
    assert holds(folder, csvs)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", "a/..", "link"])
def test_nothing_leaves_the_folder(server, call, csvs, tmp_path, name):
    """Members with other names than the three files are not unpacked."""
    content = io.BytesIO(server.archive)
    with zipfile.ZipFile(content, "a") as file:
        file.writestr(link(name) if name == "link" else name, "/etc")
    server.archive = content.getvalue()
    outcome = call("download", "--input", tmp_path / "in/put")
    assert (outcome.code, outcome.error) == (0, "") and holds(tmp_path / "in/put", csvs)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name == "link"]


def test_a_link_is_unpacked_as_a_file(tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr(link("train.csv"), str(tmp_path / "secret"))
        for name in FILES[1:]:
            file.writestr(name, "1\n")
    unpack(tmp_path / "some.zip", tmp_path / "input", tmp_path / "input/.download")
    assert not (tmp_path / "input/train.csv").is_symlink()
    assert (tmp_path / "input/train.csv").read_text() == str(tmp_path / "secret")


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_an_archive_without_a_file_that_is_needed(server, call, tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("train.csv", "1\n")
    server.archive = content.getvalue()
    outcome = call("download", "--input", tmp_path / "input")
    assert refused(
        outcome, "holds no test.csv, only train.csv", "digit-recognizer is no competition of this shape"
    )
    assert list((tmp_path / "input").iterdir()) == []


def test_archives_that_are_spoilt_anywhere(tmp_path):
    """Whatever byte is wrong, it is a UserError or does not matter, and nothing is half unpacked."""
    whole, draw = archive_of(), random.Random(0)
    for _ in range(150):
        spoilt = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        (tmp_path / "some.zip").write_bytes(spoilt)
        folder = tmp_path / "input"
        try:
            unpack(tmp_path / "some.zip", folder, folder / ".download")
        except UserError:
            assert sorted(path.name for path in folder.rglob("*.csv")) == []
        else:
            assert [(folder / name).read_text() for name in FILES] == ["1\n"] * 3
        shutil.rmtree(folder, ignore_errors=True)


def test_an_archive_put_there_by_hand(call, csvs, server, tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    given = folder / "digit-recognizer.zip"
    given.write_bytes(server.archive[:-100])
    assert refused(
        call("download", "--input", folder), "no whole archive", "remove it, then download it again"
    )
    given.write_bytes(server.archive)
    assert paths.needs_download(folder)
    assert refused(call("train", "--input", folder), "holds no data", f"download.py --input {folder}")
    outcome = call("download", "--input", folder)
    assert outcome.code == 0 and f"unpacking {given}" in outcome.out and not server.asked
    given.unlink()
    assert holds(folder, csvs)


def test_files_that_are_there_already(server, call, csvs, tmp_path):
    """One with the same bytes stays, one of the user's own is not written over."""
    folder = tmp_path / "input"
    folder.mkdir()
    shutil.copy(csvs / "train.csv", folder)
    (folder / "test.csv").write_text("my own\n")
    assert refused(call("download", "--input", folder), "test.csv has other contents", "move it away")
    assert (folder / "test.csv").read_text() == "my own\n"
    assert not (folder / "sample_submission.csv").exists()
    (folder / "test.csv").unlink()
    server.asked.clear()
    assert call("download", "--input", folder).code == 0 and holds(folder, csvs)
    assert not server.asked  # what was unpacked has waited


def test_killed_while_the_files_were_moved(server, call, csvs, tmp_path, monkeypatch):
    """The same command moves the rest, without another download."""
    replace, moved = Path.replace, []

    def killed_after_one(path, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(replace(path, target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_after_one)
        assert call("download", "--input", tmp_path / "input").code == 130
    there = [name for name in FILES if (tmp_path / "input" / name).exists()]
    assert len(there) == 1
    server.asked.clear()
    assert "already" in call("download", "--input", tmp_path / "input").out
    assert holds(tmp_path / "input", csvs)
    assert not server.asked


def test_run_all_downloads_and_goes_on(server, csvs, tmp_path):
    """The stages after the download are told to stop early: what they do has tests of its own."""
    outcome = run_all_of_a_copy(tmp_path, "--epochs", "0")
    assert "epochs=0" in outcome.error and holds(tmp_path / "checkout/input", csvs)


def test_run_all_ends_where_a_download_fails(server, tmp_path):
    server.faults["DownloadDataFiles"] = (403, "")
    outcome = run_all_of_a_copy(tmp_path)
    assert refused(outcome, "download.py: error: Kaggle refuses digit-recognizer (403)")
    assert "SAMPLE" not in outcome.out and not (tmp_path / "checkout/output").exists()


def run_all_of_a_copy(tmp_path, *options):
    """What run_all.sh of a copy of this checkout does, whose input/ is empty."""
    checkout = tmp_path / "checkout"
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "requirements.txt", checkout)
    (checkout / "input").mkdir()
    return finish(start(checkout / "scripts/run_all.sh", *options, cwd=checkout, VIRTUAL_ENV=sys.prefix))
