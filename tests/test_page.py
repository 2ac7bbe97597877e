"""The report's page in a real browser: what it shows, requests and runs, also if the run is a stranger's."""

import dataclasses
import hashlib
import os
import time
from itertools import pairwise
from pathlib import Path

import browser as chromium
import numpy as np
import pytest
from test_ensemble import blended, made_up, unfinish

from digit_recognizer import recipes
from digit_recognizer.files import read_json, write_json
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.results.report import write_report
from digit_recognizer.runs.directory import Run

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium: apt-get install chromium, as .ci/run does"
)

AXE = Path(os.environ.get("AXE_CORE", "no file"))

# What a stranger may write wherever a run directory holds text.
MARKUP = "<img src=http://127.0.0.1:9/x onerror='window.hacked=1'></style></script><script>window.hacked=1</script>$\\bad$\"'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = chromium.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def send(run, **record):
    """Records that the run's submission.csv was sent."""
    digest = hashlib.sha256(run.submission.read_bytes()).hexdigest()
    write_json(run.submissions_json, [record | {"sha256": digest}])


@pytest.fixture(scope="module")
def run(dataset, recipe, tmp_path_factory) -> Run:
    """Two repeats of two folds that make errors, with their report, submitted once."""
    folder = tmp_path_factory.mktemp("page") / "run"
    run = blended(made_up(dataset, recipes.change(recipe, {"repeats": 2}), folder, sharpness=2), dataset)
    send(run, time="2026-11-24T10:00:00+00:00", message="first", status="complete", public_score=0.98765)
    write_report(run, dataset)
    return run


@pytest.fixture(scope="module")
def both(dataset, recipe, tmp_path_factory) -> Run:
    """The directory of a comparison."""
    folder = tmp_path_factory.mktemp("comparison")
    runs = [made_up(dataset, recipe, folder / name, sharpness=2, seed=ord(name)) for name in "abc"]
    write_comparison(Run(folder / "both"), runs, dataset)
    return Run(folder / "both")


@pytest.fixture
def page(browser, run):
    """The browser with the page of `run` open, as on a wide screen by day."""
    browser.look()
    browser.open(page_of(run))
    return browser


def page_of(run) -> Path:
    return run.report / "index.html"


def text(browser, selector: str) -> str:
    return browser.value(f"document.querySelector({selector!r}).textContent")


def shown(browser) -> int:
    """How many errors the gallery shows."""
    return browser.value("document.querySelectorAll('#errors-gallery .digit:not([hidden])').length")


def test_nothing_goes_to_the_console_or_leaves_the_page(browser, run, both):
    for home in (run, both):
        browser.open(page_of(home))
        assert browser.console == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [
            page_of(home).resolve().as_uri()
        ]


