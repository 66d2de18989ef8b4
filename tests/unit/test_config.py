import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.config.resolve import resolve
from paceline.config.setting import BadValue, without_password
from paceline.config.settings import SETTINGS, ServeSettings
from paceline.core.errors import ConfigError


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "paceline.toml"
        path.write_text(text)
        return path

    return write


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(toml):
    path = toml("[serve]\nport = 1\nthreads = 1\ninstances = 1\n")
    settings = resolve({"port": 3}, {"PACELINE_PORT": "2", "PACELINE_THREADS": "2"}, path)
    assert (settings.port, settings.threads, settings.instances, settings.max_headers) == (3, 2, 1, 100)
    assert settings.origin("port") == "flag --port"
    assert settings.origin("threads") == "env PACELINE_THREADS"
    assert settings.origin("instances") == f"{path}:4"
    assert settings.origin("max_headers") == "default"


def test_port_variable_yields_to_our_own():
    assert resolve({}, {"PORT": "7"}, None).origin("port") == "env PORT"
    assert resolve({}, {"PORT": "7", "PACELINE_PORT": "8"}, None).port == 8


def test_an_empty_variable_is_not_set():
    settings = resolve({}, {"PORT": "", "PACELINE_PORT": "", "PACELINE_NO_SUCH": ""}, None)
    assert settings.origin("port") == "default"


def test_kubernetes_service_links_are_not_configuration():
    # What a pod sees when a Service is called `paceline`.
    env = {
        "PACELINE_PORT": "tcp://10.0.0.7:80",
        "PACELINE_PORT_80_TCP": "tcp://10.0.0.7:80",
        "PACELINE_PORT_80_TCP_ADDR": "10.0.0.7",
        "PACELINE_SERVICE_HOST": "10.0.0.7",
        "PACELINE_SERVICE_PORT": "80",
        "PACELINE_SERVICE_PORT_HTTP": "80",
    }
    assert resolve({}, env, None).port == 8080


