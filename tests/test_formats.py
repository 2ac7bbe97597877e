"""The formats that data comes in beside the competition's CSVs, and where and under which names files are found."""

import dataclasses
import gzip
import io
import os
import zipfile

import numpy as np
import pytest
from conftest import write_csvs

from digit_recognizer.data import digits, paths
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.input_files import FORMATS as KNOWN_FORMATS
from digit_recognizer.files import UserError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = IDX_NAMES = tuple(KNOWN_FORMATS[-1].files)

# 20 training and 12 test rows
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 28, 28), np.uint8)
TRAIN, TRAIN_LABELS, TEST, TARGETS = PIXELS[:20], np.arange(20) % 10, PIXELS[20:], np.arange(12) % 7
DATA = Dataset(
    *(TRAIN, TRAIN_LABELS.astype(np.uint8), TEST, TARGETS.astype(np.uint8)),
    ids=np.arange(1, 13).astype(str),
    kind="mnist",
)


def put(folder, files):
    """Writes `files`, names with their contents, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def idx(array) -> bytes:
    """The contents of an IDX file."""
    return np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.astype(np.uint8).tobytes()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members) -> bytes:
    """A zip archive of `members`, names with their contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz(**others):
    """mnist.npz, in which some arrays are others: arrays or, as bytes, the contents of their files."""
    arrays = {"x_train": TRAIN, "y_train": TRAIN_LABELS, "x_test": TEST, "y_test": TARGETS} | others
    members = {f"{name}.npy": npy(a) if isinstance(a, np.ndarray) else a for name, a in arrays.items()}
    return {"mnist.npz": zipped(members)}


def csvs_of(header="", names=("mnist_train.csv", "mnist_test.csv")):
    """MNIST's CSVs."""
    files = {}
    for name, images, labels in zip(names, (TRAIN, TEST), (TRAIN_LABELS, TARGETS), strict=True):
        rows = np.column_stack([labels, images.reshape(len(labels), -1)])
        files[name] = "\n".join([*header.split(), *(",".join(map(str, row)) for row in rows), ""]).encode()
    return files


def header(name):
    return ",".join(["label", *(name(number) for number in range(784))])


def renamed(files, name, pack=bytes):
    """The files under what `name` makes of their names, as `pack` packs them."""
    return {name(n): pack(content) for n, content in files.items()}


def only(files, *names):
    return {name: files[name] for name in names}


