"""Pages that need nothing but themselves: templates, style and script in one file that lets no other script run."""

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from digit_recognizer.results import charts


def _source(name: str) -> str:
    """The text of a file of templates/, also where the package is read from an archive."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """Returns the page that a template of templates/ makes of `values`, all of whose texts are escaped.

    The Content-Security-Policy of the page names the hashes of its style and its script: nothing else is
    loaded or run, whatever the values hold.
    """
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "p": p_value}
    environment.globals["charts"] = charts
    style, script = _source("page.css"), _source("page.js")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    own = {"policy": policy, "style": Markup(style), "script": Markup(script)}
    return environment.get_template(template).render(own | values)


def _hash(text: str) -> str:
    """A text as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def number(value: float | None, digits: int = 0, sign: bool = False) -> str:
    """Returns a number with that many decimals and commas between thousands; a dash for None and NaN."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Returns a share of 1 as per cent; one that is not 0 or 1 never reads as 0 or 100."""
    if share is None:
        return "\N{EN DASH}"
    least = 10**-digits
    if 0 < share * 100 < least / 2:
        return f"<{least:g}\N{NO-BREAK SPACE}%"
    if 100 - least / 2 < share * 100 < 100:
        return f">{100 - least:g}\N{NO-BREAK SPACE}%"
    return f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def p_value(p: float) -> str:
    """Returns a p value with its sign of comparison, such as = 0.031 or < 0.0001."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"