def test_host_is_open_in_a_container_and_says_why():
    settings = resolve({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None)
    assert settings.host == "0.0.0.0"
    assert settings.origin("host").startswith("default in a container (")
    assert resolve({"host": "127.0.0.1"}, {"K_SERVICE": "x"}, None).host == "127.0.0.1"


def test_a_model_overrides_the_file_but_not_a_flag(toml):
    path = toml("[serve]\nthreads = 1\n[models.ner]\nthreads = 2\ninstances = 2\n")
    of_ner = resolve({"instances": 4}, {}, path).for_model("ner")
    assert (of_ner.threads, of_ner.origin("threads")) == (2, f"{path}:4")
    assert (of_ner.instances, of_ner.origin("instances")) == (4, "flag --instances")
    assert resolve({}, {}, path).for_model("other").threads == 1


def test_fault_004_a_table_for_a_model_that_is_not_served(toml):
    settings = resolve({}, {}, toml("[models.ner]\nthreads = 2\n"))
    settings.check_models(["ner"])
    with pytest.raises(ConfigError, match=r"^models\.ner: no model of this name is served \(.*:2\)$") as caught:
        settings.check_models(["net"])
    assert caught.value.hint == "did you mean 'net'?"
    with pytest.raises(ConfigError, match=r"^models\.other: no model of this name is served$") as caught:
        resolve({}, {}, toml("[models.other]\n")).check_models(["ner"])
    assert caught.value.hint == "served: ner"


def test_a_path_in_the_file_is_relative_to_the_file(toml):
    path = toml('[serve]\nexamples = "examples.json"\n')
    assert resolve({}, {}, path).examples == path.parent / "examples.json"


@pytest.mark.parametrize("text", ["true", "1", "YES"])
def test_true_words(text):
    assert resolve({}, {"PACELINE_DEBUG": text}, None).debug is True


@pytest.mark.parametrize("text", ["false", "0", "No"])
def test_false_words(text):
    assert resolve({}, {"PACELINE_DEBUG": text}, None).debug is False


@pytest.mark.parametrize("text", ["on", "2", "truee", "None"])
def test_other_words_are_no_boolean(text):
    with pytest.raises(ConfigError, match=r"^debug: must be true or false"):
        resolve({}, {"PACELINE_DEBUG": text}, None)


def test_fault_004_unknown_key_suggests(toml):
    with pytest.raises(ConfigError, match=r"^max_batchsize: unknown setting \(.*paceline\.toml line 2\)$") as caught:
        resolve({}, {}, toml("[serve]\nmax_batchsize = 4\n"))
    assert caught.value.hint == "did you mean 'max_batch_size'?"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[sevre]\nport = 1", "sevre: unknown setting", "did you mean 'serve'?"),
        ("port = 1", r"port: must stand under \[serve\]", None),
        ("[models.ner]\nthread = 1", "models.ner.thread: unknown setting", "did you mean 'threads'?"),
        ("[models.ner]\nport = 1", "models.ner.port: unknown setting", None),
        ("serve = 3", "serve: must be a table, got 3", None),
        ("[serve\n", "not valid TOML: .*line 1", None),
    ],
)
def test_fault_004_the_file_says_what_and_where(toml, text, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve({}, {}, toml(text))
    assert hint is None or caught.value.hint == hint


def test_fault_004_unknown_variable_suggests():
    with pytest.raises(ConfigError, match=r"^PACELINE_THREAD: unknown setting") as caught:
        resolve({}, {"PACELINE_THREAD": "1"}, None)
    assert caught.value.hint == "did you mean 'PACELINE_THREADS'?"


def test_fault_005_port_that_is_no_number():
    with pytest.raises(ConfigError, match=r"^port: must be a whole number, got 'abc' \(env PORT\)$"):
        resolve({}, {"PORT": "abc"}, None)


@pytest.mark.parametrize("count", ["0", "-3", "1000000000000", "9" * 40, "9" * 5000, "1_0", "1.5", "1e3", "٣", "nan"])
@pytest.mark.parametrize("name", ["max_batch_size", "instances", "threads"])
def test_fault_006_counts_out_of_bounds(name, count):
    with pytest.raises(ConfigError, match=rf"^{name}: must be .* \(env PACELINE_{name.upper()}\)$") as caught:
        resolve({}, {f"PACELINE_{name.upper()}": count}, None)
    assert len(caught.value.message) < 200


def test_fault_006_in_the_file_with_path_and_line(toml):
    path = toml("[serve]\n# a comment\nport = 1\n\n[models.ner]\nmax_batch_size = 0\n")
    with pytest.raises(ConfigError) as caught:
        resolve({}, {}, path)
    assert caught.value.message == f"models.ner.max_batch_size: must be >= 1, got 0 ({path} line 6)"


@pytest.mark.parametrize("value", ["true", '"8080"', "80.0", "[80]", "1979-05-27"])
def test_fault_006_a_toml_type_is_not_guessed(toml, value):
    with pytest.raises(ConfigError, match=r"^port: must be a whole number, got .*line 2\)$"):
        resolve({}, {}, toml(f"[serve]\nport = {value}\n"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("serve.port = -1", 1),
        ('\n[ serve ]\n"port" = -1', 3),
        ("\nserve = { port = -1 }", 2),
        ('[serve]\nname = "a"\n  port  =  -1', 3),
        ("[models]\n[models.'port = 9']\n[serve]\nport=-1", 4),
    ],
)
def test_the_line_is_right_however_the_key_is_written(toml, text, line):
    with pytest.raises(ConfigError, match=rf"^port: .* line {line}\)$"):
        resolve({}, {}, toml(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        resolve({}, {}, tmp_path / "none.toml")


def test_every_default_obeys_its_own_rule():
    for setting in SETTINGS.values():
        assert setting.check(setting.default) == setting.default
        assert getattr(ServeSettings(), setting.name) == setting.default


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServeSettings().port = 1


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20) | st.integers().map(str) | st.floats().map(str))
def test_any_text_is_a_valid_value_or_a_one_line_message(name, text):
    setting = SETTINGS[name]
    try:
        value = setting.parse(text)
    except BadValue as error:
        assert str(error).startswith("must be ")
        assert "\n" not in str(error)
    else:
        assert setting.check(value) == value


@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.integers() | st.booleans() | st.text(max_size=9)))
def test_any_toml_value_is_valid_or_refused(values):
    for name, value in tomllib.loads(_as_toml(values)).items():
        try:
            SETTINGS[name].check(value)
        except BadValue as error:
            assert str(error).startswith("must be ")


def _as_toml(values):
    def literal(value):
        if isinstance(value, str):
            return '"' + "".join(f"\\U{ord(each):08X}" for each in value) + '"'
        return str(value).lower()

    return "\n".join(f"{name} = {literal(value)}" for name, value in values.items())


def test_two_ports_are_two():
    with pytest.raises(ConfigError, match=r"grpc_port: must not be the port, 8080 \(flag --grpc-port\)"):
        resolve({"grpc_port": 8080}, {}, None)
    assert resolve({"port": 0, "grpc_port": 0}, {}, None).grpc_port == 0


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3c/ret@h:1/0",
        "redis://me:s3c@ret@h:1/0",
        "foo://me:s3c:ret@h",
        "redis://me:s3c ret@h",
        "redis://h:1/0?password=s3cret&db=1",
    ],
)
def test_fault_108_a_password_is_not_shown(url: str):
    assert "s3c" not in without_password(url)
    assert "ret" not in without_password(url)
    with pytest.raises(BadValue) as refusal:
        SETTINGS["cache"].check(f"x{url}")
    assert "s3c" not in str(refusal.value)
