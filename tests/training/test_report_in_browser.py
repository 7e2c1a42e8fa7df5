"""The report in a browser: it fits a phone, nothing overlaps, and its figures answer.

Needs Chromium and its driver; skipped where they are not installed.
"""

import json
import runpy
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from training.reporting.comparison import compare_runs
from training.reporting.report import write_report

make_run = runpy.run_path(str(Path(__file__).with_name("test_report.py")))["make_run"]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium here")

PHONE, DESK = (390, 844), (1280, 900)

OVERLAPS = """
const seen = [...document.querySelectorAll("svg")].filter((svg) => svg.closest(".plot"));
const found = [];
for (const svg of seen) {
  const outer = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")]
    .map((t) => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([said, a], i) => {
    if (a.left < outer.left - 1 || a.right > outer.right + 1 || a.bottom > outer.bottom + 1)
      found.push(`${said} leaves its figure`);
    for (const [other, b] of texts.slice(i + 1))
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
        found.push(`${said} | ${other}`);
  });
}
return {found, figures: seen.length};
"""
CONTRAST = """
const light = (text) => {
  const [r, g, b] = text.match(/[0-9.]+/g).map((v) => (v / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const paper = light(getComputedStyle(document.querySelector("section")).backgroundColor);
const of = (query, what) =>
  [...document.querySelectorAll(query)].map((e) => ratio(light(getComputedStyle(e)[what]), paper));
return {
  paper,
  text: Math.min(...of("h2, td, th, figcaption, .card b", "color"), ...of("svg text", "fill")),
  curves: Math.min(...of(".curve:not(#spectra *)", "stroke"), ...of("#curves .point", "fill")),
};
"""


class Session:
    """A page in headless Chromium, by the W3C's WebDriver protocol."""

    def __init__(self, address):
        self._address = address
        options = {
            "binary": BROWSER,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._address += "/session/" + self._post("/session", wanted)["sessionId"]

    def _post(self, path, content, method="POST"):
        request = urllib.request.Request(
            self._address + path,
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, file, size=DESK, scheme="light"):
        """Show a file in a window of this size and this colour scheme."""
        width, height = size
        metrics = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": size == PHONE,
        }
        self.command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", {"features": features})
        self._post("/url", {"url": file.resolve().as_uri()})
        time.sleep(0.3)  # until observers of sizes have drawn the figures

    def command(self, name, parameters):
        """A command of Chromium's own protocol."""
        return self._post("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def run(self, script, *arguments):
        """What a script returns in the page."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def mouse(self, kind, x, y):
        held = {"buttons": 1, "button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.command("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **held})

    def close(self):
        self._post("", {}, "DELETE")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    place = tmp_path_factory.mktemp("driver")
    port = place / "log"
    with open(port, "w") as output:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(100):
            said = port.read_text()
            if "on port " in said and "successfully" in said:
                break
            time.sleep(0.1)
        number = said.rsplit("on port ", 1)[1].split(".")[0].strip()
        session = Session(f"http://127.0.0.1:{number}")
        yield session
        session.close()
    finally:
        driver.terminate()
        driver.wait()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("seen")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK, (768, 1024)])
def test_nothing_overlaps_and_nothing_scrolls_sideways(browser, report, size, scheme):
    browser.open(report, size, scheme)
    seen = browser.run(OVERLAPS)
    assert seen["found"] == []
    assert seen["figures"] >= 7
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    boxes = browser.run(
        """return [...document.querySelectorAll("main *")]
        .filter((e) => !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.tagName)"""
    )
    assert boxes == []
    assert browser.run(
        """return [...document.querySelectorAll("section, table, div")]
        .filter((e) => e.scrollHeight > e.clientHeight + 2)
        .filter((e) => getComputedStyle(e).overflowY != "visible")
        .length"""
    ) == 0  # fmt: skip


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_a_page_about_several_runs_fits_too(browser, tmp_path, size):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        make_run(folder)
    browser.open(compare_runs(folders, tmp_path / "comparison.html"), size)
    assert browser.run(OVERLAPS)["found"] == []
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(browser, report, scheme):
    browser.open(report, DESK, scheme)
    seen = browser.run(CONTRAST)
    assert (seen["paper"] > 0.5) == (scheme == "light")
    assert seen["text"] > 4.5
    assert seen["curves"] > 2


def test_a_figure_answers_to_the_mouse(browser, report):
    browser.open(report)
    place = browser.run(
        """const plot = document.querySelector("#curves .plot");
        plot.scrollIntoView({block: "center"});
        const box = plot.querySelector(".curve").getBoundingClientRect();
        return [box.left, box.top, box.width, box.height]"""
    )
    left, top, width, height = place
    browser.mouse("mouseMoved", left + width - 3, top + 12)
    told = browser.run("""return document.querySelector("#curves .tip").textContent""")
    assert "training step" in told
    assert "%" in told
    labels = """return [...document.querySelectorAll("#curves .plot svg text")]
        .map((t) => t.textContent).join("|")"""
    before = browser.run(labels)
    browser.mouse("mousePressed", left + 0.2 * width, top + 0.2 * height)
    browser.mouse("mouseMoved", left + 0.4 * width, top + 0.5 * height)
    browser.mouse("mouseReleased", left + 0.4 * width, top + 0.5 * height)
    assert browser.run(labels) != before
    assert browser.run(OVERLAPS)["found"] == []
    browser.run("""document.querySelector("#curves .reset").click()""")
    assert browser.run(labels) == before


def test_a_name_in_the_legend_hides_its_curves(browser, report):
    browser.open(report)
    count = """return document.querySelectorAll("#curves .plot .curve").length"""
    before = browser.run(count)
    click = """document.querySelector("#curves .legend button").click()"""
    browser.run(click)
    assert browser.run(count) == before - 2  # one in each of the two panels
    browser.run(click)
    assert browser.run(count) == before


def test_commands_name_the_folder_of_the_page(browser, report):
    browser.open(report)
    shown = browser.run(
        """return [...document.querySelectorAll("code.command")].map((c) => c.textContent)"""
    )
    assert shown
    assert all(f" {report.parent}" in command for command in shown)
    assert not [command for command in shown if "RUN" in command]
    assert browser.run("""return document.querySelectorAll("button.copy").length""") == len(shown)


def test_a_phone_shows_every_cell_of_the_shrink_table_with_its_name(browser, report):
    browser.open(report, PHONE)
    names = browser.run(
        """const row = document.querySelectorAll("table.wide tr")[1];
        return [...row.querySelectorAll("td")]
            .map((cell) => getComputedStyle(cell, "::before").content)"""
    )
    assert names[0] == '"step"'
    assert '"error bound"' in names


def test_nothing_is_fetched_from_anywhere(browser, report):
    browser.open(report)
    assert browser.run("""return performance.getEntriesByType("resource").length""") == 0
