"""A page on this machine: a person draws digits, and the ensemble of a run reads them."""

import os
import re
import sys
import threading
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer.data import paths
from digit_recognizer.data.digits import SIDE
from digit_recognizer.files import UserError
from digit_recognizer.inference.recognize import PictureResult
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.results.page import content_policy, render
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend

WIDTH, HEIGHT = 400, 200  # of the paper, in pixels: digits of 28 x 28 need no more
MOST_BYTES = 5_000_000  # of a request

_ADDRESS = "127.0.0.1"
_NO_PAGE = "there is one page here: /"
_NAMES = (_ADDRESS, "localhost")  # of this machine, whatever the port: it may be forwarded
_ASSETS = {"script": "draw.js", "connect": "'self'"}
_HEADERS = {
    "Content-Security-Policy": f"{content_policy(**_ASSETS)}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def serve(run: Run, port: int = 0) -> None:
    """Serves the page on `port` of this machine, 0 for a free one, until it is interrupted; raises UserError."""
    models, settings = trained_models(run), run.require_settings()
    is_sample = settings.get("data") == "sample"
    try:
        server = DrawServer(port, members=len(models), run=str(run.folder), is_sample=is_sample)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no port has this number"
        raise UserError(f"--port {port}: {reason}: name another one, or leave it out for a free one") from None
    paths.Locations(None if is_sample else run.folder, run.folder).print_notice()
    threading.Thread(target=server.serve_forever, args=[0.1], daemon=True).start()
    try:
        address = f"http://{_ADDRESS}:{server.server_port}/"
        print(f"{address} is the page to draw on; Ctrl-C ends it", flush=True)
        # without a display, Python may start a browser of the terminal's
        if sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
            webbrowser.open(address)
        backend.start(settings.get("threads") or backend.cores())
        server.load(models)
        print(f"ready: {len(models)} networks of {run.folder}", flush=True)
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()


class DrawServer(ThreadingHTTPServer):
    """Serves the drawing page and, after `load`, predicts the digits drawn on it."""

    def __init__(self, port: int, **values: Any):
        """Renders the page with `values`: the number of members, the run's folder, and whether it is the sample."""
        super().__init__((_ADDRESS, port), _Handler)
        self.page = render("draw.html.j2", **_ASSETS, **values, width=WIDTH, height=HEIGHT, refresh=None)
        self.is_ready = threading.Event()
        self._lock = threading.Lock()

    def load(self, models: dict[Path, float]) -> None:
        """Loads the networks and predicts once, which compiles them. Needs `backend.start`."""
        # imported here because it imports Keras, which takes seconds: the page is shown first
        from digit_recognizer.training.predict import Ensemble

        self._ensemble = Ensemble(models)
        for count in (1, 16):  # a digit and its views
            self._ensemble.predict(np.zeros((count, SIDE, SIDE), np.uint8))
        stroke = np.full((HEIGHT, WIDTH), 255, np.uint8)
        stroke[20:-20, 90:105] = 0
        self.read(stroke)
        self.is_ready.set()

    def read(self, pixels: np.ndarray) -> str:
        """Returns what the ensemble reads on the paper, uint8 (height, width), as a part of the page."""
        digits, notes = find_digits(np.repeat(pixels[..., None], 3, axis=2))
        items = []
        if digits:
            with self._lock:
                probabilities, members = self._ensemble.predict(np.array([digit.image for digit in digits]))
            result = PictureResult(Path("paper"), digits=digits, probabilities=probabilities)
            items = [_describe(result, members[:, index], index) for index in range(len(digits))]
        return render("drawn_digits.html.j2", digits=items, notes=notes)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _describe(result: PictureResult, members: np.ndarray, index: int) -> dict[str, Any]:
    """Returns the values of a digit for the template; `members` are their probabilities, float (members, 10)."""
    probabilities, votes = result.probabilities[index], members.argmax(axis=1)
    best = int(probabilities.argmax())
    counts = np.bincount(votes, minlength=len(probabilities)).tolist()
    others = [f"{count} for {label}" for label, count in enumerate(counts) if count and label != best]
    return {
        "best": best,
        "pixels": result.digits[index].image,
        "votes": ", ".join([f"{counts[best]} of {len(votes)} members", *others]),
        "bars": list(zip(probabilities.tolist(), members.T.tolist(), strict=True)),
        "note": result.digit_note(index),
    }


class _Handler(BaseHTTPRequestHandler):
    """Answers the page alone: GET / and /ready, POST / with the paper's pixels, a byte each."""

    server: DrawServer
    timeout = 30  # seconds for a request to arrive

    def do_GET(self) -> None:
        if not self._is_host_allowed():
            self._answer(HTTPStatus.FORBIDDEN, "the page is for this machine alone")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "html")
        elif self.path == "/ready":
            self.server.is_ready.wait()
            self._answer(HTTPStatus.OK, "ready")
        else:
            self._answer(HTTPStatus.NOT_FOUND, _NO_PAGE)

    def do_POST(self) -> None:
        text = self.headers.get("Content-Length", "")
        length = int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None
        refusal = self._refusal(length)
        if refusal:
            # the body is read up to a limit: a browser that is still sending does not see the answer
            left = min(length or 0, 10 * MOST_BYTES)
            while left > 0 and (part := self.rfile.read(min(left, 2**16))):
                left -= len(part)
            self._answer(*refusal)
            return
        body = self.rfile.read(length)
        if len(body) != WIDTH * HEIGHT:
            self._answer(HTTPStatus.BAD_REQUEST, f"the paper has {WIDTH} x {HEIGHT} pixels, a byte each")
            return
        self.server.is_ready.wait()
        pixels = np.frombuffer(body, np.uint8).reshape(HEIGHT, WIDTH)
        self._answer(HTTPStatus.OK, self.server.read(pixels), "html")

    def _refusal(self, length: int | None) -> tuple[HTTPStatus, str] | None:
        """Returns the answer that refuses a POST, or None; `length` is that of its body, None if unknown."""
        origin = f"http://{self.headers.get('Host')}"
        if not self._is_host_allowed() or self.headers.get("Origin") != origin:
            return HTTPStatus.FORBIDDEN, "only the page itself may ask"
        if self.path != "/":
            return HTTPStatus.NOT_FOUND, _NO_PAGE
        if self.headers.get("Content-Type") != "application/octet-stream":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the type has to be application/octet-stream"
        if length is None:
            return HTTPStatus.LENGTH_REQUIRED, "the length of the picture is missing"
        if length > MOST_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the picture has more than {MOST_BYTES // 10**6} MB"
        return None

    def _is_host_allowed(self) -> bool:
        """Returns whether the page is addressed as this machine: a stranger's name may lead here, too."""
        return self.headers.get("Host", "").partition(":")[0] in _NAMES

    def _answer(self, status: HTTPStatus, text: str, kind: str = "plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Prints nothing."""
