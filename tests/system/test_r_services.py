"""What becomes of a script in R that is served? It is recognised, called, cleaned up after and survived, in real R."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paceline.testing import run_server
from support.doing import full_strength, is_alive, workers
from support.r_services import needs_r, predict, predictions, serving
from support.wire import ask, get, metric, until

pytestmark = [pytest.mark.slow, needs_r]

EXAMPLES = Path(__file__).parents[2] / "examples"

LINEAR = """
model <- lm(mpg ~ wt + hp, mtcars)
example <- data.frame(wt = 2.5, hp = 110)
predict_fn <- function(df) predict(model, df)
"""

DOING = """
predict_fn <- function(df) {
  if (!is.null(df$mark)) cat(Sys.getpid(), file = df$mark[1])
  switch(df$do[1],
    pid = rep(Sys.getpid(), nrow(df)),
    stop = helper(df),
    quit = q("no", status = 3),
    loop = repeat {},
    recurse = predict_fn(df),
    close = { closeAllConnections(); rep("closed", nrow(df)) },
    reuse = { closeAllConnections(); lapply(c("one.txt", "two.txt"), file, "w"); rep("reused", nrow(df)) },
    fork = rep(sum(unlist(parallel::mclapply(1:4, identity, mc.cores = 2))), nrow(df)),
    read = rep(length(c(readLines("stdin"), readLines(stdin()), scan(quiet = TRUE))), nrow(df)),
    divert = { sink(file("diverted.txt", "w"), type = "message"); rep("diverted", nrow(df)) },
    lock = { assign("fresh", 1, globalenv()); lockBinding("fresh", globalenv()); rep("locked", nrow(df)) },
    locked = rep(exists("fresh"), nrow(df)),
    empty_warning = { warning(""); rep("warned", nrow(df)) },
    strict = { options(warn = 2); warning("careful"); rep("never", nrow(df)) },
    empty_stop = stop(),
    bytes = stop("\\xff is no text"),
    file = readRDS("nothing.rds"),
    tried = try(helper(df), silent = TRUE),
    caught = tryCatch(helper(df), error = identity),
    handled = h(df),
    noise = { print(df); cat("to stdout"); message("to stderr"); system("echo from a child"); rep("said", nrow(df)) },
    warn = { for (i in 1:3) warning("careful"); rep("warned", nrow(df)) },
    plot = { plot(1:3); rep("drawn", nrow(df)) },
    cores = rep(getOption("mc.cores"), nrow(df))
  )
}

helper <- function(df) {
  stop("it does not work")
}

h <- function(df) helper(df)
"""


def refuse_to_start(folder: Path, script: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a server that must end by itself."""
    path = folder / "model.R"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


# -- recognised -----------------------------------------------------------------------------------------------


def test_a_function_is_recognised_warm_and_called_with_rows_of_many_requests(tmp_path):
    with serving(tmp_path, LINEAR, "--warmup-s", "0.2") as server:
        assert "function predict_fn: data frames of many rows" in server.output
        assert ask(server, get("/example")).body == b'{"wt":2.5,"hp":110}'
        assert predict(server, {"wt": 2.5, "hp": 110}).json == pytest.approx(24.0377, abs=1e-3)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda hp: predict(server, {"wt": 2.5, "hp": hp}).json, range(64)))
        assert answers == predictions(server, [{"wt": 2.5, "hp": hp} for hp in range(64)])
        assert metric(server, "paceline_batches_total") < 1 + 64 + 64


def test_another_function_is_named_behind_the_script(tmp_path):
    (tmp_path / "model.R").write_text("score <- function(df) df$x * 2\n")
    with run_server(f"{tmp_path}/model.R:score", ["--warmup-s", "0"]) as server:
        assert predict(server, 4).json == 8.0


def test_what_init_returns_is_the_second_argument_and_visible_by_name(tmp_path):
    script = """
    init <- function() { cat("initialised\\n"); list(factor = 10) }
    predict_fn <- function(df, state) df$x * state$factor + factor
    """
    with serving(tmp_path, script, "--instances", "2") as server:
        assert [predict(server, x).json for x in (1, 2)] == [20.0, 30.0]
        assert server.output.count("initialised") == 2


def test_a_script_may_begin_by_tidying_up(tmp_path):
    script = "rm(list = ls()); closeAllConnections(); graphics.off()\npredict_fn <- function(df) df$x\n"
    with serving(tmp_path, script) as server:
        assert predict(server, 1).json == 1.0


