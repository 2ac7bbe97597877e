"""The formats that data comes in beside the competition's CSVs: each the same digits, and what is refused."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from conftest import write_csvs, write_npz

from digit_recognizer.data import digits, paths
from digit_recognizer.files import UserError

IDX = [names[0] for names in paths.FORMATS[paths.IDX]]


def idx(array, magic=None) -> bytes:
    """An IDX file of unsigned bytes, or of what its `magic` number says."""
    head = [0x800 + array.ndim if magic is None else magic, *array.shape]
    return np.array(head, ">u4").tobytes() + array.tobytes()


def write_idx(folder, dataset, name=str, pack=bytes):
    """The four files, under what `name` makes of their names, as `pack` packs them."""
    folder.mkdir()
    parts = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    for file, array in zip(IDX, parts, strict=True):
        (folder / name(file)).write_bytes(pack(idx(array)))
    return folder


def write_mnist_csvs(folder, dataset, header):
    folder.mkdir()
    parts = ((dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels))
    for name, (images, labels) in zip(("mnist_train.csv", "mnist_test.csv"), parts, strict=True):
        rows = np.column_stack([labels, images.reshape(len(labels), -1)])
        lines = [*header, *(",".join(map(str, row)) for row in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def columns(name):
    return [",".join(["label", *(name(number) for number in range(784))])]


def gzipped(name):
    return f"{name}.gz"


FORMATS = {
    "CSV": lambda folder, data: write_mnist_csvs(
        folder, data, columns(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")
    ),
    "CSV of the competition's names": lambda folder, data: write_mnist_csvs(
        folder, data, columns("pixel{}".format)
    ),
    "CSV without header": lambda folder, data: write_mnist_csvs(folder, data, []),
    "npz": write_npz,
    "npz of int64": lambda folder, data: write_npz(
        folder, data, y_train=data.labels.train.astype(int), x_test=np.asfortranarray(data.test_images, int)
    ),
    "IDX": write_idx,
    "IDX with dots": lambda folder, data: write_idx(folder, data, lambda name: name.replace("-idx", ".idx")),
    "IDX gzipped": lambda folder, data: write_idx(folder, data, gzipped, gzip.compress),
    "IDX named .gz": lambda folder, data: write_idx(folder, data, gzipped),
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_the_same_digits(labelled, tmp_path, format):
    folder = FORMATS[format](tmp_path / "input", labelled)
    (folder / "sample_submission.csv").write_text("id,label\n")  # alone it says nothing
    found = digits.load(folder)
    assert (found.train_images == labelled.train_images).all() and (
        found.test_images == labelled.test_images
    ).all()
    assert (found.train_labels == labelled.train_labels).all() and (
        found.ids == labelled.ids
    ).all()
    assert (found.test_labels == labelled.test_labels).all()
    for array in (found.train_images, found.test_images, found.train_labels, found.test_labels):
        assert array.dtype == np.uint8 and array.flags.c_contiguous
    assert found.columns == ("ImageId", "Label") and found.kind == "mnist"
    # a run is of the contents, whatever their format: it goes on with another
    competition = digits.load(write_csvs(tmp_path / "csvs", labelled))
    assert found.fingerprint() == labelled.fingerprint() != competition.fingerprint()
    assert competition.test_labels is None


@pytest.mark.parametrize("format", FORMATS)
def test_labels_are_those_of_the_whole(labelled, tmp_path, format):
    """Whatever is wrong with the pixels."""
    folder = FORMATS[format](tmp_path / "input", labelled)
    whole = digits.load(folder).labels
    spoil_pixels(folder)
    with pytest.raises(UserError):
        digits.load(folder)
    labels = digits.load_labels(folder)
    assert labels.fingerprint() == whole.fingerprint() and labels.kind == whole.kind == "mnist"
    for ours, theirs in ((labels.train, whole.train), (labels.test, whole.test)):
        assert ours.dtype == theirs.dtype == np.uint8 and (ours == theirs).all()


def spoil_pixels(folder):
    """Makes the training pictures of any format unreadable, and leaves the labels."""
    if (npz := folder / "mnist.npz").exists():
        with np.load(npz) as file:
            arrays = dict(file)
        np.savez(npz, **(arrays | {"x_train": np.array([{}], object)}))
    elif (table := folder / "mnist_train.csv").exists():
        lines = table.read_text().split("\n")
        table.write_text("\n".join([*lines[:40], lines[40] + "x", *lines[41:]]))
    else:
        (path,) = folder.glob("train-images*")
        path.write_bytes(b"damaged")


def changed(name, change, make=write_idx):
    """A fault: the bytes of that file are changed."""

    def made(folder, data):
        make(folder, data)
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        return folder

    return made


def line(number, change, file="mnist_train.csv", header=()):
    """A fault: that line, from 1, of MNIST's CSV is changed."""

    def make(folder, data):
        write_mnist_csvs(folder, data, header)
        lines = (folder / file).read_text().split("\n")
        lines[number - 1] = change(lines[number - 1])
        (folder / file).write_text("\n".join(lines))
        return folder

    return make