IDX = dict(zip(IDX_NAMES, map(idx, (TRAIN, TRAIN_LABELS, TEST, TARGETS)), strict=True))
GZIPPED = renamed(IDX, "{}.gz".format, gzip.compress)
MNIST_NAMES = header(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")
CSV = csvs_of()

FORMATS = {
    "CSV": csvs_of(MNIST_NAMES),
    "CSV of the competition's names": csvs_of(header("pixel{}".format)),
    "Fashion-MNIST's names": csvs_of(names=("fashion-mnist_train.csv", "fashion-mnist_test.csv")),
    "EMNIST's names": csvs_of(names=("emnist-digits-train.csv", "emnist-digits-test.csv")),
    "the first rows": csvs_of(names=("mnist_train_100.csv", "mnist_test_10.csv")),
    "npz": npz(),
    "npz of integers": npz(x_test=np.asfortranarray(TEST, int), y_train=TRAIN_LABELS.astype(np.uint64)),
    "npz of floats": npz(x_train=TRAIN.astype(float), y_test=TARGETS.astype("f4")),
    "npz of 0 to 1": npz(x_train=TRAIN / np.float32(255), x_test=TEST / 255),
    "flat npz": npz(x_train=TRAIN.reshape(20, 784), x_test=TEST[..., None], y_test=TARGETS[:, None]),
    "one-hot npz": npz(y_train=np.eye(10)[TRAIN_LABELS], y_test=np.eye(10, dtype=bool)[TARGETS]),
    "IDX": IDX,
    "IDX with dots": renamed(IDX, lambda name: name.replace("-idx", ".idx")),
    "IDX gzipped": GZIPPED,
    "IDX of EMNIST": renamed(IDX, lambda name: "emnist-digits-" + name.replace("t10k", "test")),
    "IDX of torchvision": renamed(IDX, "MNIST/raw/{}".format) | renamed(GZIPPED, "MNIST/raw/{}".format),
    "IDX in an archive": {"archive.zip": zipped(IDX)},
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_the_same_digits(tmp_path, format):
    folder = put(tmp_path / "input", FORMATS[format])
    (folder / "sample_submission.csv").write_text("id,label\n")  # alone it says nothing
    loaded = digits.load(folder)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(loaded, name)
        assert array.dtype == np.uint8 and array.flags.c_contiguous
    assert loaded.columns == ("ImageId", "Label") and loaded.kind == "mnist"
    # a run is of the contents, whatever their format: it goes on with another
    assert loaded.fingerprint == DATA.fingerprint


TEST_CSV = csvs_of(header("pixel{}".format))["mnist_test.csv"].split(b"\n")
FILES = {
    "train.csv": csvs_of(header("pixel{}".format))["mnist_train.csv"],
    "test.csv": b"\n".join(line.partition(b",")[2] for line in TEST_CSV),
    "sample_submission.csv": b"ImageId,Label\n" + b"".join(b"%d,0\n" % row for row in range(1, 13)),
}
COMPETITION = dataclasses.replace(DATA, test_labels=None, kind="competition")


PLACES = {
    "two folders": renamed(FILES, "downloads/digit-recognizer/{}".format),
    "each in a folder of its name": renamed(FILES, "{0}/{0}".format),
    "each in a folder of its stem": renamed(FILES, lambda name: f"{name[:-4]}/{name}"),
    "gzipped": renamed(FILES, "{}.gz".format, gzip.compress),
    "a browser's copies": renamed(FILES, lambda name: f"{name[:-4]} (1).csv"),
    "macOS' copies": renamed(FILES, lambda name: f"{name[:-4]} copy 2.csv"),
    "Windows' copies": renamed(FILES, lambda name: f"{name[:-4]} - Copy.csv"),
    "Safari's copies, gzipped": renamed(FILES, "{}-1.gz".format, gzip.compress),
    "another ending": renamed(FILES, "{}.txt".format),
    "capitals": renamed(FILES, str.title),
    "sampleSubmission": renamed(FILES, lambda name: name.replace("_s", "S")),
    "zips of their own": {f"{name}.zip": zipped({name: content}) for name, content in FILES.items()},
    "one is zipped": only(FILES, "test.csv", "sample_submission.csv") | {"a.zip": zipped(only(FILES, "train.csv"))},
    "the archive": {"digit-recognizer.zip": zipped(FILES)},
    "folders in an archive": {"a.ZIP": zipped(renamed(FILES, "a/b/{}".format))},
    "gzip in an archive": {"a.zip": zipped(renamed(FILES, "{}.gz".format, gzip.compress))},
    "an older archive": FILES | {"a.zip": zipped(dict.fromkeys(FILES, b"older"))},
    "a broken archive": FILES | {"test.csv.zip": b"cut"},
    "an archive of other data": FILES | {"a.zip": zipped(IDX)},
    "other data further down": {"a.zip": zipped(FILES), "old/notes/a.txt": b"?"},
    "an unpacked archive": {"a.zip": zipped(dict.fromkeys(FILES, b"older"))} | renamed(FILES, "a/{}".format),
    "copies": FILES | {"train (1).csv": b"?", "old/mnist.npz": b"?", "notes.txt": b"?"},
    "what macOS leaves": FILES | {"._train.csv": b"?", "__MACOSX/._test.csv": b"?"},
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found(tmp_path, place):
    assert digits.load(put(tmp_path, PLACES[place])).fingerprint == COMPETITION.fingerprint


def test_a_file_as_input(tmp_path):
    """It is completed from its folder, and goes before the files there."""
    put(tmp_path, PLACES["copies"] | {"sets.zip": zipped(FILES)})
    for name in ("train.csv", "test.csv", "sets.zip"):
        assert digits.load(tmp_path / name).fingerprint == COMPETITION.fingerprint
    put(tmp_path, npz())
    assert digits.load(tmp_path / "mnist.npz").fingerprint == DATA.fingerprint
    for name, message in (
        ("train (1).csv", r"train \(1\).csv: its first line is '\?'"),
        ("notes.txt", "notes.txt holds no data: looked for train.csv, .*, found notes.txt"),
        ("nothing.zip", "nothing.zip does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            digits.load(tmp_path / name)


ONE = b"1"
ENCRYPTED = zipped(npz()).replace(b"\x14\0\0\0\10", b"\x14\0\1\0\10")  # the flag, with each of its names

UNKNOWN = {
    "other files": ({"a.parquet": ONE, "a/b.png": ONE}, "no data: looked .*, found a/b.png, a.parquet; run"),
    "data too deep": ({"a/b/c/train.csv": ONE}, "holds no data: .* found a; run"),
    "many files": ({f"{i}.png": ONE for i in range(99)}, r"found 0.png, 1.png, .* and 91 more"),
    "a page, not an archive": ({"a.zip": b"<html>"}, r"a.zip is not a complete zip archive \(.*\): get it again"),
    "an encrypted archive": ({"a.zip": ENCRYPTED}, "mnist.npz: .* password required.*: unpack it by hand"),
    "the sample submission alone": ({"sample_submission.csv": ONE}, "no data: .*found sample_submission.csv"),
    "two sets": ({"a/train.csv": ONE, "b/test.csv": ONE}, "CSVs in .*/a and the comp.*/b: move all but one"),
    "two kinds": ({"a.zip": zipped(CSV), "b/mnist.npz": ONE}, "MNIST's CSVs in .* and mnist.npz in .*/b: move"),
    "two copies": ({"train-1.csv": ONE, "train-2.csv": ONE}, "train-1.csv and .*train-2.csv could both be"),
    "two sets in an archive": ({"a.zip": zipped({"a/train.csv": ONE, "b/train.csv": ONE})}, "could both be train.csv"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_understood_is_named(tmp_path, monkeypatch, kind):
    """The sample never takes its place."""
    files, message = UNKNOWN[kind]
    folder = put(tmp_path / "input", files)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    locations = paths.resolve(None, None)
    assert not locations.is_sample
    for input in (locations.input, folder):
        with pytest.raises(UserError, match=message) as refusal:
            digits.load(input)
        assert "\n" not in str(refusal.value)


def test_the_sample_takes_an_empty_folder(tmp_path, monkeypatch, call):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = tmp_path / "input"
    lines = call("split", "--output", tmp_path / "run").out.splitlines()
    assert lines[0] == lines[-1] == paths.SAMPLE_NOTICE
    (folder / ".download/unpacked").mkdir(parents=True)
    (folder / ".download/unpacked/train.csv").write_text("1")
    for name in (".gitkeep", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("")
    assert paths.resolve(None, None).is_sample and not paths.resolve(folder, None).is_sample
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    with pytest.raises(UserError, match=r"input holds no data: run python scripts/download.py"):
        paths.resolve(None, None)
    (folder / "something").mkdir()
    assert not paths.needs_download(None)
    with pytest.raises(UserError, match=r"input holds no data: looked for .* found something; run"):
        digits.load(paths.resolve(None, None).input)


def test_a_broken_link_is_named(tmp_path, monkeypatch):
    put(tmp_path, only(FILES, "test.csv"))
    (tmp_path / "train.csv").symlink_to("/nowhere/a")
    with pytest.raises(UserError, match=r"train.csv is a link to /nowhere/a, which does not exist"):
        digits.load(tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "input").symlink_to("/nowhere")
    with pytest.raises(UserError, match="input is a link to /nowhere, which does not exist"):
        digits.load(paths.resolve(None, None).input)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_nobody_may_read(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "input").mkdir(mode=0)
    with pytest.raises(UserError, match=r"input cannot be read .*: change its permissions"):
        digits.load(paths.resolve(None, None).input)


def cut(name, change):
    """The IDX files, of which one is changed."""
    return IDX | {name: change(IDX[name])}


def line(number, change, header=""):
    """MNIST's CSVs, in which a line, from 1, of mnist_train.csv is changed."""
    files = csvs_of(header)
    lines = files["mnist_train.csv"].decode().split("\n")
    lines[number - 1] = change(lines[number - 1])
    return files | {"mnist_train.csv": "\n".join(lines).encode()}


NPZ = npz()["mnist.npz"]
ZEROS = np.zeros((20, 28, 28), np.uint8)
HUGE = npy(ZEROS).replace(b"(20, 28, 28), }        ", b"(8000000000, 28, 28), }")

FAULTS = {
    "three IDX files": (only(IDX, *IDX_NAMES[:3]), f"{TEST_LABELS} is missing: looked .*found {TEST_IMAGES}"),
    "one CSV": (only(CSV, "mnist_train.csv"), "mnist_test.csv is missing: looked .*, found mnist_train.csv$"),
    "npz and IDX": (npz() | IDX, "holds MNIST's IDX files in .* and mnist.npz in .*: move all but one"),
    "two halves": (only(CSV, "mnist_test.csv") | {"train.csv": ONE}, "MNIST's CSVs in .* and the compet"),
    "magic number": (cut(IMAGES, lambda data: b"1" * 4 + data[4:]), f"{IMAGES} is not an IDX file of labels or"),
    "pictures as labels": (IDX | {LABELS: idx(ZEROS)}, f"{LABELS} has the shape .*, not a label for each"),
    "IDX cut": (cut(IMAGES, lambda data: data[:-1]), "says 20 x 28 x 28 bytes, but it holds less"),
    "IDX with more": (cut(LABELS, lambda data: data + b"\0"), "says 20 bytes, but it holds more"),
    "an impossible count": (cut(LABELS, lambda data: data[:4] + b"\xff" * 4), "says 4294967295 bytes, but it"),
    "another checksum": (cut(IMAGES, lambda data: gzip.compress(data)[:-8] + b"1" * 8), "is damaged .*CRC"),
    "gzip of gzip": (cut(IMAGES, lambda data: gzip.compress(gzip.compress(data))), "inside a gzip archive: un"),
    "zip": (cut(LABELS, lambda data: zipped({"a": data})), "is a zip archive or .*: unpack it"),
    "20 x 20": (IDX | {IMAGES: idx(ZEROS[:, :20, :20])}, r"the shape \(20, 20, 20\), not pictures of 28 x 28"),
    "19 labels": (IDX | {LABELS: idx(ZEROS[:19, 0, 0])}, r"\(19,\), not a label for each of 20 pictures"),
    "label 10": (IDX | {TEST_LABELS: idx(TARGETS + 4)}, f"{TEST_LABELS}: row 7: 10, not a whole number"),
    "pickled": (npz(x_train=np.array([{"a": 1}], object)), "x_train is pickled, which could run any program"),
    "an empty array": (npz(x_train=b""), "mnist.npz: x_train "),
    "a huge array": (npz(x_train=HUGE), "is damaged"),
    "archive in archive": (npz(x_train=zipped({"a": b""})), "x_train "),
    "npz of other arrays": ({"mnist.npz": zipped({"X.npy": npy(ZEROS)})}, "holds no x_train, only X"),
    "npz changed": ({"mnist.npz": NPZ[:500] + bytes(100) + NPZ[600:]}, "mnist.npz: x_train is damaged"),
    "an array alone": ({"mnist.npz": npy(ZEROS)}, "it is a single array"),
    "one label": (npz(y_train=np.full(20, 6)), r"y_train: all rows \(20\) have the label 6: nothing can be"),
    "fractions": (npz(x_test=TEST + 0.5), r"x_test: row 1: \d+.5, not a whole number from 0 to 255"),
    "not a number": (npz(x_test=TEST * np.nan), "x_test: row 1: nan, not a whole number"),
    "-1 to 1": (npz(x_test=TEST / 127.5 - 1), "x_test: row 1: .*, not a whole number"),
    "too great": (npz(x_test=TEST + np.uint16(256)), "x_test: row 1: .*, not a whole number from 0 to 255"),
    "words": (npz(y_test=np.full(12, "one")), "y_test holds <U3, not whole numbers from 0 to 9"),
    "not one-hot": (npz(y_test=np.ones((12, 10))), r"y_test has the shape \(12, 10\), not a label"),
    "a negative label": (npz(y_train=TRAIN_LABELS - 1), "y_train: row 1: -1, not a whole number from 0 to 9"),
    "784 columns": (line(1, lambda row: row[2:]), "mnist_train.csv: no column is called 'Label'"),
    "no labels": (csvs_of(MNIST_NAMES.replace("label", "id")), "_train.csv: no column is called 'Label'"),
    "label 12": (line(4, lambda row: "12" + row[1:]), r"row 4 \(line 4\), column label: '12', not a whole"),
    "a letter": (line(4, lambda row: row + "x", MNIST_NAMES), r"row 3 \(line 4\), column 28x28: '\d*x', not"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(tmp_path, fault):
    files, message = FAULTS[fault]
    folder = put(tmp_path / "input", files)
    with pytest.raises(UserError, match=message) as refusal:
        digits.load(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


@pytest.mark.parametrize("format", ["CSV", "npz", "IDX gzipped"])
def test_data_on_kaggle(tmp_path, monkeypatch, format):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(paths, "KAGGLE", tmp_path)
    for folder in ("input/notebook", "input"):
        with pytest.raises(UserError, match="input holds no data: attach the competition digit-recognizer"):
            paths.resolve(None, None)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    folder = put(tmp_path / "input/a", FORMATS[format])
    assert paths.resolve(None, None).input == folder
    # each comes before the one before
    for name in ("other/competition", "competitions/digit-recognizer", "digit-recognizer"):
        write_csvs(tmp_path / "input" / name, DATA)
        assert paths.resolve(None, None) == paths.Locations(tmp_path / "input" / name, tmp_path / "working")