def cells(browser, table: str) -> list[list[str]]:
    """The texts of the rows of a table's body."""
    return browser.value(
        f"[...document.querySelectorAll('{table} tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )


def test_numbers_are_those_of_cv_report(page, run):
    report = read_json(run.cv_report_json)
    overall = report["overall"]
    assert text(page, "#accuracy") == f"{overall['accuracy']:.5f}"
    assert text(page, "#error-count") == str(overall["errors"])
    assert text(page, "#log-loss") == f"{overall['log_loss']:.5f}"
    assert text(page, "#public-score") == "0.98765"
    assert [(line[0], line[1], line[3]) for line in cells(page, "#folds-table")[:4]] == [
        (fold["member"], f"{fold['accuracy']:.5f}", str(fold["errors"])) for fold in report["folds"]
    ]
    matrix = [[int(count or 0) for count in line[1:]] for line in cells(page, "#matrix")]
    assert matrix == report["confusion_matrix"]
    recall = [line[2] for line in cells(page, "#digits-table")]
    assert recall == [f"{line['recall']:.4f}" for line in report["per_digit"]]
    assert [line[1] for line in cells(page, "#gain-table")] == [
        str(line["errors"]) for line in report["gain"]
    ]
    dissenters = {f"{number} of 4": str(rows) for number, rows in enumerate(report["dissenters"]) if rows}
    assert dict(cells(page, "#dissenters-table")) == dissenters
    least_sure = page.value("document.querySelectorAll('#least-sure-gallery .digit').length")
    assert least_sure == len(report["least_sure"])


def test_gallery_shows_every_error_the_surest_first(page, run, dataset):
    oof, labels = np.load(run.oof_probabilities), dataset.train_labels
    wrong = np.flatnonzero(oof.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(-oof[wrong].max(axis=1), kind="stable")]
    alts = page.value("[...document.querySelectorAll('#errors-gallery img')].map(i => i.alt)")
    assert alts == [
        f"Training row {row}: label {labels[row]}, predicted {oof[row].argmax()}" for row in wrong
    ]
    pixels = page.value(
        "(async i => { await i.decode(); const c = document.createElement('canvas'); c.width = c.height = 28;"
        " const x = c.getContext('2d'); x.drawImage(i, 0, 0, 28, 28);"
        " return [...x.getImageData(0, 0, 28, 28).data].filter((_, n) => n % 4 == 0) })"
        "(document.querySelector('#errors-gallery img'))"
    )
    assert np.array_equal(255 - np.array(pixels).reshape(28, 28), dataset.train_images[wrong[0]])


def test_a_click_in_the_matrix_filters_the_gallery(page, run):
    worst = read_json(run.cv_report_json)["worst_confusions"][0]
    total, pair = shown(page), f"{worst['label']}-{worst['predicted']}"
    selector = f"button[data-filter='{pair}']"
    page.click(selector)
    assert shown(page) == worst["rows"] < total
    pairs = page.value(
        "[...document.querySelectorAll('#errors-gallery .digit:not([hidden])')].map(f => f.dataset.pair)"
    )
    assert set(pairs) == {pair}
    assert text(page, "#filter-status").startswith(
        f"{worst['rows']} of {total} errors: label {worst['label']}"
    )
    assert page.value(f'document.querySelector("{selector}").getAttribute("aria-pressed")') == "true"
    page.click("#show-all")
    assert shown(page) == total and page.value("document.querySelector('#show-all').hidden")
    page.click(selector)
    page.click(selector)
    assert shown(page) == total


def test_the_keyboard_reaches_matrix_and_charts(page):
    total = shown(page)
    page.value("document.querySelector('#matrix').closest('.scroll').focus()")
    page.press("Tab", 9)
    assert page.value("document.activeElement.dataset.filter") is not None
    first = page.value(
        "document.activeElement.closest('td').cellIndex + 100 * document.activeElement.closest('tr').rowIndex"
    )
    page.press("ArrowDown", 40)
    page.press("ArrowRight", 39)
    now = page.value(
        "document.activeElement.closest('td').cellIndex + 100 * document.activeElement.closest('tr').rowIndex"
    )
    assert now > first  # the arrow keys go from number to number
    page.press("Enter", 13)
    assert shown(page) < total
    page.press("Tab", 9)  # and the whole matrix is one stop of the Tab key
    assert page.value("document.activeElement.closest('#matrix') === null")
    page.value("document.querySelector('#curve-accuracy svg').focus()")
    page.press("ArrowRight", 39)
    assert text(page, "#tip").startswith("epoch 1\n") and "fold_00: 0.6" in text(page, "#tip")
    page.press("ArrowDown", 40)
    page.press("Escape", 27)
    assert text(page, "#tip") == ""


def test_the_pointer_shows_values(page, run):
    page.point("#reliability circle:not(.cursor)")
    lowest = read_json(run.cv_report_json)["calibration"]["bins"][0]
    line = f"out of fold: {lowest['accuracy']:.5g}"
    assert text(page, "#tip").startswith("mean probability") and line in text(page, "#tip")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert text(page, "#tip") == ""


@pytest.mark.parametrize("name", ["run", "both"])
def test_light_dark_phone_and_print(browser, run, both, name):
    browser.open(page_of(run if name == "run" else both))
    background = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 320)):
        browser.look(scheme, width)
        found[scheme] = browser.value(background)
        assert browser.value("document.documentElement.scrollWidth") <= width
    assert found == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    browser.look("dark", 1280, media="print")
    assert browser.value(background) == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.look()
    assert browser.pdf().startswith(b"%PDF")