def npz(**others):
    return lambda folder, data: write_npz(folder, data, **others)


def npz_member(content):
    """A fault: x_train.npy in mnist.npz is `content`."""

    def make(folder, data):
        write_npz(folder, data)
        with zipfile.ZipFile(folder / "mnist.npz") as old, zipfile.ZipFile(folder / "new", "w") as new:
            for name in old.namelist():
                new.writestr(name, content if name == "x_train.npy" else old.read(name))
        (folder / "new").replace(folder / "mnist.npz")
        return folder

    return make


def zipped(content) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mnist.npz", content)
    return file.getvalue()


def without(name, make=write_idx):
    def made(folder, data):
        make(folder, data)
        (folder / name).unlink()
        return folder

    return made


def both(*makers):
    def make(folder, data):
        for number, maker in enumerate(makers):
            part = maker(folder.with_name(f"part {number}"), data)
            folder.mkdir(exist_ok=True)
            for path in part.iterdir():
                path.rename(folder / path.name)
        return folder

    return make


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = IDX
CSVS = FORMATS["CSV without header"]

FAULTS = {
    "three IDX files": (without(TEST_LABELS), rf"{TEST_LABELS} is missing: MNIST's IDX files are {IMAGES}, "),
    "one IDX file": (without(IMAGES, without(LABELS, without(TEST_LABELS))), f"{IMAGES} is missing"),
    "one CSV": (
        without("mnist_test.csv", CSVS),
        r"mnist_test.csv is missing: MNIST's CSVs are mnist_train.csv, mnist_test.csv together$",
    ),
    "npz and IDX": (both(write_npz, write_idx), "holds mnist.npz and MNIST's IDX files: move all but one"),
    "the competition and npz": (
        both(write_csvs, write_npz),
        "holds the competition's CSVs and mnist.npz: .* or take another --input",
    ),
    "half of two forms": (
        both(without("test.csv", write_csvs), without("mnist_train.csv", CSVS)),
        "holds the competition's CSVs and MNIST's CSVs",
    ),
    "magic number": (
        changed(IMAGES, lambda data: b"\0\0\x0d\x03" + data[4:]),
        f"{IMAGES}: its magic number is 3331, not 2051: it is another file, or damaged",
    ),
    "labels as pictures": (
        changed(IMAGES, lambda data: idx(np.zeros(80, np.uint8))),
        f"{IMAGES}: its magic number is 2049, not 2051",
    ),
    "pictures as labels": (
        changed(LABELS, lambda data: idx(np.zeros((80, 28, 28), np.uint8))),
        f"{LABELS}: its magic number is 2051, not 2049",
    ),
    "no IDX": (changed(LABELS, lambda data: b"hello world"), f"{LABELS}: its magic number is "),
    "empty IDX": (changed(TEST_IMAGES, lambda data: b""), f"{TEST_IMAGES} ends within its header"),
    "IDX cut in its header": (changed(IMAGES, lambda data: data[:15]), f"{IMAGES} ends within its header"),
    "IDX cut": (
        changed(IMAGES, lambda data: data[:-1]),
        f"{IMAGES}: its header says 80 x 28 x 28 bytes, but it holds less",
    ),
    "IDX with more": (changed(LABELS, lambda data: data + b"\0"), "says 80 bytes, but it holds more"),
    "an impossible count": (
        changed(IMAGES, lambda data: data[:4] + b"\xff" * 4 + data[8:]),
        "its header says 4294967295 x 28 x 28 bytes, but it holds less",
    ),
    "an impossible count, gzipped": (
        changed(IMAGES, lambda data: gzip.compress(data[:4] + b"\xff" * 4 + data[8:])),
        "its header says 4294967295 x 28 x 28 bytes, but it holds less",
    ),
    "gzip cut": (
        changed(IMAGES, lambda data: gzip.compress(data)[:-9]),
        f"{IMAGES} is no whole gzip archive .*: get it again",
    ),
    "gzip cut in its header": (
        changed(LABELS, lambda data: gzip.compress(data)[:5]),
        f"{LABELS} is no whole gzip archive",
    ),
    "gzip with another checksum": (
        changed(IMAGES, lambda data: gzip.compress(data)[:-8] + b"12345678"),
        f"{IMAGES} is no whole gzip archive .*CRC",
    ),
    "gzip damaged": (
        changed(IMAGES, lambda data: gzip.compress(data)[:100] + b"\xff" * 50 + gzip.compress(data)[150:]),
        f"{IMAGES} is no whole gzip archive",
    ),
    "gzip of gzip": (
        changed(IMAGES, lambda data: gzip.compress(gzip.compress(data))),
        f"{IMAGES} holds a further archive: unpack that",
    ),
    "gzip of zip": (changed(LABELS, lambda data: gzip.compress(zipped(data))), "holds a further archive"),
    "zip": (changed(LABELS, zipped), f"{LABELS} holds a further archive"),
    "pictures of 20 x 20": (
        changed(IMAGES, lambda data: idx(np.zeros((80, 20, 20), np.uint8))),
        rf"{IMAGES} has the shape \(80, 20, 20\), not pictures of 28 x 28",
    ),
    "no pictures": (changed(IMAGES, lambda data: idx(np.zeros((0, 28, 28), np.uint8))), r"\(0, 28, 28\)"),
    "79 labels": (
        changed(LABELS, lambda data: idx(np.zeros(79, np.uint8))),
        rf"{LABELS} has the shape \(79,\), not a label for each of 80 pictures",
    ),
    "label 10": (
        changed(TEST_LABELS, lambda data: data[:-3] + b"\x0a" + data[-2:]),
        f"{TEST_LABELS}: row 18: 10, not a whole number from 0 to 9",
    ),
    "pickled": (
        npz(x_train=np.array([{"a": 1}], object)),
        "mnist.npz: x_train is pickled, which could run any program, and is not loaded",
    ),
    "an empty array": (
        npz_member(b""),
        "mnist.npz: x_train is no array, or a damaged one",
    ),
    "damaged header": (npz_member(npy(np.zeros(3))[:40] + b"\xbe" * 99), "x_train is no array, or a damaged"),
    "cut array": (
        npz_member(npy(np.zeros((80, 28, 28), np.uint8))[:-5]),
        "x_train is no array, or a damaged",
    ),
    "an array that no memory holds": (
        npz_member(
            npy(np.zeros((80, 28, 28), np.uint8)).replace(
                b"(80, 28, 28), }        ", b"(8000000000, 28, 28), }"
            )
        ),
        "x_train is no array, or a damaged",
    ),
    "archive as array": (npz_member(zipped(b"")), "x_train is no array, or a damaged"),
    "archive in archive": (
        changed("mnist.npz", zipped, write_npz),
        "mnist.npz holds no x_train.npy, only mnist.npz",
    ),
    "another npz": (
        lambda folder, data: folder.mkdir() or np.savez(folder / "mnist.npz", X=[1]) or folder,
        "mnist.npz holds no x_train.npy, only X.npy",
    ),
    "npz cut": (changed("mnist.npz", lambda data: data[:-30], write_npz), "npz is no whole archive"),
    "no npz": (changed("mnist.npz", lambda data: b"hello", write_npz), "npz is no whole archive"),
    "npz changed": (
        changed(
            "mnist.npz",
            lambda data: data[:5000] + bytes(each ^ 255 for each in data[5000:5100]) + data[5100:],
            write_npz,
        ),
        "mnist.npz: x_train is no array, or a damaged",
    ),
    "an array alone": (
        changed("mnist.npz", lambda data: npy(np.zeros(3)), write_npz),
        "mnist.npz is no archive of arrays, but a single one",
    ),
    "empty npz": (changed("mnist.npz", lambda data: b"", write_npz), "npz is no whole archive"),
    "one label": (npz(y_train=np.full(80, 6)), r"y_train: all rows \(80\) have the label 6: nothing can be"),
    "fractions": (
        npz(x_test=np.zeros((20, 28, 28))),
        "x_test holds float64, not whole numbers from 0 to 255",
    ),
    "too great": (npz(x_test=np.full((20, 28, 28), 256)), "x_test: row 1: 256, not a whole number from 0"),
    "labels one-hot": (npz(y_test=np.eye(20, 10)), r"y_test has the shape \(20, 10\), not a label"),
    "a negative label": (npz(y_train=np.full(80, -1)), "y_train: row 1: -1, not a whole number from 0 to 9"),
    "784 columns": (
        line(1, lambda row: row[2:]),
        "mnist_train.csv: its first line has 784 columns, not 785: label and pixels",
    ),
    "no labels": (
        line(1, lambda row: row.replace("label", "id"), header=columns("pixel{}".format)),
        "mnist_train.csv: its first column is 'id', not 'label'",
    ),
    "label 12 in a CSV": (
        line(4, lambda row: "12" + row[1:], "mnist_test.csv"),
        r"mnist_test.csv: row 4 \(line 4\), column label: '12', not a whole number from 0 to 9",
    ),
    "a letter, with a header": (
        line(4, lambda row: row[:-1] + "x", header=columns(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")),
        r"mnist_train.csv: row 3 \(line 4\), column 28x28: '0?x', not a whole number from 0 to 255",
    ),
    "a row cut": (
        line(80, lambda row: row[:-4]),
        r"row 80 \(line 80\) has 78\d columns, not 785: is the file cut off",
    ),
    "a header alone": (
        changed("mnist_test.csv", lambda data: data[: data.index(b"\n")], FORMATS["CSV"]),
        "mnist_test.csv has a header and no rows",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(labelled, tmp_path, fault):
    make, message = FAULTS[fault]
    folder = make(tmp_path / "input", labelled)
    with pytest.raises(UserError, match=message) as refusal:
        digits.load(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


LABEL_FAULTS = (
    *("one CSV", "npz and IDX", "pictures as labels", "no IDX", "IDX with more", "gzip cut in its header"),
    *("gzip of zip", "zip", "label 10", "npz cut", "no npz", "empty npz", "an array alone", "one label"),
    *("a negative label", "no labels", "label 12 in a CSV", "a header alone"),
)


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_labels_are_refused_as_the_whole_is(labelled, tmp_path, fault):
    make, message = FAULTS[fault]
    folder = make(tmp_path / "input", labelled)
    with pytest.raises(UserError, match=message):
        digits.load_labels(folder)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(20, 10), r"y_test has the shape \(20, 10\), not a label for each picture"),
        (np.zeros(0, np.uint8), r"y_test has the shape \(0,\), not a label for each picture"),
        (np.array(3), r"y_test has the shape \(\), not a label for each picture"),
        (np.full(20, 0.5), "y_test holds float64, not whole numbers from 0 to 9"),
        (np.array([{}], object), "y_test is pickled, which could run any program"),
    ],
)
def test_label_arrays_that_are_none(labelled, tmp_path, array, message):
    folder = write_npz(tmp_path, labelled, y_test=array)
    with pytest.raises(UserError, match=message):
        digits.load_labels(folder)


@pytest.mark.parametrize("format", ["CSV", "npz", "IDX gzipped"])
def test_other_data_on_kaggle(labelled, tmp_path, monkeypatch, format):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(places, "KAGGLE", tmp_path)
    (tmp_path / "input").mkdir()
    folder = FORMATS[format](tmp_path / "input/a", labelled)
    assert paths.resolve(None, None).input == folder
    for name in ("other/competition", "digit-recognizer"):  # each comes before the one before
        write_csvs(tmp_path / "input" / name, labelled)
        assert paths.resolve(None, None).input == tmp_path / "input" / name
