"""The report of a study in a real browser that can reach no network, on a desk and on a telephone."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from paceline.optimize.reporting import html
from paceline.optimize.result import Study
from support import browsers, studies

pytestmark = browsers.MARKS

MEETING_TEXTS = """
const found = [];
for (const svg of document.querySelectorAll('svg.chart')) {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) continue;
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([text, box], place) => {
    if (Math.min(box.left - frame.left, frame.right - box.right, box.top - frame.top, frame.bottom - box.bottom) < -1)
      found.push(`${text} leaves the picture`);
    for (const [other, its] of boxes.slice(place + 1))
      if (box.left < its.right - 1 && its.left < box.right - 1 && box.top < its.bottom - 2 && its.top < box.bottom - 2)
        found.push(`${text} meets ${other}`);
  });
}
return found;
"""
OVERFLOWING = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('main *')]
  .filter(each => !each.closest('.scroll, pre, svg') && each.getBoundingClientRect().right > width + 1)
  .map(each => each.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browsers.chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def opened(browser: Chrome, study: Study, folder: Path) -> None:
    (folder / "report.html").write_text(html.page(study), encoding="utf-8")
    browsers.complaints(browser)  # of the page before
    browser.get((folder / "report.html").as_uri())


def test_what_its_reader_sees(browser: Chrome, tmp_path: Path):
    browsers.show(browser, width=1280)
    opened(browser, studies.priced(), tmp_path)
    assert browser.title == "Optimization of digits.onnx"
    assert not browsers.complaints(browser)
    assert not browsers.hosts_asked(browser)
    verdict = browser.find_element(By.CSS_SELECTOR, ".callout.good strong")
    assert verdict.text.startswith("int8-dynamic is 2.61\u00d7 as fast")
    charts = {each.text: each for each in browser.find_elements(By.TAG_NAME, "figcaption")}
    assert list(charts) == [
        "Accuracy against time",
        "Throughput by batch",
        "Times as fast as the original",
        "Cost of a million predictions",
    ]
    quality = charts["Accuracy against time"].find_element(By.XPATH, "../*[contains(@class, 'wide')]")
    assert len(quality.find_elements(By.CSS_SELECTOR, ".markers > path")) == 4
    assert len(quality.find_elements(By.CSS_SELECTOR, ".limit")) == 1
    hovered = quality.find_element(By.CSS_SELECTOR, ".accent.markers title").get_property("textContent")
    assert str(hovered).startswith("int8-dynamic\n")
    rows = browser.find_elements(By.CSS_SELECTOR, ".whole tbody tr")
    assert len(rows) == len(studies.priced().candidates)
    assert "its process ran out of memory" in rows[5].text
    details = browser.find_element(By.CSS_SELECTOR, "details.fold")
    details.find_element(By.TAG_NAME, "summary").click()
    assert "paired score interval (Tango)" in details.text


@pytest.mark.parametrize("width", [1280, 1000, 800, 400])
@pytest.mark.parametrize("made", [studies.study, studies.priced, studies.helpless, studies.alone])
def test_nothing_overflows_and_no_text_lies_on_another(browser: Chrome, tmp_path: Path, made, width: int):
    browsers.show(browser, width=width)
    opened(browser, made(), tmp_path)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert not browser.execute_script(MEETING_TEXTS)
    assert not browser.execute_script(OVERFLOWING)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert not browsers.complaints(browser)


def test_it_is_dark_where_its_reader_wants_that(browser: Chrome, tmp_path: Path):
    opened(browser, studies.study(), tmp_path)
    for scheme, is_right in (("light", lambda each: min(each) > 200), ("dark", lambda each: max(each) < 50)):
        browsers.show(browser, width=1280, scheme=scheme)
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        assert is_right(picture.getpixel((2, 2)))
        assert len(picture.getcolors(picture.width * picture.height) or []) > 50  # it is not blank
