"""Damaged data and pictures: refused in one line, or read as what they are. Longer with --campaign."""

import functools
import gzip
import io

import numpy as np
import pytest
from damage import damaged_bytes, damaged_csv, damaged_gzip, damaged_zip, survives, try_damage
from PIL import Image
from test_formats import CSV, FILES, GZIPPED, IDX, npz, put, zipped

from digit_recognizer.data import digits
from digit_recognizer.files import UserError
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.pictures.load import WORK_SIDE, read_picture

SHARE = 40  # of a campaign's cases, one is in the suite


def with_ids(data):
    lines = data.decode().split("\n")[:-1]
    return "\r\n".join(f"{row or 'ImageId'},{line}" for row, line in enumerate(lines)).encode()


def number(cases: int, campaign: bool) -> int:
    return cases if campaign else max(2, cases // SHARE)


DATA = {
    "csv": FILES,
    "csv with ids": FILES | {"test.csv": with_ids(FILES["test.csv"])},
    "csv zipped": {"archive.zip": zipped(FILES)},
    "mnist csv": CSV,
    "npz": npz(),
    "idx": IDX,
    "idx.gz": GZIPPED,
}


def read(folder):
    """Reads data, which then has to be whole."""
    dataset = digits.load(folder)
    for images in (dataset.train_images, dataset.test_images):
        assert images.dtype == np.uint8 and images.shape == (len(images), 28, 28) and len(images)
    assert dataset.train_labels.dtype == np.uint8 and dataset.train_labels.max() <= 9
    assert len(dataset.train_labels) == len(dataset.train_images)
    assert len(set(dataset.ids)) == len(dataset.ids) == len(dataset.test_images)


ARCHIVE = functools.partial(damaged_zip, member=lambda _, data: damaged_bytes(data))


@pytest.mark.parametrize(
    ("data", "name", "damaged", "cases"),
    [
        ("csv", "train.csv", damaged_csv, 900),
        ("csv", "test.csv", damaged_csv, 600),
        ("csv", "sample_submission.csv", damaged_csv, 600),
        ("csv with ids", "test.csv", damaged_csv, 500),
        ("csv with ids", "sample_submission.csv", damaged_csv, 400),
        ("csv zipped", "archive.zip", ARCHIVE, 600),
        ("csv zipped", "archive.zip", damaged_bytes, 600),
        ("mnist csv", "mnist_train.csv", damaged_csv, 400),
        ("npz", "mnist.npz", ARCHIVE, 700),
        ("idx", "train-images-idx3-ubyte", damaged_bytes, 400),
        ("idx", "t10k-labels-idx1-ubyte", damaged_bytes, 200),
        ("idx.gz", "train-labels-idx1-ubyte.gz", damaged_gzip, 400),
        ("idx.gz", "t10k-images-idx3-ubyte.gz", damaged_gzip, 400),
    ],
)
def test_damaged_data(tmp_path, data, name, damaged, cases, campaign):
    folder = put(tmp_path / "data", DATA[data])

    def case(content):
        (folder / name).write_bytes(content)
        survives(lambda: read(folder), folder, f"{folder}")

    try_damage(damaged(DATA[data][name]), case, number(cases, campaign), campaign)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *zip(("JPEG", "WEBP", "BMP"), ["RGB"] * 3, strict=True),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("TIFF", "I;16"),
        ("GIF", "P"),
    ],
)
def test_damaged_pictures(kind, mode, tmp_path, campaign):
    """A digit as files of the usual kinds."""
    drawn = Image.fromarray(255 - digits.sample().test_images[0]).resize((60, 60))
    file, path = io.BytesIO(), tmp_path / "picture"
    (drawn.convert("I") if mode == "I;16" else drawn).convert(mode).save(file, kind)

    def case(damaged):
        path.write_bytes(damaged)
        survives(look, tmp_path, str(path))

    def look():
        pixels = read_picture(path)[0]
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and max(pixels.shape) <= WORK_SIDE
        for digit in find_digits(pixels)[0]:
            assert digit.image.shape == (28, 28) and digit.image.dtype == np.uint8

    try_damage(damaged_bytes(file.getvalue()), case, number(200, campaign), campaign)


def test_a_gzip_bomb_is_refused(tmp_path):
    """A header that says 10 GB, and 10 MB of zeros behind it that would be 10 GB."""
    folder = put(tmp_path / "data", IDX)
    path = folder / "train-images-idx3-ubyte"
    head = np.array([0x0803, 13_000_000, 28, 28], ">u4").tobytes()
    path.write_bytes(gzip.compress(head + bytes(10_000_000)))
    assert not survives(lambda: digits.load(folder), folder, str(path))


def test_a_name_of_two_lines_is_told_on_one(tmp_path):
    """A message is one line, whatever a file holds, and moves no terminal's cursor."""
    np.savez(tmp_path / "mnist.npz", **{"x\n\x1b[2Jtrain": np.zeros(1)})
    assert not survives(lambda: digits.load(tmp_path), tmp_path, "mnist.npz")
    assert UserError("a\nb\x1b[2J").args == ("a b [2J",)
    assert len(str(UserError("9" * 5000))) < 1100
