"""Files beside a model: Triton's, TensorFlow Serving's and ours."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from paceline.config.machine import usable_cores
from paceline.config.model_files import found_beside, read_beside
from paceline.config.resolve import resolve
from paceline.config.triton_warmup import warmup_inputs
from paceline.core.errors import ConfigError
from support.pbtxt import ARTICLE, write

TRITON = """\
name: "ner"
backend: "onnxruntime"
max_batch_size: 16
input [
  { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "text" data_type: TYPE_STRING dims: 1 reshape { shape: [ ] } }
]
output { name: "y" data_type: TYPE_FP32 dims: [ 10 ] }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 2500
  default_queue_policy { max_queue_size: 100 default_timeout_microseconds: 1000 }
}
version_policy { specific { versions: [ 1, 3 ] } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "session.x" value { string_value: "1" } }
optimization { graph { level: 1 } }
"""


def values(found):
    return {name: each.value for name, each in found.items()}


def test_what_triton_says_becomes_settings_with_their_lines(tmp_path):
    path = write(tmp_path / "ner" / "config.pbtxt", TRITON)
    beside = read_beside(tmp_path / "ner")
    assert values(beside.found) == {
        "max_batch_size": 16,
        "instances": 3,
        "max_queue_delay_ms": 2.5,
        "max_queue_requests": 100,
        "version_policy": "1,3",
        "threads": 2,
    }
    assert beside.found["max_batch_size"].origin == f"{path}:3"
    assert beside.found["max_queue_delay_ms"].origin == f"{path}:12"
    assert [(each.name, each.datatype, each.shape) for each in (*beside.inputs, *beside.outputs)] == [
        ("ids", "INT64", (-1, -1)),
        ("text", "BYTES", (-1,)),
        ("y", "FP32", (-1, 10)),
    ]
    assert beside.inputs[1].place == f"{path} line 6"


def test_the_name_is_the_folder_s_also_behind_links(tmp_path):
    # As a mounted config map has it: m/config.pbtxt -> ..data/config.pbtxt -> ..2026_01/config.pbtxt.
    write(tmp_path / "store/m-7/..2026_01/config.pbtxt", "name: 'm' max_batch_size: 4")
    (tmp_path / "store/m-7/..data").symlink_to("..2026_01")
    (tmp_path / "store/m-7/config.pbtxt").symlink_to("..data/config.pbtxt")
    (tmp_path / "m").symlink_to("store/m-7")
    assert values(found_beside(tmp_path / "m")) == {"max_batch_size": 4}


def test_what_has_no_effect_is_named_once(tmp_path):
    path = write(tmp_path / "ner" / "config.pbtxt", TRITON)
    said = "\n".join(read_beside(tmp_path / "ner").notes)
    for name in ("preferred_batch_size", "default_timeout_microseconds", "a GPU", "session.x", "optimization"):
        assert said.count(name) == 1
    assert all(note.startswith(f"{path}: ") for note in read_beside(tmp_path / "ner").notes)


def test_a_model_whose_rows_are_never_joined(tmp_path):
    write(tmp_path / "m" / "config.pbtxt", "max_batch_size: 0\ninput { name: 'x' data_type: TYPE_FP16 dims: [2, 3] }\n")
    beside = read_beside(tmp_path / "m")
    assert values(beside.found) == {"max_batch_size": 1}
    assert beside.inputs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("policy", "text"),
    [("latest { num_versions: 2 }", "latest:2"), ("latest { }", "latest"), ("all { }", "all")],
)
def test_policies_of_versions(tmp_path, policy, text):
    write(tmp_path / "m" / "config.pbtxt", f"version_policy: {{ {policy} }}")
    assert values(found_beside(tmp_path / "m")) == {"version_policy": text}


@pytest.mark.parametrize(
    "text",
    ["platform: 'tensorflow_savedmodel'", "backend: 'openvino'", "platform: 'pytorch_libtorch'", "backend: 'onnx'"],
)
def test_the_file_decides_what_runs_a_model(tmp_path, text):
    write(tmp_path / "m" / "config.pbtxt", text)
    assert values(found_beside(tmp_path / "m")) == {}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("max_batch_sise: 4", 1, "max_batch_sise: unknown field"),
        ("\ndynamic_batching { max_queue_delay: 4 }", 2, "dynamic_batching.max_queue_delay: unknown field"),
        ("name: 'other'", 1, "name: must be the folder's name, 'm', got 'other'"),
        ("backend: 'python'", 1, "backend: must be onnxruntime, openvino, tensorflow or pytorch, got 'python'"),
        ("platform: 'tensorrt_plan'", 1, "platform: must be onnxruntime, openvino, tensorflow or pytorch, got 'te"),
        ("\n\nensemble_scheduling { }", 3, "ensemble_scheduling: not available here"),
        ("model_transaction_policy { decoupled: true }", 1, "model_transaction_policy.decoupled: must be false"),
        ("max_batch_size: 100000", 1, "max_batch_size: as max_batch_size: must be <= 65536, got 100000"),
        ("max_batch_size: -1", 1, "max_batch_size: as max_batch_size: must be >= 1, got -1"),
        ("input { name: 'x' data_type: TYPE_FP33 dims: 1 }", 1, "input.data_type: must be one of TYPE_BOOL"),
        ("input { name: 'x' data_type: TYPE_FP32 dims: 0 }", 1, "input.dims: each must be -1"),
        ("default_model_filename: '../x.onnx'", 1, "default_model_filename: must be a file's name"),
        ("instance_group { kind: KIND_XPU }", 1, "instance_group.kind: must be one of KIND_AUTO, KIND_CPU"),
        ("version_policy { }", 1, "version_policy: must be one of latest, all, specific"),
        ("version_policy { specific { } }", 1, "version_policy.specific: must name versions"),
        ("parameters { key: 'intra_op_thread_count' value { string_value: 'x' } }", 1, "parameters.value: intra_op"),
    ],
)
def test_fault_004_a_wrong_file_is_refused_with_its_line(tmp_path, text, line, message):
    path = write(tmp_path / "m" / "config.pbtxt", text)
    with pytest.raises(ConfigError) as caught:
        found_beside(tmp_path / "m")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"({path} line {line})")


def test_batching_parameters_beside_a_model(tmp_path):
    path = write(tmp_path / "m" / "batching_params.pbtxt", ARTICLE)
    beside = read_beside(tmp_path / "m")
    cores = usable_cores().whole
    assert values(beside.found) == {
        "max_batch_size": 20,
        "max_queue_delay_ms": 500.0,
        "max_queue_requests": 2000,
        "instances": min(8, cores),
    }
    assert beside.found["max_queue_delay_ms"].origin == f"{path}:2"
    assert any("up to 500 ms" in note for note in beside.notes)


def test_a_version_s_own_batching_parameters_win(tmp_path):
    write(tmp_path / "m" / "batching_params.pbtxt", "max_batch_size { value: 2 } batch_timeout_micros { value: 1 }")
    write(tmp_path / "m" / "7" / "batching_params.pbtxt", "max_batch_size { value: 3 }")
    assert values(found_beside(tmp_path / "m")) == {"max_batch_size": 2, "max_queue_delay_ms": 0.001}
    assert values(found_beside(tmp_path / "m", tmp_path / "m" / "7"))["max_batch_size"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 20", "max_batch_size: must be a message { ... }, got '20'"),
        ("max_batch_size { value: 0 }", "max_batch_size: as max_batch_size: must be >= 1, got 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros.value: must be >= 0, got -1"),
        ("batch_timeout_micro { value: 1 }", "batch_timeout_micro: unknown field"),
        ("pad_variable_length_inputs { value: true }", "pad_variable_length_inputs: must be false"),
        ("allowed_batch_sizes: 4 allowed_batch_sizes: 2", "allowed_batch_sizes: must ascend"),
    ],
)
def test_wrong_batching_parameters(tmp_path, text, message):
    path = write(tmp_path / "m" / "batching_params.pbtxt", text)
    with pytest.raises(ConfigError) as caught:
        found_beside(tmp_path / "m")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"({path} line 1)")


def test_parameters_that_change_nothing_are_accepted(tmp_path):
    write(
        tmp_path / "m" / "batching_params.pbtxt",
        "allowed_batch_sizes: [2, 4] pad_variable_length_inputs { value: false } thread_pool_name { value: 'x' }\n"
        "enable_large_batch_splitting { value: true } max_batch_size { value: 9 }\n"
        "max_execution_batch_size { value: 4 }",
    )
    beside = read_beside(tmp_path / "m")
    assert values(beside.found) == {"max_batch_size": 4}
    assert any("allowed_batch_sizes" in note for note in beside.notes)


def test_our_own_file_holds_a_model_s_settings_at_top_level(tmp_path):
    path = write(tmp_path / "m" / "paceline.toml", "\nthreads = 2\nexamples = 'e.json'\n")
    found = found_beside(tmp_path / "m")
    assert values(found) == {"threads": 2, "examples": tmp_path / "m" / "e.json"}
    assert found["threads"].origin == f"{path}:2"
    write(path, "port = 1")
    with pytest.raises(ConfigError, match=r"^port: unknown setting \(.*paceline\.toml line 1\)$"):
        found_beside(tmp_path / "m")


def test_a_folder_without_such_files(tmp_path):
    assert found_beside(tmp_path) == {}
    assert warmup_inputs(tmp_path) is None


def test_a_file_beside_a_model_wins_over_serve_and_yields_to_the_rest(tmp_path):
    write(tmp_path / "m" / "config.pbtxt", "max_batch_size: 2 instance_group { count: 2 } dynamic_batching { }")
    write(tmp_path / "m" / "paceline.toml", "threads = 2\nmax_queue_delay_ms = 2")
    beside = found_beside(tmp_path / "m")
    toml = write(
        tmp_path / "paceline.toml",
        "[serve]\nmax_batch_size = 1\ninstances = 1\nthreads = 1\nnonfinite = 'null'\n[models.m]\ninstances = 3\n",
    )
    of_m = resolve({}, {"PACELINE_MAX_QUEUE_DELAY_MS": "1"}, toml).for_model("m", beside)
    assert (of_m.max_batch_size, of_m.instances, of_m.threads, of_m.nonfinite) == (2, 3, 2, "null")
    assert of_m.max_queue_delay_ms == 1
    assert of_m.origin("max_batch_size") == f"{tmp_path / 'm' / 'config.pbtxt'}:1"
    assert of_m.origin("instances") == f"{toml}:7"
    assert resolve({"threads": 4}, {}, toml).for_model("m", beside).threads == 4


WARMUP = """\
max_batch_size: 8
model_warmup {
  name: "first"
  batch_size: 2
  inputs { key: "zero" value { data_type: TYPE_INT32 dims: [ 3 ] zero_data: true } }
  inputs { key: "random" value { data_type: TYPE_FP32 dims: [ 2, 2 ] random_data: true } }
  inputs { key: "raw" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "raw" } }
  inputs { key: "both" value { data_type: TYPE_INT16 dims: [ 1 ] input_data_file: "both" } }
  inputs { key: "text" value { data_type: TYPE_STRING dims: [ 2 ] input_data_file: "text" } }
}
model_warmup { name: "second" batch_size: 1 }
"""


def test_warm_up_inputs_of_triton(tmp_path):
    folder = tmp_path / "m"
    write(folder / "config.pbtxt", WARMUP)
    write(folder / "warmup" / "raw", "").write_bytes(np.array([1.5, 2.5], "<f4").tobytes())
    (folder / "warmup" / "both").write_bytes(np.array([7, 8], "<i2").tobytes())
    (folder / "warmup" / "text").write_bytes(struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0))
    assert values(found_beside(folder)) == {"max_batch_size": 8}
    inputs = warmup_inputs(folder)
    assert {name: (array.dtype.str, array.shape) for name, array in inputs.items()} == {
        "zero": ("<i4", (2, 3)),
        "random": ("<f4", (2, 2, 2)),
        "raw": ("<f4", (2, 2)),
        "both": ("<i2", (2, 1)),
        "text": ("|O", (2, 2)),
    }
    assert inputs["raw"].tolist() == [[1.5, 2.5]] * 2
    assert inputs["both"].tolist() == [[7], [8]]
    assert inputs["text"].tolist() == [[b"ab", b""]] * 2
    assert not inputs["zero"].any()
    assert 0 < inputs["random"].std() < 1


def test_warm_up_inputs_without_rows(tmp_path):
    text = "model_warmup { inputs { key: 'x' value { data_type: TYPE_BF16 dims: [2, 2] random_data: true } } }"
    write(tmp_path / "config.pbtxt", text)
    inputs = warmup_inputs(tmp_path)
    assert (inputs["x"].dtype, inputs["x"].shape) == (np.uint16, (2, 2))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("data_type: TYPE_FP32 dims: -1", "dims: must be sizes, without -1"),
        ("data_type: TYPE_FP32 dims: 9999999999", "dims: at most 268435456 elements"),
        ("data_type: TYPE_FP32 dims: 1 input_data_file: 'none'", "none: no such file"),
        ("data_type: TYPE_FP32 dims: 1 input_data_file: '../config.pbtxt'", "input_data_file: must be a file in"),
        ("data_type: TYPE_FP32 dims: 1 input_data_file: 'odd'", "3 bytes are no whole number of FP32"),
        ("data_type: TYPE_INT8 dims: 2 input_data_file: 'odd'", "must hold 2 elements for [2], has 3"),
        ("data_type: TYPE_STRING dims: 1 input_data_file: 'odd'", "the last string is cut short"),
    ],
)
def test_wrong_warm_up_inputs(tmp_path, value, message):
    write(tmp_path / "m" / "config.pbtxt", f"model_warmup {{ inputs {{ key: 'x' value {{ {value} }} }} }}")
    write(tmp_path / "m" / "warmup" / "odd", "abc")
    with pytest.raises(ConfigError) as caught:
        warmup_inputs(tmp_path / "m")
    assert message.lower() in str(caught.value).lower()
    assert str(caught.value).endswith("config.pbtxt line 1)")