def test_max_batch_size_bounds_the_rows_of_a_data_frame(tmp_path):
    script = "max_batch_size <- 3\npredict_fn <- function(df) rep(nrow(df), nrow(df))\n"
    with serving(tmp_path, script) as server:
        assert max(predictions(server, list(range(10)))) <= 3


def test_the_working_directory_is_the_folder_of_the_script(tmp_path):
    (tmp_path / "factor.txt").write_text("3")
    script = 'factor <- scan("factor.txt", quiet = TRUE)\npredict_fn <- function(df) df$x * factor\n'
    with serving(tmp_path, script) as server:
        assert predict(server, 2).json == 6.0


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("x <- 1\ny <- (2 +\n}\n", 4, "model.R:3:1: unexpected '}'"),
        ("x <- 1\ny <- undefined + 1\n", 4, "model.R:2: object 'undefined' not found"),
        ("max_batch_size <- 0\npredict_fn <- function(df) 1\n", 4, "max_batch_size: expected a number >= 1, got 0"),
        ("score <- function(df) 1\n", 4, "expected a function predict_fn(df), or a Studio script with "
         "maml.mapOutputPort (it defines score)"),
    ],
)  # fmt: skip
def test_a_script_that_cannot_be_evaluated_ends_the_start_and_says_where(tmp_path, script, code, said):
    exit_code, stderr = refuse_to_start(tmp_path, script)
    assert (exit_code, said in stderr) == (code, True), stderr
    assert "serve.R" not in stderr


@pytest.mark.parametrize(
    "script",
    [
        "x <- 1\nlibrary(notthere)\npredict_fn <- function(df) 1\n",
        "predict_fn <- function(df) 1\nnotthere::thing()\n",
        'suppressWarnings(library(notthere))\ndf <- maml.mapInputPort(1)\nmaml.mapOutputPort("df")\n',
    ],
    ids=["library", "namespace", "Studio"],
)
def test_fault_125_a_missing_package_ends_the_start_and_is_named(tmp_path, script):
    code, stderr = refuse_to_start(tmp_path, script)
    assert code == 4
    assert "the R package 'notthere' is not installed" in stderr
    assert "packages.txt" in stderr


def test_fault_125_without_r_the_start_says_how_to_install_it(tmp_path):
    code, stderr = refuse_to_start(tmp_path, LINEAR, PATH=str(tmp_path), R_HOME="")
    assert code == 4
    assert "there is no R on PATH" in stderr
    assert "apt-get install r-base-core" in stderr


# -- what a call leaves ---------------------------------------------------------------------------------------


def test_fault_123_what_a_call_creates_or_changes_is_gone_at_its_end(tmp_path):
    script = """
    kept <- 0
    predict_fn <- function(df) {
      seen <- list(new = exists("new_one"), dot = exists(".hidden"), kept = kept, digits = getOption("digits"),
                   option = is.null(getOption("new.option")), folder = basename(getwd()), seed = exists(".Random.seed"))
      new_one <<- 1; assign(".hidden", 1, globalenv()); kept <<- kept + 1
      options(digits = 3, new.option = 1); setwd("/"); set.seed(1); sink("/dev/null")
      list(seen)
    }
    """
    with serving(tmp_path, script, "--no-deduplicate") as server:
        clean = {"new": False, "dot": False, "kept": 0.0, "digits": 7, "option": True, "folder": tmp_path.name,
                 "seed": False}  # fmt: skip
        assert [predict(server, {}).json for _ in range(3)] == [clean] * 3


def test_fault_123_messages_go_to_the_log_again_and_locked_variables_are_gone(tmp_path):
    with serving(tmp_path, DOING, "--no-deduplicate") as server:
        assert [predict(server, {"do": deed}).json for deed in ("divert", "noise", "lock", "locked")] == [
            "diverted",
            "said",
            "locked",
            False,
        ]
        assert "to stderr" in server.output


def test_fault_123_what_init_keeps_in_an_environment_persists(tmp_path):
    script = """
    init <- function() { state <- new.env(); state$calls <- 0; state }
    predict_fn <- function(df, state) { state$calls <- state$calls + 1; rep(state$calls, nrow(df)) }
    """
    with serving(tmp_path, script, "--no-deduplicate") as server:
        assert [predict(server, {}).json for _ in range(3)] == [1.0, 2.0, 3.0]


