"""The try-it page in a real browser: what its reader sees is what the model answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from paceline.testing import RunningServer, run_server
from support import browsers, models

pytestmark = browsers.MARKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.mlp(tmp_path_factory.mktemp("models") / "small.onnx", sizes=(6, 8, 4))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[RunningServer]:
    with run_server(model) as server:
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with browsers.chromium(tmp_path / "profile") as browser:
        yield browser


def open_page(browser: Chrome, server: RunningServer, operation: str = "predict") -> None:
    browser.get(f"{server.url}/docs#{operation}")
    wait(browser, lambda: text_of(browser, "note").startswith("Valid JSON"))


def send(browser: Chrome) -> str:
    """Press Send; the status shown."""
    browser.find_element(By.ID, "send").click()
    wait(browser, lambda: bool(text_of(browser, "status")))
    return text_of(browser, "status")


def answer(browser: Chrome) -> object:
    return json.loads(text_of(browser, "answer"))


def text_of(browser: Chrome, element: str) -> str:
    found = browser.find_elements(By.ID, element)
    return (found[0].get_property("textContent") or "") if found else ""  # type: ignore[return-value]


def wait(browser: Chrome, condition: object) -> None:
    assert callable(condition)
    WebDriverWait(browser, 20).until(lambda _: condition())


def test_send_shows_what_onnxruntime_answers(browser: Chrome, server: RunningServer, model: Path):
    open_page(browser, server)
    item = json.loads(browser.find_element(By.ID, "body").get_property("value"))  # type: ignore[arg-type]

    assert send(browser) == "200 OK"

    expected = ort.InferenceSession(model).run(None, {"x": np.array([item], np.float32)})[0][0]
    np.testing.assert_allclose(np.array(answer(browser), np.float32), expected, rtol=1e-6)
    shown = {
        each.get_attribute("data-number"): each.text for each in browser.find_elements(By.CSS_SELECTOR, "[data-number]")
    }
    assert shown["batch"] == "1 row"
    assert all(shown[name].endswith(" ms") for name in ("latency", "queue", "infer", "rest"))
    assert browsers.hosts_asked(browser) == {f"{server.host}:{server.port}"}
    assert not browsers.complaints(browser)


@pytest.mark.parametrize("operation", ["batch_predict", "v1", "v2"])
def test_the_example_of_every_protocol_is_accepted(browser: Chrome, server: RunningServer, operation: str):
    open_page(browser, server, operation)
    assert send(browser) == "200 OK"


def test_the_curl_shown_gives_the_same_answer(browser: Chrome, server: RunningServer):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    import subprocess

    open_page(browser, server)
    send(browser)
    done = subprocess.run(["sh", "-c", text_of(browser, "curl")], capture_output=True, check=True, timeout=20)
    assert json.loads(done.stdout) == answer(browser)


def test_an_invalid_request_shows_the_servers_own_words(browser: Chrome, server: RunningServer):
    open_page(browser, server)
    body = browser.find_element(By.ID, "body")
    body.clear()
    body.send_keys("[1, 2]")

    assert send(browser).startswith("400")

    own = httpx.post(f"{server.url}/predict", content=b"[1,2]", headers={"content-type": "application/json"})
    assert answer(browser)["error"] == own.json()["error"]  # type: ignore[index]


@pytest.mark.parametrize("example", ["", "def example(): return {'a': 1}"], ids=["without an example", "with one"])
def test_user_code_can_be_tried(browser: Chrome, tmp_path: Path, example: str):
    (tmp_path / "code.py").write_text(f"def predict(batch: list): return [[item] for item in batch]\n{example}\n")
    with run_server(tmp_path / "code.py", ["--cache", "memory"]) as server:
        browser.get(f"{server.url}/docs#predict")
        if example:
            wait(browser, lambda: text_of(browser, "note").startswith("Valid JSON"))
        else:
            wait(browser, lambda: "example()" in text_of(browser, "note"))
            browser.find_element(By.ID, "body").send_keys('{"a": 1}')
        assert send(browser) == "200 OK"
        assert answer(browser) == [{"a": 1}]
        browser.find_element(By.ID, "send").click()
        wait(browser, lambda: "x-cache: hit" in browser.find_element(By.ID, "result").text)
        assert "JSON" in browser.find_element(By.CSS_SELECTOR, ".tensor .type").text
        assert not browsers.complaints(browser)


def test_a_deadline_that_cannot_be_met_is_refused(browser: Chrome, server: RunningServer):
    open_page(browser, server)
    browser.find_element(By.ID, "deadline").send_keys("0.0001")
    assert send(browser).startswith("50")
