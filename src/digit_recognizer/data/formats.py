"""The formats in which data comes, and the names of their files.

Only the standard library is used: `run_all.sh` runs this module before anything is installed.
"""

import re
from dataclasses import dataclass

SAMPLE_SUBMISSION = "sample_submission.csv"  # without another file it is no data

# The marks of a copy, such as "train (1).csv", "train - Copy.csv" and "train-1.csv".
_COPY_MARK = re.compile(r"( ?\(\d+\)|( -)? copy( \d+)?|[ -]\d+)(?=\.|$)")
_EXTRA_ENDING = re.compile(r"\.(gz|zip)$|(?<=\.csv)\.(csv|txt)$")


@dataclass(frozen=True, eq=False)
class Format:
    """A form in which data comes."""

    name: str
    reader: str  # a function in digits.py; by its name, because this module must not import NumPy
    files: dict[str, str]  # the usual name of each file -> regular expression of its names in lower case


# To add a format, add an entry here and its reader, which takes the files in this order, to digits.py.
FORMATS = (
    Format(
        "the competition's CSVs",
        "read_competition",
        {"train.csv": r"train\.csv", "test.csv": r"test\.csv", SAMPLE_SUBMISSION: r"sample[_ -]?submission\.csv"},
    ),
    Format("pictures in folders", "read_folders", {"unpacked folders train/0 to train/9 with pictures": "train/"}),
    Format(
        "MNIST's CSVs",
        "read_mnist_csvs",
        {"mnist_train.csv": r".*mnist.*train.*\.csv", "mnist_test.csv": r".*mnist.*test.*\.csv"},
    ),
    Format("mnist.npz", "read_npz", {"mnist.npz": r".*mnist.*\.npz"}),
    Format(
        "MNIST's IDX files",
        "read_idx_files",
        {
            "train-images-idx3-ubyte": r".*train-images.idx3-ubyte",
            "train-labels-idx1-ubyte": r".*train-labels.idx1-ubyte",
            "t10k-images-idx3-ubyte": r".*(t10k|test)-images.idx3-ubyte",
            "t10k-labels-idx1-ubyte": r".*(t10k|test)-labels.idx1-ubyte",
        },
    ),
)


def normalize(name: str) -> str:
    """Returns a name in lower case, without the marks of a copy and of compression."""
    name = _COPY_MARK.sub("", name.lower())
    return _EXTRA_ENDING.sub("", _EXTRA_ENDING.sub("", name))


def role_of(name: str) -> tuple[Format, str] | None:
    """Returns the format that has a file of this normalized name, and its usual name; None if no format has."""
    for format in FORMATS:
        for usual_name, pattern in format.files.items():
            if re.fullmatch(pattern, name):
                return format, usual_name
    return None
