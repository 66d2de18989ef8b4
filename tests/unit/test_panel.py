from paceline.server.panel import curl

URL = "http://127.0.0.1:8080"
HEADER = "-H 'content-type: application/json'"


def test_a_short_example_is_in_the_line():
    assert curl(URL, b"[1,2]") == f"curl -s {URL}/predict {HEADER} -d '[1,2]'"


def test_a_long_example_is_fetched():
    assert curl(URL, b"1" * 301) == f"curl -s {URL}/example | curl -s {URL}/predict {HEADER} -d @-"


def test_what_a_shell_could_read_as_more_is_fetched():
    for example in (b'["it\'s"]', b'["a\\nb"]', b'["wow!"]', '["é"]'.encode()):
        assert curl(URL, example).endswith("-d @-")


def test_the_brackets_of_an_ipv6_address_are_no_pattern():
    assert "'http://[::1]:8080/predict'" in curl("http://[::1]:8080", b"1")


def test_there_is_no_curl_for_what_json_cannot_carry():
    assert curl(URL, None) == ""
