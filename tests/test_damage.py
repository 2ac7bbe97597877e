"""Damaged data and pictures: refused in one line, or read as what they are. Longer with --campaign."""

import functools
import gzip
import io

import numpy as np
import pytest
from conftest import write_csvs, write_npz
from damage import contents, damaged_bytes, damaged_csv, damaged_gzip, damaged_zip, survives, try_damage
from PIL import Image
from test_formats import gzipped, put, write_idx, write_mnist_csvs, zipped

from digit_recognizer.data import digits
from digit_recognizer.files import UserError
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.pictures.load import WORK_SIDE, read_picture

SHARE = 40  # of a campaign's cases, one is in the suite


def number(cases: int, campaign: bool) -> int:
    return cases if campaign else max(2, cases // SHARE)


@pytest.fixture(scope="module")
def small(labelled):
    """Twelve labelled digits and four to predict."""
    train, test = (labelled.train_images[::7], labelled.train_labels[::7]), labelled.test_images[:4]
    return digits.Dataset(*train, test, labelled.test_labels[:4], labelled.ids[:4], kind="mnist")


@pytest.fixture
def folder(tmp_path, small, request):
    """A folder with the data in the format that is asked for."""
    folder = tmp_path / "data"
    if request.param == "csv":
        write_csvs(folder, small)
    elif request.param == "csv with ids":
        write_csvs(folder, small, columns=("id", "label"), test_ids=True, eol="\r\n")
    elif request.param == "csv zipped":
        put(folder, {"archive.zip": zipped(contents(write_csvs(tmp_path / "csvs", small)))})
    elif request.param == "mnist csv":
        write_mnist_csvs(folder, small)
    elif request.param == "npz":
        write_npz(folder, small)
    elif request.param == "idx":
        write_idx(folder, small)
    else:
        write_idx(folder, small, gzipped, gzip.compress)
    return folder


def read(folder):
    """Reads data, which then has to be whole."""
    dataset = digits.load(folder)
    for images in (dataset.train_images, dataset.test_images):
        assert images.dtype == np.uint8 and images.shape == (len(images), 28, 28) and len(images)
    assert dataset.train_labels.dtype == np.uint8 and dataset.train_labels.max() <= 9
    assert len(dataset.train_labels) == len(dataset.train_images)
    assert len(set(dataset.ids)) == len(dataset.ids) == len(dataset.test_images)
    assert dataset.fingerprint


ARCHIVE = functools.partial(damaged_zip, member=lambda _, data: damaged_bytes(data))


@pytest.mark.parametrize(
    ("folder", "name", "damaged", "cases"),
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
    indirect=["folder"],
)
def test_damaged_data(folder, name, damaged, cases, campaign):
    path = folder / name

    def case(data):
        path.write_bytes(data)
        survives(lambda: read(folder), folder, f"{folder}")

    try_damage(damaged(path.read_bytes()), case, number(cases, campaign), campaign)


def pictures():
    """A digit as files of the usual kinds."""
    drawn = Image.fromarray(255 - digits.sample().test_images[0]).resize((60, 60))
    for kind, mode, options in (
        ("PNG", "L", {}),
        ("PNG", "RGBA", {}),
        ("JPEG", "RGB", {"quality": 80, "progressive": True}),
        ("TIFF", "I;16", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
    ):
        file = io.BytesIO()
        picture = (
            drawn.convert(mode.replace("I;16", "I")).convert(mode) if mode == "I;16" else drawn.convert(mode)
        )
        picture.save(file, kind, **options)
        yield pytest.param(file.getvalue(), id=f"{kind} {mode}")


@pytest.mark.parametrize("data", list(pictures()))
def test_damaged_pictures(data, tmp_path, campaign):
    path = tmp_path / "picture"

    def case(damaged):
        path.write_bytes(damaged)
        survives(look, tmp_path, str(path))

    def look():
        pixels = read_picture(path)
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and max(pixels.shape) <= WORK_SIDE
        for digit in find_digits(pixels)[0]:
            assert digit.image.shape == (28, 28) and digit.image.dtype == np.uint8

    try_damage(damaged_bytes(data), case, number(200, campaign), campaign)


def test_a_gzip_bomb_takes_no_memory(tmp_path, small):
    """A header that says 10 GB, and 10 MB of zeros behind it that would be 10 GB."""
    folder = write_idx(tmp_path / "data", small, gzipped, gzip.compress)
    path = folder / "train-images-idx3-ubyte.gz"
    head = np.array([0x0803, 13_000_000, 28, 28], ">u4").tobytes()
    path.write_bytes(gzip.compress(head + bytes(10_000_000)))
    assert not survives(lambda: digits.load(folder), folder, str(path))


def test_a_name_of_two_lines_is_told_on_one(tmp_path):
    """A message is one line, whatever a file holds, and moves no terminal's cursor."""
    np.savez(tmp_path / "mnist.npz", **{"x\n\x1b[2Jtrain": np.zeros(1)})
    assert not survives(lambda: digits.load(tmp_path), tmp_path, "mnist.npz")
    assert UserError("a\nb\x1b[2J").args == ("a b [2J",)
    assert len(str(UserError("9" * 5000))) < 1100
