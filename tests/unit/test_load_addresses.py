"""Which server and which route does a URL mean?"""

from __future__ import annotations

import pytest

from paceline.core.errors import ConfigError
from paceline.loadtest.requests.address import Address, is_served_here, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8080", Address("localhost", 8080)),
        ("localhost", Address("localhost", 8080)),
        ("http://h", Address("h", 80)),
        ("http://h:81/", Address("h", 81)),
        ("http://[::1]:81", Address("::1", 81)),
        ("grpc://h:9", Address("h", 9, wire="grpc")),
        ("h:1/predict", Address("h", 1, protocol="plain", route="/predict")),
        ("h:1/models/a%20b", Address("h", 1, model="a b")),
        ("h:1/models/m/batch-predict", Address("h", 1, protocol="plain", model="m", route="/models/m/batch-predict")),
        ("h:1/v2/models/m", Address("h", 1, protocol="oip", model="m")),
        (
            "h:1/x/v2/models/m/versions/3/infer",
            Address(
                "h",
                1,
                prefix="/x",
                protocol="oip",
                model="m",
                version="3",
                route="/x/v2/models/m/versions/3/infer",
            ),
        ),
        (
            "h:1/v1/models/m:predict?a=b",
            Address("h", 1, protocol="tfs", model="m", route="/v1/models/m:predict?a=b"),
        ),
        ("h:1/anything?a=b", Address("h", 1, route="/anything?a=b")),
        (
            "grpc://h:1/tensorflow.serving.PredictionService/Predict",
            Address(
                "h",
                1,
                wire="grpc",
                protocol="tfs-grpc",
                route="/tensorflow.serving.PredictionService/Predict",
            ),
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: Address):
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://h", "https://h: TLS is not spoken"),
        ("grpcs://h", "grpcs://h: TLS is not spoken"),
        ("ftp://h", "expected http://HOST:PORT or grpc://HOST:PORT, got the scheme 'ftp'"),
        ("http://:80", "expected http://HOST:PORT, got no host"),
        ("http://h:0", "expected http://HOST:PORT, got no port"),
        ("http://h:99999", "port out of range"),
        ("http://a:b@h", "a name and a password in a URL are not sent"),
    ],
)
def test_what_cannot_be_asked_is_refused(url: str, message: str):
    with pytest.raises(ConfigError) as error:
        parse(url)
    assert message in error.value.message


def test_https_is_understood_for_whoever_speaks_it():
    assert parse("https://h/predict", tls=True)[:3] == ("h", 443, True)


def test_a_url_shows_its_base():
    assert parse("http://[::1]:81/x/v2/models/m").base == "http://[::1]:81/x"


def test_files_are_told_from_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repository").mkdir()
    here = ("service.py", "service.py:Class", "model.onnx", "model.R", "repository", "no/such/pipeline.toml")
    assert all(map(is_served_here, here))
    assert not any(map(is_served_here, ("localhost:8080", "http://h/service.py", "grpc://h:1", "h:1/predict", "h")))
