"""The stages of the pipeline as the tests of faults take them: what a stage starts from, and what it comes to."""

import csv
import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conftest import LIGHT
from damage import contents
from PIL import Image

from digit_recognizer.data import digits

NAMES = ("download", "split", "explore", "train", "ensemble", "report", "predict", "export", "kernel", "submit")

# What a stage needs of a run.
_NEEDED = {
    "ensemble": ("recipe.json", "folds.csv", "fold_*/*"),
    "report": ("recipe.json", "folds.csv", "fold_*/*", "ensemble.json", "oof_probabilities.npy", "submission.csv"),
}
_NEEDED |= {"predict": _NEEDED["report"], "export": _NEEDED["report"], "submit": _NEEDED["report"]}


@dataclass
class Stage:
    """One stage on small data."""

    name: str
    csvs: Path
    whole: Path  # a run that is finished
    picture: Path

    def line(self, folder: Path) -> list[str]:
        """The script and its arguments, where the stage writes into `folder`."""
        places = ["--input", str(self.csvs), "--output", str(folder)]
        lines = {
            "download": ["download", "--input", str(folder)],
            "split": ["split", *places, "--folds", "2"],
            "train": ["train", *places, *LIGHT, "--fold", "0"],
            "predict": ["predict", str(self.picture), "--output", str(folder)],
            "export": ["export", str(folder / "digits.keras"), "--output", str(folder)],
            "kernel": ["kernel", "--pack-only", "--output", str(folder)],
            "submit": ["submit", *places, "--message", "mine"],
        }
        return lines.get(self.name, [self.name, *places])

    def prepare(self, folder: Path) -> None:
        """Makes `folder` what the stage starts from."""
        shutil.rmtree(folder, ignore_errors=True)
        for pattern in _NEEDED.get(self.name, ()):
            for path in self.whole.glob(pattern):
                target = folder / path.relative_to(self.whole)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if self.name == "submit":  # submit.py asks before it sends a run of low accuracy
            labels = digits.load(self.csvs).train_labels
            np.save(folder / "oof_probabilities.npy", np.eye(10, dtype=np.float32)[labels])


def write_picture(path: Path) -> Path:
    """A digit on paper."""
    Image.fromarray(255 - digits.sample().test_images[0]).resize((300, 300)).save(path)
    return path


def steady(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, without what depends on the time that it took."""
    return {name: _steady(Path(name).name, data) for name, data in contents(folder).items()}


def _steady(name: str, data: bytes) -> bytes:
    if name == "history.csv":
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        return repr([{key: value for key, value in row.items() if key != "seconds"} for row in rows]).encode()
    if name == "metrics.json":
        return json.dumps(json.loads(data) | {"seconds": 0}).encode()
    if name == "submissions.json":
        return json.dumps([each | {"time": ""} for each in json.loads(data)]).encode()
    if name.endswith(".keras"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # which has dates
            return repr([(each.filename, each.file_size) for each in archive.infolist()]).encode()
    return data