def test_headings_are_in_order_and_every_picture_has_a_text(page):
    levels = page.value("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.value("[...document.images].every(i => i.alt)")
    assert page.value(
        "[...document.querySelectorAll('svg')].every(s => s.ariaLabel || s.ariaHidden == 'true')"
    )


@pytest.mark.skipif(
    not AXE.is_file(), reason="no axe-core: npm install axe-core, AXE_CORE=.../axe.min.js, as .ci/run does"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "both"])
def test_axe_finds_nothing(browser, run, both, name, scheme):
    browser.look(scheme)
    browser.open(page_of(run if name == "run" else both))
    browser.value(AXE.read_text())
    found = browser.value(
        "axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html)]))"
    )
    assert found == []


def test_a_strangers_run_is_shown_as_text(browser, dataset, recipe, tmp_path):
    hostile = dataclasses.replace(recipe, name=MARKUP, citation=MARKUP, reported_accuracy=MARKUP)
    data = dataclasses.replace(dataset, ids=np.array([f"{MARKUP}{number}" for number in range(20)]))
    runs = []
    for number in range(2):
        folder = tmp_path / (MARKUP.replace("/", "&#47;") + str(number))
        runs.append(made_up(data, hostile, folder, sharpness=2, seed=number))
        settings = {"device": MARKUP, "versions": {MARKUP: MARKUP}, MARKUP: MARKUP}
        write_json(runs[-1].recipe_json, read_json(runs[-1].recipe_json) | settings)
    blend = blended(Run(tmp_path / "blend"), data, runs)
    blended(runs[0], data)
    send(runs[0], **dict.fromkeys(("time", "message", "status", "public_score"), MARKUP))
    write_report(runs[0], data)
    write_report(blend, data)
    unfinish(runs[1], "fold_01")
    write_page(evaluate(runs[1], data, unfinished=True), refresh=60)
    both = Run(tmp_path / "both")
    write_comparison(both, runs, data)
    browser.look()
    for home in (*runs, blend, both):
        browser.open(page_of(home))
        assert browser.value("window.hacked === undefined && document.scripts.length === 1")
        assert browser.value("document.querySelectorAll('style').length") == 1
        assert MARKUP in browser.value("document.body.innerText") or home is blend
        assert browser.console == []
        assert all(url.startswith(("file:", "data:")) for url in browser.requests)


def test_the_policy_stops_what_escaping_would_have_missed(page):
    page.value(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x "
        'onerror="window.hacked=1"><iframe srcdoc="<script>parent.hacked=1</script>"></iframe>\'),'
        "document.body.appendChild(Object.assign(document.createElement('script'), {text: 'window.hacked=1'})), 1"
    )
    time.sleep(0.3)
    assert page.value("window.hacked === undefined")
    assert any("Content Security Policy" in message for message in page.console)


def test_the_page_of_an_unfinished_run_reads_itself_again(browser, dataset, tmp_path, recipe):
    run = made_up(dataset, recipe, tmp_path / "run", sharpness=2)
    unfinish(run, "fold_01")
    write_page(evaluate(run, dataset, unfinished=True), refresh=1)
    path = page_of(run)
    browser.open(path)
    assert "Unfinished." in text(browser, "header") and "fold_01 (1 epoch)" in text(browser, "main")
    path.write_text(path.read_text().replace("Unfinished.", "Read again."))
    browser.wait_for("document.querySelector('header').textContent.includes('Read again.')")
    while browser.value(
        "document.querySelector('#refresh').checked"
    ):  # the page may have been read again since
        browser.click("#refresh")
    path.write_text(path.read_text().replace("Read again.", "Too often."))
    time.sleep(1.5)
    assert "Read again." in text(browser, "header")
