"""Pages that need nothing but themselves: templates, style and script in one file that lets no other script run."""

import base64
import functools
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from digit_recognizer.data.digits import SIDE
from digit_recognizer.results import charts

_MOST_CLASSES = 3  # whose probabilities a caption has


def render(template: str, script: str = "page.js", connect: str = "'none'", **values: Any) -> str:
    """Returns the page that a template of templates/ makes of `values`, whose texts are escaped.

    `script` is the file of the page's script, and `connect` the sources that it may fetch from.
    """
    parts = {
        "policy": content_policy(script, connect),
        "style": Markup(_source("page.css")),
        "script": Markup(_source(script)),
    }
    return _environment().get_template(template).render(values | parts)


def content_policy(script: str = "page.js", connect: str = "'none'") -> str:
    """Returns the Content-Security-Policy of the page that `render` makes with these arguments.

    It names the hashes of the page's style and script: nothing else is loaded or run, whatever the values hold.
    """
    return (
        f"default-src 'none'; style-src '{_hash(_source('page.css'))}'; script-src '{_hash(_source(script))}'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


@functools.cache  # it keeps the compiled templates
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    environment.globals["charts"] = charts
    return environment


def _source(name: str) -> str:
    """Returns the text of a file of templates/, even if the package is in an archive."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Returns a hash in the form of a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@dataclass(frozen=True)
class Item:
    """A picture of a digit in a gallery, and its caption."""

    pixels: np.ndarray  # uint8 (28, 28)
    alt: str
    title: str
    lines: Iterable[str]
    pair: str = ""  # "4-9" for label 4, predicted 9

    @property
    def image(self) -> str:
        """The picture as a data URI."""
        return _data_uri(self.pixels.tobytes())


@functools.lru_cache(maxsize=10_000)  # a page that is written again has mostly the same pictures
def _data_uri(pixels: bytes) -> str:
    """Returns a PNG with dark ink on white paper as a data URI."""
    image = 255 - np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def probabilities_text(probabilities: np.ndarray) -> str:
    """Returns the classes with the highest of the probabilities, float (10,), as text."""
    classes = np.argsort(-probabilities, kind="stable")[:_MOST_CLASSES].tolist()
    space = "\N{NO-BREAK SPACE}"
    return ", ".join(f"{digit}:{space}{100 * probabilities[digit]:.1f}{space}%" for digit in classes)


def _number(value: float | None, digits: int = 0, sign: bool = False) -> str:
    """Returns a number with that many decimals and commas between thousands; a dash for None and NaN."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''},.{digits}f}"
