"""The formats that data comes in beside the competition's CSVs, and where and under which names files are found."""

import gzip
import io
import os
import zipfile

import numpy as np
import pytest
from conftest import write_csvs, write_npz

from digit_recognizer.data import digits, paths
from digit_recognizer.data.input_files import FORMATS as KNOWN_FORMATS
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = IDX = tuple(KNOWN_FORMATS[-1].files)


def idx(array, magic=None) -> bytes:
    """An IDX file of unsigned bytes, or of what its `magic` number says."""
    head = [0x800 + array.ndim if magic is None else magic, *array.shape]
    return np.array(head, ">u4").tobytes() + array.tobytes()


def write_idx(folder, dataset, name=str, pack=bytes):
    """The four files, under what `name` makes of their names, as `pack` packs them."""
    folder.mkdir(parents=True)
    parts = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    for file, array in zip(IDX, parts, strict=True):
        (folder / name(file)).write_bytes(pack(idx(array)))
    return folder


def write_mnist_csvs(folder, dataset, header=(), names=("mnist_train.csv", "mnist_test.csv")):
    folder.mkdir(parents=True)
    parts = ((dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels))
    for name, (images, labels) in zip(names, parts, strict=True):
        rows = np.column_stack([labels, images.reshape(len(labels), -1)])
        lines = [*header, *(",".join(map(str, row)) for row in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def columns(name):
    return [",".join(["label", *(name(number) for number in range(784))])]


def gzipped(name):
    return f"{name}.gz"


def npz(**others):
    """Makes mnist.npz, in which some arrays are others; each is a function of the data, or an array."""

    def make(folder, data):
        return write_npz(folder, data, **{n: f(data) if callable(f) else f for n, f in others.items()})

    return make


def csvs_named(train, test):
    return lambda folder, data: write_mnist_csvs(folder, data, names=(train, test))


FORMATS = {
    "CSV": lambda folder, data: write_mnist_csvs(
        folder, data, columns(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")
    ),
    "CSV of the competition's names": lambda folder, data: write_mnist_csvs(
        folder, data, columns("pixel{}".format)
    ),
    "CSV without header": write_mnist_csvs,
    "Fashion-MNIST's names": csvs_named("fashion-mnist_train.csv", "fashion-mnist_test.csv"),
    "EMNIST's names": csvs_named("emnist-digits-train.csv", "emnist-digits-test.csv"),
    "the first rows": csvs_named("mnist_train_100.csv", "mnist_test_10.csv"),
    "npz": write_npz,
    "npz of int64": npz(
        y_train=lambda data: data.train_labels.astype(int),
        x_test=lambda data: np.asfortranarray(data.test_images, int),
    ),
    "npz of floats": npz(
        x_train=lambda data: data.train_images.astype(float),
        y_test=lambda data: data.test_labels.astype("f4"),
    ),
    "npz of 0 to 1": npz(
        x_train=lambda data: data.train_images / np.float32(255), x_test=lambda data: data.test_images / 255
    ),
    "npz, flat or with a channel": npz(
        x_train=lambda data: data.train_images.reshape(80, 784),
        x_test=lambda data: data.test_images[..., None],
        y_test=lambda data: data.test_labels[:, None],
    ),
    "npz, one-hot": npz(
        y_train=lambda data: np.eye(10)[data.train_labels],
        y_test=lambda data: np.eye(10, dtype=bool)[data.test_labels],
    ),
    "IDX": write_idx,
    "IDX with dots": lambda folder, data: write_idx(folder, data, lambda name: name.replace("-idx", ".idx")),
    "IDX gzipped": lambda folder, data: write_idx(folder, data, gzipped, gzip.compress),
    "IDX named .gz": lambda folder, data: write_idx(folder, data, gzipped),
    "IDX of EMNIST": lambda folder, data: write_idx(
        folder, data, lambda name: "emnist-digits-" + name.replace("t10k", "test")
    ),
    "IDX of torchvision": lambda folder, data: write_idx(folder / "MNIST/raw", data).parents[1],
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_the_same_digits(labelled, tmp_path, format):
    folder = FORMATS[format](tmp_path / "input", labelled)
    (folder / "sample_submission.csv").write_text("id,label\n")  # alone it says nothing
    loaded = digits.load(folder)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(loaded, name)
        assert (array == getattr(labelled, name)).all()
        assert array.dtype == np.uint8 and array.flags.c_contiguous
    assert (loaded.ids == labelled.ids).all()
    assert loaded.columns == ("ImageId", "Label") and loaded.kind == "mnist"
    # a run is of the contents, whatever their format: it goes on with another
    competition = digits.load(write_csvs(tmp_path / "csvs", labelled))
    assert loaded.fingerprint == labelled.fingerprint != competition.fingerprint
    assert competition.test_labels is None


def zipped(members) -> bytes:
    """A zip archive of `members`, names with their contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def put(folder, files):
    """Writes `files`, names with their contents, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def placed(change):
    """Puts what `change` makes of the competition's files, names with their contents, into a folder."""
    return lambda folder, csvs: put(folder, change({name: (csvs / name).read_bytes() for name in FILES}))


def each(name, pack=bytes):
    """Puts each file where `name`, with its name or stem in it, says, as `pack` packs it."""
    return placed(lambda files: {name.format(name=n, stem=n[:-4]): pack(files[n]) for n in files})


PLACES = {
    "a folder": each("digit-recognizer/{name}"),
    "two folders": each("downloads/digit-recognizer/{name}"),
    "each in a folder of its name": each("{name}/{name}"),
    "each in a folder of its stem": each("{stem}/{name}"),
    "gzipped": each("{name}.gz", gzip.compress),
    "a browser's copies": each("{stem} (1).csv"),
    "macOS' copies": each("{stem} copy 2.csv"),
    "Windows' copies": each("{stem} - Copy.csv"),
    "Safari's copies, gzipped": each("{name}-1.gz", gzip.compress),
    "another ending": each("{name}.txt"),
    "zips of their own": placed(lambda files: {f"{n}.zip": zipped({n: files[n]}) for n in files}),
    "one is zipped": placed(
        lambda files: {"train.csv.zip": zipped({"train.csv": files.pop("train.csv")})} | files
    ),
    "the archive": placed(lambda files: {"digit-recognizer.zip": zipped(files)}),
    "the archive's copy": placed(lambda files: {"digit-recognizer (1).zip": zipped(files)}),
    "an archive in a folder": placed(lambda files: {"new/archive.zip": zipped(files)}),
    "folders in an archive": placed(lambda files: {"a.ZIP": zipped({f"a/b/{n}": files[n] for n in files})}),
    "gzip in an archive": placed(lambda f: {"a.zip": zipped({f"{n}.gz": gzip.compress(f[n]) for n in f})}),
    "capitals": placed(lambda files: {n.title(): files[n] for n in files}),
    "sampleSubmission": placed(lambda files: {n.replace("_s", "S"): files[n] for n in files}),
    "an older archive": placed(lambda files: files | {"a.zip": zipped(dict.fromkeys(files, b"older"))}),
    "a broken archive": placed(lambda files: files | {"test.csv.zip": b"cut"}),
    "copies": placed(lambda files: files | {"train (1).csv": b"?", "old/mnist.npz": b"?", "notes.txt": b"?"}),
    "what macOS leaves": placed(lambda files: files | {"._train.csv": b"?", "__MACOSX/._test.csv": b"?"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found(csvs, dataset, tmp_path, place):
    folder = PLACES[place](tmp_path / "input", csvs)
    assert digits.load(folder).fingerprint == dataset.fingerprint


def test_a_file_as_input(csvs, labelled, dataset, tmp_path):
    """It is completed from its folder, and goes before the files there."""
    folder = PLACES["copies"](tmp_path / "input", csvs)
    (folder / "sets.zip").write_bytes(zipped({name: (csvs / name).read_bytes() for name in FILES}))
    for name in ("train.csv", "test.csv", "sets.zip"):
        assert digits.load(folder / name).fingerprint == dataset.fingerprint
    write_npz(folder, labelled)
    assert digits.load(folder / "mnist.npz").fingerprint == labelled.fingerprint
    for name, message in (
        ("train (1).csv", r"train \(1\).csv: its first line is '\?'"),
        ("notes.txt", "notes.txt holds no data: looked for train.csv, .*, found notes.txt"),
        ("nothing.zip", "nothing.zip does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            digits.load(folder / name)


UNKNOWN = {
    "other files": (
        {"a.parquet": b"?", "a/b.png": b"?"},
        "holds no data: looked for .*, found b.png, a.parquet; run",
    ),
    "data too deep": ({"a/b/c/train.csv": b"?"}, "holds no data: .* found a; run"),
    "many files": ({f"{i}.png": b"?" for i in range(99)}, r"found 0.png, 1.png, .* and 91 more"),
    "a page, not an archive": ({"a.zip": b"<html>"}, r"a.zip is no whole zip archive \(.*\): get it again"),
    "half of a download": ({"train.csv.crdownload": b"1"}, "found train.csv.crdownload"),
    "the sample submission alone": ({FILES[2]: b"I,L\n1,2"}, "no data: .*found sample_submission.csv"),
    "two sets": (
        {"a/train.csv": b"1", "b/test.csv": b"1", "b/train.csv": b"1"},
        "the competition's CSVs in .*/a and the competition's CSVs in .*/b: move all but one away, or give one as",
    ),
    "two copies": (
        {"train (1).csv": b"1", "train (2).csv": b"1"},
        r"train \(1\).csv and .*train \(2\).csv could both be train.csv: move one of them away",
    ),
    "two sets in an archive": (
        {"a.zip": zipped({"a/train.csv": b"1", "b/train.csv": b"1"})},
        "a.zip/a/train.csv and .*a.zip/b/train.csv could both be train.csv",
    ),
    "a damaged archive": (
        {"a.zip": zipped({"mnist.npz": bytes(999)}).replace(b"\0\0", b"\1\1", 9)},
        "a.zip",
    ),
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


def test_the_sample_takes_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = tmp_path / "input"
    assert paths.resolve(None, None).is_sample
    (folder / ".download/unpacked").mkdir(parents=True)
    (folder / ".download/unpacked/train.csv").write_text("1")
    for name in (".gitkeep", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("")
    assert paths.resolve(None, None).is_sample and not paths.resolve(folder, None).is_sample
    with pytest.raises(UserError, match="holds no data"):
        digits.load(folder)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    assert paths.needs_download(None) and not paths.needs_download(folder)
    with pytest.raises(UserError, match=r"input holds no data: run python scripts/download.py"):
        paths.resolve(None, None)
    (folder / "something").mkdir()
    assert not paths.needs_download(None)
    with pytest.raises(UserError, match=r"input holds no data: looked for .* found something; run"):
        digits.load(paths.resolve(None, None).input)


def test_a_broken_link_is_named(csvs, tmp_path, monkeypatch):
    (csvs / "train.csv").unlink()
    (csvs / "train.csv").symlink_to("/nowhere/a")
    with pytest.raises(UserError, match=r"train.csv is a link to /nowhere/a, which does not exist"):
        digits.load(csvs)
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


def changed(name, change, make=write_idx):
    """A fault: the bytes of that file are changed."""
    return lambda folder, data: put(folder, {name: change((make(folder, data) / name).read_bytes())})


def line(number, change, header=()):
    """A fault: that line, from 1, of mnist_train.csv is changed."""

    def changed_line(data):
        lines = data.decode().split("\n")
        lines[number - 1] = change(lines[number - 1])
        return "\n".join(lines).encode()

    return changed(
        "mnist_train.csv", changed_line, lambda folder, data: write_mnist_csvs(folder, data, header)
    )


def npz_member(content):
    """A fault: x_train.npy in mnist.npz is `content`."""

    def make(folder, data):
        with zipfile.ZipFile(write_npz(folder, data) / "mnist.npz") as old:
            members = {name: old.read(name) for name in old.namelist()}
        return put(folder, {"mnist.npz": zipped(members | {"x_train.npy": content})})

    return make


def without(name, make=write_idx):
    def made(folder, data):
        (make(folder, data) / name).unlink()
        return folder

    return made


def both(first, second):
    def make(folder, data):
        for path in second(folder.with_name("second"), data).iterdir():
            path.rename(first(folder, data) / path.name if not folder.exists() else folder / path.name)
        return folder

    return make


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ZEROS = np.zeros((80, 28, 28), np.uint8)
ONE_CSV = "mnist_test.csv is missing: looked for mnist_train.csv, mnist_test.csv, found mnist_train.csv$"

FAULTS = {
    "three IDX files": (
        without(TEST_LABELS),
        f"{TEST_LABELS} is missing: looked for {IMAGES}, .*found {TEST_IMAGES}",
    ),
    "one IDX file": (without(IMAGES, without(LABELS, without(TEST_LABELS))), f"{IMAGES} is missing"),
    "one CSV": (without("mnist_test.csv", write_mnist_csvs), ONE_CSV),
    "npz and IDX": (
        both(write_npz, write_idx),
        "holds mnist.npz in .* and MNIST's IDX files in .*: move all but one",
    ),
    "half of two forms": (
        both(without("test.csv", write_csvs), without("mnist_train.csv", write_mnist_csvs)),
        "holds MNIST's CSVs in .* and the competition's CSVs in .* or give one as --input",
    ),
    "magic number": (
        changed(IMAGES, lambda data: b"\0\0\x0d\x03" + data[4:]),
        f"{IMAGES}: its magic number is 3331, not 2051: it is another file, or damaged",
    ),
    "pictures as labels": (
        changed(LABELS, lambda _: idx(ZEROS)),
        f"{LABELS}: its magic number is 2051, not 2049",
    ),
    "IDX cut": (changed(IMAGES, lambda data: data[:-1]), "says 80 x 28 x 28 bytes, but it holds less"),
    "IDX cut in its header": (changed(IMAGES, lambda data: data[:9]), f"{IMAGES} ends within its header"),
    "IDX with more": (changed(LABELS, lambda data: data + b"\0"), "says 80 bytes, but it holds more"),
    "no IDX": (changed(LABELS, lambda data: b""), f"{LABELS} is empty"),
    "an impossible count": (
        changed(IMAGES, lambda data: data[:4] + b"\xff" * 4 + data[8:]),
        "its header says 4294967295 x 28 x 28 bytes, but it holds less",
    ),
    "gzip cut": (changed(IMAGES, lambda data: gzip.compress(data)[:-9]), "is damaged .*: get the file again"),
    "another checksum": (
        changed(IMAGES, lambda data: gzip.compress(data)[:-8] + b"12345678"),
        "is damaged .*CRC",
    ),
    "gzip of gzip": (
        changed(IMAGES, lambda data: gzip.compress(gzip.compress(data))),
        f"{IMAGES} is a gzip archive inside a gzip archive: unpack it",
    ),
    "zip": (changed(LABELS, lambda data: zipped({"a": data})), "is a zip archive .*give it the ending .zip"),
    "pictures of 20 x 20": (
        changed(IMAGES, lambda data: idx(np.zeros((80, 20, 20), np.uint8))),
        rf"{IMAGES} has the shape \(80, 20, 20\), not pictures of 28 x 28",
    ),
    "no pictures": (changed(IMAGES, lambda data: idx(ZEROS[:0])), r"\(0, 28, 28\)"),
    "79 labels": (
        changed(LABELS, lambda _: idx(ZEROS[:79, 0, 0])),
        r"\(79,\), not a label for each of 80 pictures",
    ),
    "label 10": (
        changed(TEST_LABELS, lambda data: data[:-3] + b"\x0a" + data[-2:]),
        f"{TEST_LABELS}: row 18: 10, not a whole number from 0 to 9",
    ),
    "pickled": (npz(x_train=np.array([{"a": 1}], object)), "x_train is pickled, which could run any program"),
    "an empty array": (npz_member(b""), "mnist.npz: x_train "),
    "damaged header": (npz_member(npy(np.zeros(3))[:40] + b"\xbe" * 99), "x_train is damaged"),
    "cut array": (npz_member(npy(ZEROS)[:-5]), "x_train is damaged"),
    "an array that no memory holds": (
        npz_member(npy(ZEROS).replace(b"(80, 28, 28), }        ", b"(8000000000, 28, 28), }")),
        "x_train is damaged",
    ),
    "archive in archive": (npz_member(zipped({"a": b""})), "x_train "),
    "npz of other arrays": (
        lambda folder, data: folder.mkdir() or np.savez(folder / "mnist.npz", X=[1]) or folder,
        "mnist.npz holds no x_train, only X",
    ),
    "npz cut": (changed("mnist.npz", lambda data: data[:-30], write_npz), "npz is no whole archive"),
    "npz changed": (
        changed("mnist.npz", lambda d: d[:5000] + bytes(b ^ 255 for b in d[5000:5100]) + d[5100:], write_npz),
        "mnist.npz: x_train is damaged",
    ),
    "an array alone": (changed("mnist.npz", lambda data: npy(ZEROS), write_npz), "it is a single array"),
    "one label": (npz(y_train=np.full(80, 6)), r"y_train: all rows \(80\) have the label 6: nothing can be"),
    "fractions": (
        npz(x_test=np.full((20, 28, 28), 1.5)),
        "x_test: row 1: 1.5, not a whole number from 0 to 255",
    ),
    "not a number": (npz(x_test=np.full((20, 28, 28), np.nan)), "x_test: row 1: nan, not a whole number"),
    "-1 to 1": (
        npz(x_test=lambda data: data.test_images / 127.5 - 1),
        "x_test: row 1: -1.0, not a whole number",
    ),
    "too great": (npz(x_test=np.full((20, 28, 28), 256)), "x_test: row 1: 256, not a whole number from 0"),
    "words": (npz(y_test=np.full(20, "one")), "y_test holds <U3, not whole numbers from 0 to 9"),
    "not one-hot": (npz(y_test=np.ones((20, 10))), r"y_test has the shape \(20, 10\), not a label"),
    "a negative label": (npz(y_train=np.full(80, -1)), "y_train: row 1: -1, not a whole number from 0 to 9"),
    "784 columns": (
        line(1, lambda row: row[2:]),
        r"mnist_train.csv: row 2 \(line 2\) has 785 columns, not 784",
    ),
    "no labels": (
        lambda folder, data: write_mnist_csvs(
            folder, data, [columns("pixel{}".format)[0].replace("label", "id")]
        ),
        "mnist_train.csv: no column is called 'Label'",
    ),
    "label 12": (
        line(4, lambda row: "12" + row[1:]),
        r"row 4 \(line 4\), column label: '12', not a whole number",
    ),
    "a letter, with a header": (
        line(4, lambda row: row[:-1] + "x", header=columns(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")),
        r"mnist_train.csv: row 3 \(line 4\), column 28x28: '0?x', not a whole number from 0 to 255",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(labelled, tmp_path, fault):
    make, message = FAULTS[fault]
    folder = make(tmp_path / "input", labelled)
    with pytest.raises(UserError, match=message) as refusal:
        digits.load(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


@pytest.mark.parametrize("format", ["CSV", "npz", "IDX gzipped"])
def test_other_data_on_kaggle(labelled, tmp_path, monkeypatch, format):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(paths, "KAGGLE", tmp_path)
    for make in (tmp_path / "none").mkdir, (tmp_path / "input/session").mkdir:
        with pytest.raises(UserError, match="input holds no data: attach the competition digit-recognizer"):
            paths.resolve(None, None)
        make(parents=True)
    folder = FORMATS[format](tmp_path / "input/a", labelled)
    assert paths.resolve(None, None).input == folder
    for name in ("other/competition", "digit-recognizer"):  # each comes before the one before
        write_csvs(tmp_path / "input" / name, labelled)
        assert paths.resolve(None, None).input == tmp_path / "input" / name