def test_fault_123_a_seed_set_at_the_start_is_there_at_each_call_and_without_one_calls_differ(tmp_path):
    draw = "predict_fn <- function(df) runif(nrow(df))\n"
    with serving(tmp_path, "set.seed(1)\n" + draw, "--no-deduplicate") as server:
        assert predict(server, {}).json == predict(server, {}).json
    with serving(tmp_path, draw, "--no-deduplicate") as server:
        assert predict(server, {}).json != predict(server, {}).json


def test_fault_123_attaching_at_every_call_is_undone_and_said_once(tmp_path):
    script = 'predict_fn <- function(df) { attach(list(a = 1), name = "cache"); rep(length(search()), nrow(df)) }\n'
    with serving(tmp_path, script, "--no-deduplicate") as server:
        first = predict(server, {}).json
        # The first one stays: that is how a script keeps things. None comes on top of it.
        assert [predict(server, {}).json for _ in range(5)] == [first + 1] * 5
        assert server.output.count("'cache' is attached by every call") == 1


def test_fault_123_ever_new_names_on_the_search_path_are_undone_too(tmp_path):
    script = """
    init <- function() { state <- new.env(); state$calls <- 0; state }
    predict_fn <- function(df, state) {
      state$calls <- state$calls + 1
      attach(list(a = 1), name = paste("cache", state$calls))
      rep(length(search()), nrow(df))
    }
    """
    with serving(tmp_path, script, "--no-deduplicate") as server:
        lengths = [predict(server, {}).json for _ in range(40)]
        assert len(set(lengths[-20:])) == 1
        assert server.output.count("calls attach ever new names") == 1


# -- misfortunes ----------------------------------------------------------------------------------------------


def test_fault_122_what_a_script_raises_is_an_answer_in_its_own_terms(tmp_path):
    with serving(tmp_path, DOING, "--debug") as server:
        before = workers(server)
        answer = predict(server, {"do": "stop"})
        assert (answer.status, answer.json["code"]) == (500, "model_failed")
        message, *calls = answer.json["error"].split("\n")
        assert message == "the code raised an error: Error in helper(df): it does not work"
        assert calls[-1] == '  model.R:33: stop("it does not work")'
        assert predict(server, {"do": "recurse"}).json["code"] == "model_failed"
        assert workers(server) == before
        assert predict(server, {"do": "pid"}).json == before[0]


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("empty_stop", "Error in predict_fn(df):"),
        ("bytes", "Error in predict_fn(df): <ff> is no text"),
        ("strict", "Error in predict_fn(df): (converted from warning) careful"),
        (
            "file",
            "Error in gzfile(file, \"rb\"): cannot open the connection (cannot open compressed file 'nothing.rds', "
            "probable reason 'No such file or directory')",
        ),
        ("tried", "Error in helper(df): it does not work"),
        ("caught", "Error in helper(df): it does not work"),
    ],
)
def test_fault_122_the_message_says_what_r_knows(tmp_path, deed, message):
    with serving(tmp_path, DOING, "--debug") as server:
        for _ in range(2):
            answer = predict(server, {"do": deed})
            said, _, calls = answer.json["error"].partition("\n")
            assert (answer.status, answer.json["code"]) == (500, "model_failed")
            assert said.rstrip() == f"the code raised an error: {message}"
            assert "result_of" not in calls + said


def test_fault_122_a_function_of_the_script_may_have_any_name(tmp_path):
    with serving(tmp_path, DOING, "--debug") as server:
        assert "model.R:36: helper(df)" in predict(server, {"do": "handled"}).json["error"]


def test_fault_122_a_bad_item_does_not_fail_its_neighbours(tmp_path):
    with serving(tmp_path, LINEAR) as server:
        good, bad = {"wt": 2.5, "hp": 110}, {"wt": "heavy", "hp": 110}
        answers = predictions(server, [good, bad, good])
        assert answers[0] == answers[2] == predict(server, good).json
        assert answers[1]["code"] == "model_failed"


def test_fault_122_quit_costs_a_worker_and_no_more(tmp_path):
    with serving(tmp_path, DOING, "--instances", "2") as server:
        answer = predict(server, {"do": "quit"})
        assert answer.status >= 400
        assert predict(server, {"do": "pid"}).status == 200
        full_strength(server)
        assert "it exited with 3" in server.output


