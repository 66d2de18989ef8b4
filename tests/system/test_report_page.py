"""Reports in a real browser that can reach no network: what their readers see, on a desk and on a telephone."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from paceline.loadtest.reporting import figures, html
from paceline.loadtest.result import Result
from support import browsers, results

pytestmark = browsers.MARKS

MEETING_TEXTS = """
const found = [];
for (const svg of document.querySelectorAll('svg.chart, svg:root')) {
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


def opened(browser: Chrome, result: Result, folder: Path) -> None:
    (folder / "report.html").write_text(html.page(result), encoding="utf-8")
    browsers.complaints(browser)  # of the page before
    browser.get((folder / "report.html").as_uri())


def pixels(browser: Chrome) -> Image.Image:
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def shown(browser: Chrome, selector: str) -> int:
    return sum(each.is_displayed() for each in browser.find_elements(By.CSS_SELECTOR, selector))


def test_the_report_of_a_load_test(browser: Chrome, tmp_path: Path):
    result = results.closed()
    browsers.show(browser, width=1280)
    opened(browser, result, tmp_path)

    assert browser.title == "Load test of digits"
    assert not browsers.complaints(browser)
    assert not browsers.hosts_asked(browser)
    charts = {each.text: each for each in browser.find_elements(By.TAG_NAME, "figcaption") if each.is_displayed()}
    assert list(charts) == [
        "Response time by users", "Throughput by users", "Where the time goes", "Rows in a batch by users", "The tail",
        "Response times", "Time line", "Batch sizes", "The client's time and the server's",
    ]  # fmt: skip
    wide = charts["Response time by users"].find_element(By.XPATH, "../*[contains(@class, 'wide')]")
    assert len(wide.find_elements(By.TAG_NAME, "polyline")) == 3
    assert len(wide.find_elements(By.CSS_SELECTOR, ".marker")) == 3 * len(result.steps)
    assert len(wide.find_elements(By.CSS_SELECTOR, ".limit")) == 1
    texts = [each.text for each in wide.find_elements(By.TAG_NAME, "text")]
    assert {"1", "2", "4", "8", "16", "32", "64", "p50", "p90", "p99", "Users"} <= set(texts)
    titles = [each.get_property("textContent") for each in wide.find_elements(By.CSS_SELECTOR, ".hit title")]
    assert len(titles) == len(result.steps)
    assert str(titles[0]).startswith("Users 1\np50: ")


def test_the_numbers_unfold_beneath_their_chart(browser: Chrome, tmp_path: Path):
    browsers.show(browser, width=1280)
    opened(browser, results.closed(), tmp_path)
    figure = browser.find_element(By.TAG_NAME, "figure")
    assert not figure.find_element(By.TAG_NAME, "table").is_displayed()
    figure.find_element(By.TAG_NAME, "summary").click()
    rows = figure.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows] == ["1", "2", "4", "8", "16", "32", "64"]
    assert all(" ms" in row.text or "\u00a0ms" in row.text for row in rows)


def test_it_is_dark_where_its_reader_wants_that(browser: Chrome, tmp_path: Path):
    browsers.show(browser, width=1280)
    opened(browser, results.closed(), tmp_path)
    pictures = {}
    for scheme in ("light", "dark"):
        browsers.show(browser, width=1280, scheme=scheme)
        picture = pictures[scheme] = pixels(browser)
        assert len(picture.getcolors(picture.width * picture.height) or []) > 50  # it is not blank
    assert min(pictures["light"].getpixel((2, 2))) > 200  # type: ignore[type-var, arg-type]
    assert max(pictures["dark"].getpixel((2, 2))) < 50  # type: ignore[type-var, arg-type]


@pytest.mark.parametrize("width", [1280, 1100, 1000, 826, 800, 400])
@pytest.mark.parametrize(
    "made", [results.closed, results.capacity, results.gated, results.failing, results.without_timings]
)
def test_nothing_overflows_and_no_text_lies_on_another(browser: Chrome, tmp_path: Path, made, width: int):
    browsers.show(browser, width=width)
    opened(browser, made(), tmp_path)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    drawn, left_out = ("narrow", "wide") if width in (400, 826, 1000) else ("wide", "narrow")
    assert shown(browser, f"svg.{drawn}") > 3
    assert not shown(browser, f"svg.{left_out}")
    card, chart = (browser.find_element(By.CSS_SELECTOR, each).rect for each in ("figure", f"figure > svg.{drawn}"))
    assert chart["width"] > 0.7 * card["width"], "no card stands half empty"
    assert not browser.execute_script(MEETING_TEXTS)
    assert not browser.execute_script(OVERFLOWING)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert not browsers.complaints(browser)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_in_a_file_of_its_own(browser: Chrome, tmp_path: Path, scheme: str):
    chart = figures.response_time(results.closed())
    assert chart
    (tmp_path / "chart.svg").write_text(chart.svg(), encoding="utf-8")
    browsers.show(browser, width=800, scheme=scheme)
    browser.get((tmp_path / "chart.svg").as_uri())
    assert not browser.execute_script(MEETING_TEXTS)
    background = pixels(browser).getpixel((60, 8))
    assert min(background) > 250 if scheme == "light" else max(background) < 50  # type: ignore[type-var, arg-type]
