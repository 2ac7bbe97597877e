"""The report's page in a real browser: what it shows, requests and runs, also if the run is a stranger's."""

import dataclasses
import hashlib
import os
import time
from pathlib import Path

import browser as chromium
import numpy as np
import pytest
from test_ensemble import blended, made_up, unfinish

from digit_recognizer import recipes
from digit_recognizer.files import read_json, write_json
from digit_recognizer.results.ensemble import average_members
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_comparison, write_page
from digit_recognizer.results.report import write_report
from digit_recognizer.runs.directory import Run

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium: apt-get install chromium")

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


def write_unfinished(run, dataset, refresh):
    ensemble = average_members(run, dataset)
    write_page(ensemble, evaluate(ensemble), refresh)


SHOWN = "#errors-gallery .digit:not([hidden])"


def test_nothing_goes_to_the_console_or_leaves_the_page(browser, run, both):
    for home in (run, both):
        browser.open(page_of(home))
        assert browser.console == []
        urls = [url for url in browser.requests if not url.startswith("data:")]
        assert urls == [page_of(home).resolve().as_uri()]


def test_numbers_are_those_of_cv_report(page, run):
    def cells(table):
        return page.all(f"{table} tbody tr", "[...e.cells].map(c => c.textContent)")

    report = read_json(run.cv_report_json)
    overall = report["overall"]
    assert page.text("h1") == "Digit Recognizer" and f"{run.folder.name}, 20" in page.text("header p")
    lead = " ".join(page.text(".lead").split())
    assert lead.startswith(f"{overall['errors']} of 80 training rows (") and "people misread about 0.2 %" in lead
    assert lead.endswith("look first at the warning.") and "Several networks predict each row" in page.text("main")
    assert page.text("pre").startswith("bash scripts/run_all.sh --recipe bn_cnn --set folds=2")
    fields = {name: texts for name, *texts in cells(".fields")}
    assert fields["rotation"] == ["10.0", "rotation, degrees"] and "warmup" not in fields  # not of this schedule
    assert page.text("#accuracy") == f"{overall['accuracy']:.5f}"
    assert page.text("#error-count") == str(overall["errors"])
    assert page.text("#log-loss") == f"{overall['log_loss']:.5f}"
    assert page.text("#public-score") == "0.98765"
    for line, fold in zip(cells("#folds-table"), report["folds"], strict=False):
        values = fold["member"], f"{fold['accuracy']:.5f}", str(fold["errors"])
        assert (line[0], line[1], line[3]) == values
    matrix = [[int(count or 0) for count in line[1:]] for line in cells("#matrix")]
    assert matrix == report["confusion_matrix"]
    recall = [f"{line['recall']:.4f}" for line in report["per_digit"]]
    assert [line[2] for line in cells("#digits-table")] == recall
    assert len(page.all("#least-sure-gallery .digit")) == len(report["least_sure"])


def test_gallery_shows_every_error_the_most_confident_first(page, run, dataset):
    oof, labels = np.load(run.oof_probabilities), dataset.train_labels
    wrong = np.flatnonzero(oof.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(-oof[wrong].max(axis=1), kind="stable")]
    texts = [f"Training row {row}: label {labels[row]}, predicted {oof[row].argmax()}" for row in wrong]
    assert page.all("#errors-gallery img", "e.alt") == texts
    pixels = page.value(
        "(async i => { await i.decode(); const c = document.createElement('canvas'); c.width = c.height = 28;"
        " const x = c.getContext('2d'); x.drawImage(i, 0, 0, 28, 28);"
        " return [...x.getImageData(0, 0, 28, 28).data].filter((_, n) => n % 4 == 0) })"
        "(document.querySelector('#errors-gallery img'))"
    )
    assert np.array_equal(255 - np.array(pixels).reshape(28, 28), dataset.train_images[wrong[0]])


