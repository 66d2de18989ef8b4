"""TensorFlow Serving's command line in our terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.config.resolve import resolve
from paceline.config.tfs_flags import spoken, translate
from paceline.core.errors import ConfigError
from support.pbtxt import ARTICLE, write

ONE = ["--model_name=m", "--model_base_path=/models/m"]


def told(*arguments: str, cores: int = 2):
    return translate([*ONE, *arguments], cores)


def found(*arguments: str, cores: int = 2):
    return {name: each.value for name, each in told(*arguments, cores=cores).given.found.items()}


def test_the_line_of_the_article(tmp_path):
    path = write(tmp_path / "batching.cfg", ARTICLE)
    line = ["--rest_api_port=8501", "--port=8500", "--enable_batching", f"--batching_parameters_file={path}"]
    command = told(*line)
    assert command.model == Path("/models/m")
    assert command.rest == ()
    settings = resolve({}, {}, None, command.given)
    assert (settings.name, settings.port, settings.grpc_port) == ("m", 8501, 8500)
    assert (settings.max_batch_size, settings.max_queue_delay_ms, settings.max_queue_requests) == (20, 500, 2000)
    assert settings.instances == 2
    assert settings.origin("port") == "flag --rest_api_port"
    assert settings.origin("grpc_port") == "flag --port"
    assert settings.origin("max_queue_delay_ms") == f"{path}:2"
    assert any("num_batch_threads 8: 2 instances, one for each core" in note for note in command.notes)
    assert told(*line, cores=16).given.found["instances"].value == 8


@pytest.mark.parametrize("form", [["--rest_api_port=1"], ["--rest_api_port", "1"]])
def test_both_forms_of_a_value(form):
    assert found(*form)["port"] == 1


@pytest.mark.parametrize(
    ("arguments", "batches"),
    [
        (["--enable_batching"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching", "true"], True),
        (["--enable_batching=1"], True),
        (["--enable_batching=false"], False),
        (["--enable_batching", "false"], False),
        (["--enable_batching", "--rest_api_port=1"], True),
        ([], False),
    ],
)
def test_all_forms_of_a_switch(arguments, batches):
    said = "\n".join(told(*arguments).notes)
    assert ("also without --enable_batching" in said) is not batches


@pytest.mark.parametrize(
    ("arguments", "port", "grpc_port"),
    [
        ([], 8500, None),
        (["--port=9000"], 9000, None),
        (["--port=9000", "--rest_api_port=0"], 9000, None),
        (["--rest_api_port=9001"], 9001, None),
        (["--rest_api_port=9001", "--port=9000"], 9001, 9000),
        (["--rest_api_port=9001", "--port=9001"], 9001, None),
        (["--rest_api_port=9001", "--port=0"], 9001, None),
    ],
)
def test_ports(arguments, port, grpc_port):
    got = found(*arguments)
    assert (got["port"], got.get("grpc_port")) == (port, grpc_port)


def test_grpc_s_default_port_is_named_where_it_is_not_opened():
    assert not any("gRPC" in note for note in told("--rest_api_port=9001", "--port=9000").notes)
    (note,) = [note for note in told("--rest_api_port=9001").notes if "gRPC" in note]
    assert note.endswith("add --port=8500")


def test_flags_that_are_settings():
    got = found("--rest_api_timeout_in_ms=5000", "--tensorflow_intra_op_parallelism=2")
    assert (got["timeout_ms"], got["threads"]) == (5000, 2)
    assert "threads" not in found("--tensorflow_intra_op_parallelism=0")
    assert found("--file_system_poll_wait_seconds=5")["repository_poll_s"] == 5
    assert found("--file_system_poll_wait_seconds=0")["model_control_mode"] == "none"


def test_flags_without_effect_are_named_in_one_line():
    notes = told("--grpc_max_threads=4", "--rest_api_num_threads", "8", "--monitoring_config_file=m.cfg").notes
    assert "without effect here: --grpc_max_threads, --rest_api_num_threads" in notes
    assert "--monitoring_config_file has no effect: metrics are at /metrics" in notes
    assert "--enable_model_warmup" not in "".join(told("--enable_model_warmup").notes)
    assert "--enable_model_warmup=false" in "".join(told("--enable_model_warmup=false").notes)


def test_ours_may_stand_on_the_same_line():
    command = translate(["--warmup-s", "0", *ONE, "--access-log", "--host=0.0.0.0"], 2)
    assert command.rest == ("--warmup-s", "0", "--access-log", "--host=0.0.0.0")
    # A flag of ours is the more deliberate one.
    assert resolve({"max_batch_size": 3}, {}, None, command.given).max_batch_size == 3


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--model_base_pth=x"], "--model_base_pth: neither", "did you mean --model_base_path"),
        (["--max_batch_size=4"], "--max_batch_size: neither", "did you mean --max-batch-size"),
        (["--rest_api_port=x"], "--rest_api_port: must be a whole number, got 'x'", None),
        (["--rest_api_port=70000"], "--rest_api_port: must be <= 65535", None),
        (["--rest_api_port"], "--rest_api_port: needs a value", None),
        (["--enable_batching=maybe"], "--enable_batching: must be true or false", None),
        (["--model_name=n"], "--model_name: given twice", None),
        (["--batching_parameters_file=f"], "--batching_parameters_file: needs --enable_batching", None),
        (["--model_config_file=f"], "--model_base_path: not together with", None),
        (["--ssl_config_file=f"], "--ssl_config_file: TLS is not available", None),
        (["--file_system_poll_wait_seconds=x"], "--file_system_poll_wait_seconds: must be a whole number", None),
        (["--file_system_poll_wait_seconds=nan"], "--file_system_poll_wait_seconds: must be", None),
    ],
)
def test_fault_004_wrong_flags(arguments, message, hint):
    with pytest.raises(ConfigError) as caught:
        told(*arguments)
    assert str(caught.value).startswith(message)
    assert hint is None or (caught.value.hint or "").startswith(hint)


def test_a_model_is_a_folder():
    with pytest.raises(ConfigError, match="must be a folder on this machine, got 's3://b/m'"):
        translate(["--model_base_path=s3://b/m"], 2)


def test_a_model_is_needed():
    with pytest.raises(ConfigError, match=r"^--model_base_path: must be given"):
        translate(["--model_name=m"], 2)


@pytest.mark.parametrize(
    ("arguments", "theirs"),
    [
        (["--model_base_path=/m"], True),
        (["--rest_api_port", "1"], True),
        (["m.onnx", "--port", "1"], False),
        (["m.onnx", "--max_batch_size=4"], False),
        (["my_model.onnx"], False),
    ],
)
def test_whose_line_it_is(arguments, theirs):
    assert spoken(arguments) is theirs


MODELS = """\
model_config_list {
  config {
    name: "a"
    base_path: "/models/a"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 3 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 3 }
  }
  config { name: "b" base_path: "/models/b" }
}
"""


def test_a_file_of_models(tmp_path):
    path = write(tmp_path / "models.cfg", MODELS)
    command = translate([f"--model_config_file={path}", "--model_config_file_poll_wait_seconds=60"], 2)
    assert command.model == Path("/models")
    settings = resolve({}, {}, None, command.given)
    assert settings.name is None
    assert settings.base_paths == {"a": Path("/models/a"), "b": Path("/models/b")}
    of_a = settings.for_model("a")
    assert (of_a.version_policy, of_a.labels) == ("1,3", "stable=1,canary=3")
    assert of_a.origin("labels") == f"{path}:7"
    assert settings.for_model("b").version_policy == "latest"
    assert any("the file is read once" in note for note in command.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model_config_list: must name at least one model"),
        ("custom_model_config { }", "custom_model_config: not available here"),
        ("model_config_list { config { name: 'a' } }", "model_config_list.config.name: must be there, and base_path"),
        (
            "model_config_list { config { name: 'a' base_path: 'x' } config { name: 'a' base_path: 'y' } }",
            "model_config_list.config.name: 'a' is there twice",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'x' model_platform: 'caffe' } }",
            "model_config_list.config.model_platform: must be tensorflow or onnx",
        ),
        (
            "model_config_list { config { name: 'a/b' base_path: 'x' } }",
            "model_config_list.config.name: as name: must be letters",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'gs://b/a' } }",
            "model_config_list.config.base_path: must be a folder on this machine, got 'gs://b/a'",
        ),
    ],
)
def test_a_wrong_file_of_models(tmp_path, text, message):
    path = write(tmp_path / "models.cfg", text)
    with pytest.raises(ConfigError) as caught:
        translate([f"--model_config_file={path}"], 2)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"({path} line 1)")
