"""The `paceline` command as a user runs it: a real process, its output, its exit code."""

import json
import os
import subprocess
import sys
import tomllib

import pytest


@pytest.fixture
def paceline(tmp_path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PACELINE_") and key != "PORT"}
        return subprocess.run(
            [sys.executable, "-m", "paceline", *arguments],
            cwd=tmp_path,
            env={**clean, **variables},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return run


def test_version(paceline):
    assert paceline("--version").stdout.startswith("paceline 0.")


def test_help_names_the_verbs_and_loads_no_framework(tmp_path):
    code = (
        "import sys, paceline.cli.main as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnxruntime', 'asyncio', 'rich', 'paceline.config'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert "serve " in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_import_paceline_loads_no_numpy(tmp_path):
    code = "import paceline, sys; print('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert result.stdout.strip() == "False"


def test_show_is_a_valid_file_that_gives_the_same_settings(paceline, tmp_path):
    shown = paceline("config", "show", "--origin", PACELINE_THREADS="3", PACELINE_SERVER_NAME='é"\\')
    assert shown.returncode == 3  # a name for other programs is ASCII only
    shown = paceline("config", "show", "--origin", PACELINE_THREADS="3")
    assert tomllib.loads(shown.stdout)["serve"]["threads"] == 3
    assert "threads = 3  # env PACELINE_THREADS" in shown.stdout
    (tmp_path / "paceline.toml").write_text(shown.stdout)
    again = json.loads(paceline("config", "show", "--json").stdout)
    first = json.loads(paceline("config", "show", "--json", "--config", os.devnull, PACELINE_THREADS="3").stdout)
    assert again == first


def test_show_json_with_origin(paceline, tmp_path):
    (tmp_path / "paceline.toml").write_text('[serve]\nport = 9\n[models."a b"]\nexamples = "x.json"\n')
    document = json.loads(paceline("config", "show", "--origin", "--json").stdout)
    assert document["serve"]["port"] == {"value": 9, "origin": "paceline.toml:2"}
    assert document["models"]["a b"]["examples"] == {"value": "x.json", "origin": "paceline.toml:4"}


def test_fault_004_unknown_key_exits_3_with_a_suggestion(paceline, tmp_path):
    (tmp_path / "paceline.toml").write_text("[serve]\nprot = 1\n")
    result = paceline("serve", "model.onnx")
    assert result.returncode == 3
    assert result.stderr == ("error: prot: unknown setting (paceline.toml line 2)\nhint: did you mean 'port'?\n")
    assert result.stdout == ""


def test_fault_004_unknown_flag_and_verb_exit_2_with_a_suggestion(paceline):
    for arguments, meant in [
        (("serve", "m.onnx", "--max-batchsize", "3"), "--max-batch-size"),
        (("sevre",), "serve"),
    ]:
        result = paceline(*arguments)
        assert result.returncode == 2
        assert f"'{meant}'" in result.stderr


def test_fault_004_missing_named_file(paceline):
    result = paceline("serve", "model.onnx", "--config", "none.toml")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("error: none.toml: no such file\nhint: ")


@pytest.mark.parametrize("command", [("serve", "model.onnx"), ("config", "show")])
def test_fault_005_port_that_is_no_number_exits_3(paceline, command):
    result = paceline(*command, PORT="abc")
    assert result.returncode == 3
    assert result.stderr == "error: port: must be a whole number, got 'abc' (env PORT)\n"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--max-batch-size", "0"),
        ("--max-batch-size", "-3"),
        ("--max-batch-size", "abc"),
        ("--max-batch-size", str(10**12)),
        ("--instances", "0"),
        ("--threads", "-1"),
        ("--port", "65536"),
        ("--timeout-ms", "0"),
        ("--warmup-s", "inf"),
    ],
)
def test_fault_006_a_bad_flag_exits_2(paceline, flag, value):
    result = paceline("serve", "model.onnx", flag, value)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"Invalid value for '{flag}': must be " in result.stderr
    assert value in result.stderr
    assert "Traceback" not in result.stderr


def test_fault_006_a_bad_count_in_file_or_variable_exits_3(paceline, tmp_path):
    assert paceline("serve", "model.onnx", PACELINE_THREADS="0").returncode == 3
    (tmp_path / "paceline.toml").write_text("[serve]\nmax_batch_size = 0\n")
    result = paceline("serve", "model.onnx")
    assert result.returncode == 3
    assert result.stderr == "error: max_batch_size: must be >= 1, got 0 (paceline.toml line 2)\n"


def test_debug_adds_the_traceback(paceline):
    result = paceline("serve", "model.onnx", "--debug", PORT="abc")
    assert result.returncode == 3
    assert "Traceback" in result.stderr