def test_fault_122_an_endless_loop_ends_at_the_deadline_and_its_worker_at_run_timeout(tmp_path):
    with serving(tmp_path, DOING, "--instances", "2", "--run-timeout-ms", "1000") as server:
        mark = tmp_path / "mark"
        answer = predict(server, {"do": "loop", "mark": str(mark)}, timeout_ms=300)
        assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
        until(lambda: not is_alive(int(mark.read_text())))
        assert predict(server, {"do": "pid"}).status == 200
        full_strength(server)


def test_fault_122_a_killed_worker_is_replaced_and_its_request_run_again(tmp_path):
    with serving(tmp_path, DOING, "--instances", "2") as server:
        victim = workers(server)[0]
        os.kill(victim, signal.SIGKILL)
        assert {predict(server, {"do": "pid"}).status for _ in range(4)} == {200}
        full_strength(server)
        assert victim not in workers(server)


@pytest.mark.parametrize(
    ("deed", "answer"),
    [
        ("close", "closed"),
        ("reuse", "reused"),
        ("noise", "said"),
        ("warn", "warned"),
        ("empty_warning", "warned"),
        ("plot", "drawn"),
        ("read", 0),
        ("fork", 10),
    ],
)
def test_fault_96_what_a_script_prints_closes_and_draws_does_not_reach_the_channel(tmp_path, deed, answer):
    with serving(tmp_path, DOING, "--no-deduplicate") as server:
        assert [predict(server, {"do": deed}).json for _ in range(3)] == [answer] * 3
        assert not (tmp_path / "Rplots.pdf").exists()
        if deed == "noise":
            assert all(words in server.output for words in ("to stdout", "to stderr", "from a child"))
        if deed == "warn":
            assert server.output.count("model.R: warning in predict_fn(df): careful") == 1


def test_fault_97_no_worker_outlives_a_server_that_is_killed(tmp_path):
    with serving(tmp_path, DOING, "--instances", "2") as server:
        mark, before = tmp_path / "mark", workers(server)
        with ThreadPoolExecutor(1) as pool:
            looping = pool.submit(predict, server, {"do": "loop", "mark": str(mark)})
            until(lambda: mark.exists() and mark.read_text() != "")
            server.process.kill()
            until(lambda: not any(map(is_alive, before)))
            with pytest.raises((OSError, AssertionError)):
                looping.result()


def test_each_worker_is_told_how_many_cores_it_has(tmp_path):
    with serving(tmp_path, DOING, "--threads", "2") as server:
        assert predict(server, {"do": "cores"}).json == 2


def test_a_stop_lets_a_call_finish(tmp_path):
    script = "predict_fn <- function(df) { cat('x', file = df$mark[1]); Sys.sleep(1); rep('done', nrow(df)) }\n"
    with serving(tmp_path, script) as server, ThreadPoolExecutor(1) as pool:
        mark = tmp_path / "mark"
        answer = pool.submit(predict, server, {"mark": str(mark)})
        until(mark.exists)
        begun = time.monotonic()
        assert server.terminate() == 0
        assert answer.result().json == "done"
        assert time.monotonic() - begun < 10


# -- the examples ---------------------------------------------------------------------------------------------


def test_the_example_of_a_function():
    with run_server(EXAMPLES / "r_predict" / "mileage.R", ["--warmup-s", "0"]) as server:
        assert predict(server, {"wt": 2.5, "hp": 110, "gears": "manual"}).json == {"mpg": 24.8, "class": "thrifty"}
        assert predict(server, {"wt": None}).json == {"mpg": None, "class": None}


def test_the_example_of_a_studio_script():
    flower = {"Sepal.Length": 5.1, "Sepal.Width": 3.5, "Petal.Length": 1.4, "Petal.Width": 0.2}
    with run_server(EXAMPLES / "r_studio" / "flowers.R", ["--warmup-s", "0"]) as server:
        assert predict(server, flower).json == {**flower, "Species": "setosa"}
        assert len(predict(server, [flower, {**flower, "Petal.Length": 6}]).json) == 2


def test_fault_122_without_debug_the_script_s_words_are_in_the_log_alone(tmp_path):
    with serving(tmp_path, DOING) as server:
        answer = predict(server, {"do": "stop"})
        assert (answer.status, answer.json["error"]) == (500, "the code raised an error")
        until(lambda: "model.R: Error in helper(df): it does not work" in server.output)
