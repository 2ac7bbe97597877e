"""The process of a worker, before it knows this package."""

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import digit_recognizer

if TYPE_CHECKING:
    from digit_recognizer.data.digits import Dataset
    from digit_recognizer.training.worker import Job, News


class Host:
    """The process of a worker: gets this package from the driver, then does what the `Worker` in it does.

    Ray sends this class by value, because the node's Python does not know the package.
    """

    def __init__(self, package: bytes, environment: dict[str, str], folder: str | None):
        """Unpacks the package below `folder`, or below the node's folder for temporary files."""
        os.environ.update(environment)
        self.folder = Path(tempfile.mkdtemp(prefix="digit_recognizer_", dir=folder))
        zipfile.ZipFile(io.BytesIO(package)).extractall(self.folder / "src")
        sys.path.insert(0, str(self.folder / "src"))

    def start(self, threads: int, precision: str) -> dict[str, Any]:
        """Starts the backend and returns what recipe.json records of it."""
        from digit_recognizer.training.worker import Worker

        self.worker = Worker(self.folder, threads)
        return self.worker.facts(precision)

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns what recipe.json records."""
        return self.worker.facts(precision)

    def train(self, job: "Job", dataset: "Dataset") -> "News":
        """Begins to train a member and returns the first news of it."""
        self.worker.train(job, dataset)
        return self.worker.next()

    def next(self) -> "News":
        """Returns the next news."""
        return self.worker.next()


def package() -> bytes:
    """Returns this package's modules as a zip archive."""
    root, buffer = Path(digit_recognizer.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.py")):
            archive.write(path, f"{root.name}/{path.relative_to(root)}")
    return buffer.getvalue()
