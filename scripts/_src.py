"""Puts src on the path of the script that imports this module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import cli

__all__ = ["cli"]
