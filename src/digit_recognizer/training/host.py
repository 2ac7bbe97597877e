"""The process of a worker, before it knows this package."""

import io
import os
import secrets
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
        self.folder, self._remover = temporary_folder("digit_recognizer_", folder)
        zipfile.ZipFile(io.BytesIO(package)).extractall(self.folder / "src")
        sys.path.insert(0, str(self.folder / "src"))

    def start(self, threads: int) -> dict[str, Any]:
        """Starts the backend and returns what recipe.json would record of it, were the precision auto."""
        from digit_recognizer.training.worker import Worker

        self.worker = Worker(self.folder, threads)
        return self.worker.facts("auto")

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns what recipe.json records; `precision` is the recipe's."""
        return self.worker.facts(precision)

    def train(self, job: "Job", dataset: "Dataset") -> "News":
        """Begins to train a member and returns the first news of it."""
        self.worker.train(job, dataset)
        return self.worker.next()

    def next(self) -> "News":
        """Returns the next news."""
        return self.worker.next()


def temporary_folder(prefix: str, parent: str | None = None) -> tuple[Path, IO[bytes]]:
    """Makes a folder that a shell removes once this process has ended, in whatever way.

    Returns it, and the open end of a pipe to the shell, which has to stay open until then. The shell runs before the
    folder is there, and is nobody's child: Ray kills a worker's children with it.
    """
    folder = Path(parent or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(5)}"
    wait = 'read _ <&3; for _ in 1 2 3 4 5; do rm -rf "$0"; sleep 1; [ -e "$0" ] || break; done'
    line = ["sh", "-c", f"exec 3<&0; ({wait}) > /dev/null 2>&1 &", str(folder)]
    shell = subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True)
    shell.wait()
    folder.mkdir(mode=0o700)
    return folder, shell.stdin


def package() -> bytes:
    """Returns this package's modules as a zip archive."""
    root, buffer = Path(digit_recognizer.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.py")):
            archive.write(path, f"{root.name}/{path.relative_to(root)}")
    return buffer.getvalue()
