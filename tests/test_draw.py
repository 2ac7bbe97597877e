"""The page to draw on: what its server answers and refuses, and digits drawn in a real browser."""

import http.client
import re
import signal
import socket
import threading
from contextlib import closing, contextmanager

import browser as chromium
import numpy as np
import pytest
from conftest import finish, read_until, start
from kaggle_server import refused
from test_page import AXE
from test_pictures import coverage, digits_in, sheet

from digit_recognizer.inference.draw import HEIGHT, MOST_BYTES, WIDTH, DrawServer
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.runs.directory import Run
from digit_recognizer.training.predict import Ensemble


@pytest.fixture(scope="module")
def models(light):
    return trained_models(Run(light[1]))


@contextmanager
def served(models):
    """The server before its networks are loaded."""
    server = DrawServer(0, members=len(models), run="<b>run</b>", is_sample=True)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def server(models):
    with served(models) as server:
        server.load(models)
        yield server


def ask(server, method="POST", body=b"", path="/", **changes):
    """Returns the status, the headers and the text of an answer; a header that is None is left out."""
    host = f"127.0.0.1:{server.server_port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Content-Length": str(len(body))}
    headers |= {"Content-Type": "application/octet-stream"}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def drawn(*digits):
    """The paper's pixels with these digits side by side."""
    pixels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    if digits:
        row = sheet([[coverage("sans", digit) for digit in digits]], 130, paper=[255] * 3, pen=[0] * 3)[..., 0]
        pixels[35:165, 5 : 5 + row.shape[1]] = row
    return pixels


def test_the_page_lets_nothing_else_run_and_escapes(server):
    status, headers, text = ask(server, "GET", Origin=None)
    assert status == 200 and "<h1>Draw a digit</h1>" in text and "The built-in sample." in text
    assert "&lt;b&gt;run&lt;/b&gt;" in text and "<b>run" not in text
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "style-src 'sha256-" in policy and "unsafe" not in policy
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "GET", Host="evil.example", Origin=None)[0] == 403
    assert ask(server, "GET", Host="127.0.0.1", Origin=None)[0] == 200  # at port 80, also of a forwarded one


def test_several_digits_are_read_in_order_as_predict_reads_them(server, models):
    pixels = drawn("3", "1", "8")
    status, _, text = ask(server, body=pixels.tobytes())
    assert status == 200 and text.count("<img ") == 3
    images = [digit.image for digit in digits_in(np.repeat(pixels[..., None], 3, axis=2))]
    probabilities, members = Ensemble(models).predict(np.array(images))
    best = probabilities.argmax(axis=1)
    assert re.findall(r'data-digit="(\d)"', text) == [*map(str, best)]
    shares = [f"{100 * share:.1f}&nbsp;%" for share in probabilities.ravel()]
    assert re.findall(r"<span>([\d.]+&nbsp;%)</span>", text) == shares
    votes = (members.argmax(axis=2) == best).sum(axis=0)
    assert re.findall(r"<span>(\d) of 2 members", text) == [*map(str, votes)]
    assert text.count("<path ") == (members > 0.01).sum()


def test_notes_are_shown(server):
    status, _, text = ask(server, body=drawn().tobytes())
    assert status == 200 and 'data-status="no digit: nothing stands out from the paper"' in text
    pixels = drawn("3", "7")
    pixels[100:110, 50:220] = 0  # joins them
    pixels[20:24, 380:384] = 0
    text = ask(server, body=pixels.tobytes())[2]
    assert "wider than a digit is" in text and "ink was left out: 1 far smaller than a digit" in text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 403),
        ({"Host": None}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"path": "/other"}, 404),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"body": b"\0" * 10}, 400),
        ({"body": b"\0" * (2 * MOST_BYTES)}, 413),
        ({"method": "PUT"}, 501),
    ],
)
def test_other_requests_are_refused(server, change, status):
    answered, headers, text = ask(server, **({"body": b"\0" * WIDTH * HEIGHT} | change))
    assert answered == status and text and headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, body=drawn("1").tobytes())[0] == 200  # it goes on


@pytest.mark.skipif(chromium.find() is None, reason="no Chromium: apt-get install chromium")
def test_digits_are_drawn_in_a_browser(models, tmp_path):
    with closing(chromium.Browser(tmp_path / "profile")) as page, served(models) as server:
        page.look("light", 390)
        page.call("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/")
        page.wait_for("document.readyState == 'complete' && document.title == 'Draw a digit'")
        assert "Loading" in page.text("#reading")
        stroke(page, [(0.2, 0.1), (0.2, 0.9)])  # it is read once the networks are loaded
        server.load(models)
        page.wait_for("document.querySelectorAll('.drawn').length == 1")
        stroke(page, [(0.6, 0.2), (0.7, 0.2), (0.65, 0.9)])
        page.wait_for("document.querySelectorAll('.drawn').length == 2")
        assert page.text("#reading") == "Read: " + " ".join(page.all(".drawn", "e.dataset.digit"))
        assert len(page.all(".drawn li svg rect")) == 20
        assert page.value("document.documentElement.scrollWidth") <= 390
        for scheme in ("light", "dark") if AXE.is_file() else ():
            page.look(scheme, 390)
            page.value(AXE.read_text())
            assert page.value("axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))") == []
        page.call("Input.dispatchKeyEvent", type="keyDown", key="z", windowsVirtualKeyCode=90, modifiers=2)  # Ctrl+Z
        page.wait_for("document.querySelectorAll('.drawn').length == 1")
        page.press("Escape", 27)
        page.wait_for("document.querySelector('#reading').textContent.startsWith('Draw with')")
        assert page.console == [] and all("127.0.0.1" in url or url[:5] == "data:" for url in page.requests)
        server.shutdown()
        server.server_close()
        stroke(page, [(0.2, 0.1), (0.2, 0.9)])
        page.wait_for("document.querySelector('#reading').textContent.startsWith('No answer: draw.py has ended')")


def stroke(page, points):
    """Draws through points, as parts of the paper's width and height."""
    left, top, width, height = page.all("#canvas", "(b => [b.x, b.y, b.width, b.height])(e.getBoundingClientRect())")[0]
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
    for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
        place = {"x": left + x * width, "y": top + y * height, "button": "left", "clickCount": 1}
        page.call("Input.dispatchMouseEvent", type=kind, **place)


def test_the_script_serves_until_ctrl_c(light, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    process = start("draw", "--output", light[1])
    read_until(process, f"ready: 2 networks of {light[1]}")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.error) == (130, "\ndraw.py: interrupted; the page is closed\n")


def test_refusals(call, light, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = call("draw", "--output", light[1], "--port", port)
        assert refused(outcome, f"--port {port}: Address already in use")
    assert refused(call("draw", "--output", light[1], "--port", 70000), "--port 70000: no port has this number")
    assert refused(call("draw", "--output", tmp_path), "holds no run (no recipe.json): run scripts/train.py")