def test_a_click_in_the_matrix_filters_the_gallery(page, run):
    worst = read_json(run.cv_report_json)["worst_confusions"][0]
    total, pair = len(page.all(SHOWN)), f"{worst['label']}-{worst['predicted']}"
    button = f'button[data-filter="{pair}"]'
    page.click(button)
    assert page.all(SHOWN, "e.dataset.pair") == [pair] * worst["rows"] and worst["rows"] < total
    status = f"{worst['rows']} of {total} errors: label {worst['label']}"
    assert page.text("#filter-status").startswith(status)
    assert page.all(button, "e.getAttribute('aria-pressed')") == ["true"]
    page.click("#show-all")
    assert len(page.all(SHOWN)) == total and page.all("#show-all", "e.hidden") == [True]
    page.click(button)
    page.click(button)
    assert len(page.all(SHOWN)) == total


def test_a_long_gallery_shows_whole_rows_and_all_on_a_click(browser, run):
    browser.look(width=390)
    browser.open(page_of(run))
    count = "[...document.querySelectorAll('#least-sure-gallery .digit')].filter(e => e.offsetHeight).length"
    assert browser.value(count) == 12
    browser.click("#least-sure-gallery + button")
    assert browser.value(count) == 20


def test_the_pointer_on_a_name_fades_the_other_lines(page):
    page.point("#curve-loss .legend li:nth-child(2)")
    assert page.all("#curve-loss svg > g[class^=c]:not(.faded)", "e.classList[0]") == ["c1", "c1"]
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert page.all("#curve-loss .faded") == []


def test_the_keyboard_reaches_matrix_and_charts(page):
    def place():
        return page.all("#matrix :focus", "[e.closest('tr').rowIndex, e.closest('td').cellIndex]")

    total = len(page.all(SHOWN))
    page.value("document.querySelector('#matrix').closest('.scroll').focus()")
    page.press("Tab", 9)
    first = place()
    page.press("ArrowDown", 40)
    page.press("ArrowRight", 39)
    assert place() > first  # the arrow keys go from number to number
    page.press("Enter", 13)
    assert len(page.all(SHOWN)) < total
    page.press("Tab", 9)  # the whole matrix is one stop of the Tab key
    assert place() == []
    page.value("document.querySelector('#curve-accuracy svg').focus()")
    page.press("ArrowRight", 39)
    assert page.text("#tip").startswith("epoch 1\n") and "fold_00: 0.6" in page.text("#tip")
    page.press("ArrowDown", 40)
    page.press("Escape", 27)
    assert page.text("#tip") == ""


def test_the_pointer_shows_values(page, run):
    page.point("#curve-accuracy circle:not(.cursor)")
    fold = read_json(run.cv_report_json)["folds"][0]
    assert page.text("#tip").startswith(f"epoch {fold['best_epoch']}\n") and "fold_00: 0." in page.text("#tip")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert page.text("#tip") == ""


def test_light_dark_phone_and_print(browser, run, both):
    background = "getComputedStyle(document.body).backgroundColor"
    for home in (run, both):
        browser.open(page_of(home))
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 320)):
            browser.look(scheme, width)
            expected = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
            assert browser.value(background) == expected
            assert browser.value("document.documentElement.scrollWidth") <= width
        browser.look("dark", 1280, media="print")
        assert browser.value(background) == "rgb(255, 255, 255)"
        assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install axe-core, AXE_CORE=.../axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("home", ["run", "both"])
def test_axe_finds_nothing(browser, request, home, scheme):
    browser.look(scheme)
    browser.open(page_of(request.getfixturevalue(home)))
    browser.value(AXE.read_text())
    violations = "axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html)]))"
    assert browser.value(violations) == []


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
    write_unfinished(runs[1], data, 60)
    both = Run(tmp_path / "both")
    write_comparison(both, runs, data)
    browser.look()
    for home in (*runs, blend, both):
        browser.open(page_of(home))
        assert browser.value("window.hacked === undefined")
        assert len(browser.all("script")) == len(browser.all("style")) == 1
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
    write_unfinished(run, dataset, 1)
    path = page_of(run)
    browser.open(path)
    assert "Unfinished." in browser.text("header") and "fold_01 (epoch 1)" in browser.text("main")
    path.write_text(path.read_text().replace("Unfinished.", "Read again."))
    browser.wait_for("document.querySelector('header').textContent.includes('Read again.')")
    while browser.all("#refresh", "e.checked") == [True]:  # the page may have been read again since
        browser.click("#refresh")
    path.write_text(path.read_text().replace("Read again.", "Too often."))
    time.sleep(1.5)
    assert "Read again." in browser.text("header")
