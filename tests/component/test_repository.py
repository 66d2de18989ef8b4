"""A repository on the disk and the engine behind it: what is loaded, swapped and unloaded, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from paceline.config.settings import ServeSettings
from paceline.core.errors import ConfigError, InvalidRequest, ModelLoadError, ModelNotFound, ModelNotReady
from paceline.engine.engine import Engine, Phase
from paceline.engine.loading import Loader
from paceline.engine.repository import Repository
from paceline.engine.sources import Source
from support import models
from support.repositories import put, replace_file, times

PATIENCE_S = 20.0


class Watched:
    """A repository that looks every 20 ms, and what it has said."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.engine = Engine()
        self.said: list[str] = []
        every = {"repository_poll_s": 0.02, "warmup_s": 0.0, **settings}
        self.loader = Loader(self.engine, 1, lambda: False)
        self.repository = Repository(root, ServeSettings(**every), self.engine, self.loader, self.said.append)

    async def __aenter__(self) -> Watched:
        await self.repository.begin()
        await self.repository.start()
        self._watching = asyncio.ensure_future(self.repository.watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self.loader.close()
        self.engine.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def looked_twice(self) -> None:
        """Enough time for two looks at the disk and what follows from them."""
        await asyncio.sleep(0.2)

    async def ask(self, name: str, version: str | None = None) -> float:
        (answer,) = await self.engine.model(name, version).infer((np.ones((1, 1), np.float32),))
        return float(answer[0, 0])

    def phases(self) -> dict[tuple[str, str], Phase]:
        return {(entry.name, entry.version): entry.phase for entry in self.engine.entries()}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * PATIENCE_S):
            await scenario

    asyncio.run(bounded())


# -- poll -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_latest_versions_of_all_models_are_served(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "a", 2), put(tmp_path, "b", 5)
        async with Watched(tmp_path) as watched:
            assert watched.phases() == {("a", "2"): Phase.AVAILABLE, ("b", "5"): Phase.AVAILABLE}
            assert [await watched.ask("a"), await watched.ask("b")] == [2, 5]
            assert watched.engine.ready

    run(scenario())


@pytest.mark.slow
def test_a_new_version_takes_the_place_of_the_old(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            changes: list[float] = []
            watched.engine.on_change.add(lambda: changes.append(1))
            put(tmp_path, "a", 2)
            await watched.until(lambda: list(watched.phases()) == [("a", "2")])
            assert await watched.ask("a") == 2
            assert changes
            assert watched.said[0].startswith("'a' version 2 is loaded, after ")
            assert watched.said[1:] == ["'a' version 1 is unloaded"]
            with pytest.raises(ModelNotFound):
                watched.engine.entry("a", "1")

    run(scenario())


@pytest.mark.slow
def test_what_replaces_a_version_is_set_up_like_it(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            before = watched.engine.model("a").prepared
            put(tmp_path, "a", 2)
            await watched.until(lambda: list(watched.phases()) == [("a", "2")])
            after = watched.engine.model("a").prepared
            assert (len(after.instances), after.threads) == (len(before.instances), before.threads)
            assert after.max_batch_rows == before.max_batch_rows
            assert after.reasons["instances"].startswith("as the version before")
            # Another signature is another model: measured anew.
            put(tmp_path, "a", 3, build=lambda path: times(path, 3, width=2))
            await watched.until(lambda: list(watched.phases()) == [("a", "3")])
            assert "as the version before" not in watched.engine.model("a").prepared.reasons["instances"]

    run(scenario())


@pytest.mark.slow
def test_fault_085_a_version_that_fails_to_load_changes_nothing(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            bad = put(tmp_path, "a", 2, build=lambda path: path.write_bytes(b"no model"))
            await watched.until(lambda: watched.phases().get(("a", "2")) is Phase.FAILED)
            await watched.looked_twice()
            assert await watched.ask("a") == 1
            assert watched.engine.ready
            assert len(watched.said) == 1
            assert watched.said[0].startswith(f"'a' version 2 is not loaded: {bad}/model.onnx: cannot be loaded: ")
            assert watched.said[0].endswith("; version 1 serves on")
            assert watched.engine.loads == {("a", "ok"): 1, ("a", "failed"): 1}
            assert [(row.version, row.state) for row in watched.repository.index()] == [
                ("1", Phase.AVAILABLE),
                ("2", Phase.FAILED),
            ]
            # Once its files are others it is tried again.
            replace_file(bad / "model.onnx", times(tmp_path / ".good.onnx", 2).read_bytes())
            await watched.until(lambda: list(watched.phases()) == [("a", "2")])
            assert await watched.ask("a") == 2

    run(scenario())


@pytest.mark.slow
def test_fault_085_a_version_that_fails_its_warm_up_changes_nothing(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            put(tmp_path, "a", 2, build=models.never_warm)
            await watched.until(lambda: watched.phases().get(("a", "2")) is Phase.FAILED)
            assert "warm-up failed" in watched.engine.entry("a", "2").reason
            assert await watched.ask("a") == 1

    run(scenario())


@pytest.mark.slow
def test_fault_086_an_invalid_configuration_beside_a_model_changes_nothing(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            (tmp_path / "a" / "config.pbtxt").write_text("max_batch_size: many {\n")
            await watched.until(lambda: watched.said)
            assert await watched.ask("a") == 1
            assert watched.said[0].startswith("'a' version 1 is not loaded: ")
            assert watched.said[0].endswith("; version 1 serves on")
            assert watched.phases() == {("a", "1"): Phase.AVAILABLE}
            (tmp_path / "a" / "config.pbtxt").write_text("max_batch_size: 4\n")
            await watched.until(lambda: watched.engine.model("a").prepared.max_batch_rows == 4)

    run(scenario())


@pytest.mark.slow
def test_files_that_change_are_loaded_under_the_same_number_and_counted_on(tmp_path):
    async def scenario() -> None:
        folder = put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            assert await watched.ask("a") == 1
            before = watched.engine.model("a")
            replace_file(folder / "model.onnx", times(tmp_path / ".other.onnx", 7).read_bytes())
            await watched.until(lambda: watched.engine.model("a") is not before)
            assert await watched.ask("a") == 7
            assert watched.engine.model("a").telemetry.batches == 2
            assert watched.said[0].startswith("'a' version 1 is loaded again, after ")

    run(scenario())


@pytest.mark.slow
def test_files_that_still_grow_are_left_alone(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        data = times(tmp_path / ".two.onnx", 2).read_bytes()
        async with Watched(tmp_path, repository_poll_s=0.05) as watched:
            (tmp_path / "a/2").mkdir()
            with (tmp_path / "a/2/model.onnx").open("wb") as file:
                for octet in data:
                    file.write(bytes([octet]))
                    file.flush()
                    await asyncio.sleep(0.01)
            await watched.until(lambda: list(watched.phases()) == [("a", "2")])
            assert watched.engine.loads["a", "failed"] == 0

    run(scenario())


@pytest.mark.slow
def test_folders_that_go(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "a", 2), put(tmp_path, "b", 1)
        async with Watched(tmp_path, version_policy="all") as watched:
            shutil.rmtree(tmp_path / "a/2")
            await watched.until(lambda: ("a", "2") not in watched.phases())
            assert await watched.ask("a") == 1
            shutil.rmtree(tmp_path / "a")
            await watched.until(lambda: watched.engine.names() == ["b"])
            assert watched.repository.index()[0].name == "b"
            with pytest.raises(ModelNotFound):
                watched.engine.model("a")

    run(scenario())


@pytest.mark.slow
def test_a_folder_called_like_a_version_does_not_turn_the_models_into_one(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            (tmp_path / "2024").mkdir()
            await watched.until(lambda: watched.said)
            await watched.looked_twice()
            assert watched.said == [f"{tmp_path}/2024: no version: expected folders that are numbers, such as 1"]
            assert await watched.ask("a") == 1

    run(scenario())


@pytest.mark.slow
def test_a_link_that_leads_nowhere_unloads_nothing(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "a", 2)
        (tmp_path / "a/latest").symlink_to("2")
        async with Watched(tmp_path) as watched:
            shutil.rmtree(tmp_path / "a/2")
            await watched.until(lambda: list(watched.phases()) == [("a", "1")])
            await watched.looked_twice()
            assert await watched.ask("a") == 1

    run(scenario())


@pytest.mark.slow
def test_a_log_beside_the_versions_keeps_no_version_from_being_loaded(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            put(tmp_path, "a", 2)
            with (tmp_path / "a/train.log").open("w") as log:

                def loaded() -> bool:
                    log.write("one more epoch\n")
                    log.flush()
                    return list(watched.phases()) == [("a", "2")]

                await watched.until(loaded)
            assert watched.engine.loads == {("a", "ok"): 2}

    run(scenario())


@pytest.mark.slow
def test_a_model_that_fails_leaves_no_memory_behind(tmp_path):
    def held() -> int:
        return sum(issubclass(type(each), ort.InferenceSession) for each in gc.get_objects())

    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "bad", 1, build=models.never_warm)
        async with Watched(tmp_path, model_control_mode="explicit", load_model="a") as watched:
            gc.collect()  # what other tests have left
            before = held()
            gc.disable()  # the collector may come by much later than the next load
            try:
                for _ in range(3):
                    with pytest.raises(InvalidRequest, match="warm-up failed"):
                        await watched.repository.load("bad")
                    assert held() <= before
            finally:
                gc.enable()

    run(scenario())


@pytest.mark.slow
def test_a_model_that_is_unloaded_while_it_runs_is_not_idle_until_it_is_done(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1, build=lambda path: models.slow(path, loops=30_000))
        async with Watched(tmp_path, model_control_mode="explicit", load_model="a") as watched:
            asked = asyncio.ensure_future(watched.engine.model("a").infer((np.ones((1, 256), np.float32),)))
            await watched.until(lambda: not watched.engine.idle)
            await watched.repository.unload("a")
            assert not watched.engine.idle
            await asked
            await watched.until(lambda: not watched.engine.entries())
            assert watched.engine.idle

    run(scenario())


@pytest.mark.slow
def test_the_version_before_serves_again_when_the_latest_goes(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "a", 2)
        async with Watched(tmp_path) as watched:
            shutil.rmtree(tmp_path / "a/2")
            await watched.until(lambda: list(watched.phases()) == [("a", "1")])
            assert await watched.ask("a") == 1

    run(scenario())


@pytest.mark.slow
def test_a_repository_that_cannot_be_read_for_a_while_changes_nothing(tmp_path):
    async def scenario() -> None:
        put(tmp_path / "models", "a", 1)
        async with Watched(tmp_path / "models") as watched:
            (tmp_path / "models").rename(tmp_path / "away")
            await watched.until(lambda: watched.said)
            await watched.looked_twice()
            assert await watched.ask("a") == 1
            (tmp_path / "away").rename(tmp_path / "models")
            put(tmp_path / "models", "a", 2)
            await watched.until(lambda: list(watched.phases()) == [("a", "2")])
            assert watched.said[0].startswith("the repository cannot be read: ")
            assert len(watched.said) == 3

    run(scenario())


@pytest.mark.slow
def test_a_model_that_comes_later_and_is_bad_leaves_the_server_ready(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            put(tmp_path, "b", 1, build=lambda path: path.write_bytes(b"no model"))
            await watched.until(lambda: watched.phases().get(("b", "1")) is Phase.FAILED)
            assert watched.engine.ready
            with pytest.raises(ModelNotReady, match="cannot be loaded"):
                watched.engine.model("b")

    run(scenario())


# -- the start ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_bad_model_of_several_keeps_the_server_from_being_ready_until_it_is_mended(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        bad = put(tmp_path, "b", 1, build=lambda path: path.write_bytes(b"no model"))
        async with Watched(tmp_path) as watched:
            assert await watched.ask("a") == 1
            assert not watched.engine.ready
            replace_file(bad / "model.onnx", times(tmp_path / ".good.onnx", 3).read_bytes())
            await watched.until(lambda: watched.engine.ready)
            assert await watched.ask("b") == 3

    run(scenario())


@pytest.mark.parametrize("there", ["nothing", "files", "missing"])
def test_a_repository_without_models(tmp_path, there):
    root = tmp_path / "models"
    if there != "missing":
        root.mkdir()
    if there == "files":
        (root / "README.md").write_text("no model")

    async def scenario() -> None:
        with pytest.raises(ModelLoadError, match="no such file" if there == "missing" else "no model in this folder"):
            await Watched(root).repository.begin()

    run(scenario())


def test_when_nothing_can_be_loaded_the_start_fails(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1, build=lambda path: (path.parent / "saved_model.pbtxt").write_bytes(b"x"))
        watched = Watched(tmp_path)
        await watched.repository.begin()
        with pytest.raises(ModelLoadError, match="a TensorFlow SavedModel as text, which is not read"):
            await watched.repository.start()

    run(scenario())


def test_several_models_cannot_have_one_name(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        with pytest.raises(ConfigError, match="is not the folder of one model"):
            await Watched(tmp_path, name="b").repository.begin()

    run(scenario())


# -- labels ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_labels_point_to_versions_that_are_available(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "a", 2)
        async with Watched(tmp_path, labels="stable=1,canary=2,next=3", version_policy="all") as watched:
            engine = watched.engine
            assert [engine.labelled("a", "stable"), engine.labelled("a", "canary")] == ["1", "2"]
            with pytest.raises(InvalidRequest, match="version 3, which is not currently available for inference"):
                engine.labelled("a", "next")
            for name, label in (("a", "none"), ("b", "stable")):
                with pytest.raises(InvalidRequest, match=f"^Unrecognized servable version label: {label}$"):
                    engine.labelled(name, label)

    run(scenario())


# -- by request -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["poll", "none"])
def test_requests_for_change_are_refused_unless_the_mode_is_explicit(tmp_path, mode):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path, model_control_mode=mode) as watched:
            repository = watched.repository
            for change in (repository.load("a"), repository.unload("a"), repository.reload([])):
                with pytest.raises(ModelNotReady, match="explicit model load / unload is not allowed"):
                    await change
            if mode == "none":
                put(tmp_path, "a", 2)
                await watched.looked_twice()
                assert await watched.ask("a") == 1

    run(scenario())


@pytest.mark.slow
def test_load_and_unload(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "b", 1)
        async with Watched(tmp_path, model_control_mode="explicit") as watched:
            repository = watched.repository
            assert watched.engine.ready
            assert repository.index() == [("a", "", None, ""), ("b", "", None, "")]
            await repository.load("a")
            assert await watched.ask("a") == 1
            put(tmp_path, "a", 2)
            await watched.looked_twice()
            assert await watched.ask("a") == 1
            await repository.load("a")
            assert await watched.ask("a") == 2
            await repository.unload("a")
            await watched.until(lambda: not watched.engine.names())
            rows = {(row.name, row.version): row for row in repository.index()}
            assert rows["a", "2"][2:] == (None, "unloaded")
            await repository.unload("a")
            await repository.load("a")
            assert await watched.ask("a") == 2

    run(scenario())


@pytest.mark.slow
def test_a_load_that_cannot_be(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1, build=lambda path: path.write_bytes(b"no model"))
        async with Watched(tmp_path, model_control_mode="explicit") as watched:
            for name in ("none", "../a", "a/../a", ""):
                with pytest.raises(InvalidRequest, match="failed to poll from model repository"):
                    await watched.repository.load(name)
                with pytest.raises(ModelNotFound):
                    await watched.repository.unload(name)
            for _ in range(2):  # a request to load is tried, also when nothing has changed
                with pytest.raises(InvalidRequest, match=r"^failed to load 'a', .*cannot be loaded"):
                    await watched.repository.load("a")
            assert watched.engine.loads == {("a", "failed"): 2}

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "loaded"), [("*", ["a", "b"]), ("b", ["b"]), (None, [])])
def test_models_to_load_at_the_start(tmp_path, asked, loaded):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "b", 1)
        async with Watched(tmp_path, model_control_mode="explicit", load_model=asked) as watched:
            assert watched.engine.names() == loaded
            assert watched.engine.ready

    run(scenario())


@pytest.mark.slow
def test_a_reload_replaces_the_whole_set(tmp_path):
    async def scenario() -> None:
        for name in ("a", "b", "c"):
            put(tmp_path, name, 1), put(tmp_path, name, 2)
        async with Watched(tmp_path, model_control_mode="explicit", load_model="a,b") as watched:
            sources = [
                Source("b", str(tmp_path / "b"), "1", {"stable": "1"}),
                Source("other", str(tmp_path / "c"), "all"),
            ]
            await watched.repository.reload(sources)
            await watched.until(lambda: sorted(watched.engine.names()) == ["b", "other"])
            await watched.until(lambda: watched.engine.versions("b") == ["1"])
            assert watched.engine.versions("other") == ["1", "2"]
            assert watched.engine.labelled("b", "stable") == "1"
            assert await watched.ask("b") == 1

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["outside", "link", "missing", "name", "twice"])
def test_a_reload_that_is_wrong_changes_nothing(tmp_path, wrong):
    async def scenario() -> None:
        root = tmp_path / "models"
        put(root, "a", 1), put(tmp_path, "outside", 1)
        (root / "link").symlink_to(tmp_path / "outside")
        sources = {
            "outside": [Source("b", str(tmp_path / "outside"))],
            "link": [Source("b", str(root / "link"))],
            "missing": [Source("b", str(root / "none"))],
            "name": [Source("../b", str(root / "a"))],
            "twice": [Source("a", str(root / "a"))] * 2,
        }
        async with Watched(root, model_control_mode="explicit", load_model="a") as watched:
            with pytest.raises(InvalidRequest):
                await watched.repository.reload(sources[wrong])
            assert await watched.ask("a") == 1

    run(scenario())


# -- what is left behind --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_version_that_is_replaced_finishes_what_it_began(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            old = watched.engine.model("a")
            begun = [asyncio.ensure_future(watched.ask("a")) for _ in range(64)]
            await asyncio.sleep(0)
            put(tmp_path, "a", 2)
            await watched.until(lambda: old.closed)
            assert await asyncio.gather(*begun) == [1.0] * 64
            # Whoever has found the old model just before is answered too.
            (late,) = await old.infer((np.ones((1, 1), np.float32),))
            assert late[0, 0] == 1

    run(scenario())


@pytest.mark.slow
def test_an_unloaded_model_is_freed_without_the_collector(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path) as watched:
            gc.collect()
            gc.disable()
            model = watched.engine.model("a")
            gone = weakref.ref(model), weakref.ref(model.prepared.instances[0])
            assert await watched.ask("a") == 1
            del model
            put(tmp_path, "a", 2)
            await watched.until(lambda: all(ref() is None for ref in gone))

    try:
        run(scenario())
    finally:
        gc.enable()


# -- files beside a model -------------------------------------------------------------------------------------

SAMPLE = """
model_warmup [ { name: "one" batch_size: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1 ] random_data: true } } } ]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beside", "problem"),
    [
        ('input [ { name: "z" data_type: TYPE_FP32 dims: [ 1 ] } ]', "the model has no input 'z'; it has x"),
        (SAMPLE.replace('"x"', '"z"'), "model_warmup: "),
        (SAMPLE.replace("dims: [ 1 ]", "dims: [ 5 ]"), "model_warmup: unexpected shape for input 'x'"),
        ('default_model_filename: "../../b/1/model.onnx"', "default_model_filename"),
        ('default_model_filename: "none.onnx"', "no such model file"),
    ],
)
def test_fault_086_a_file_beside_a_model_that_does_not_fit_it_is_reported(tmp_path, beside, problem):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "b", 1)
        (tmp_path / "a/config.pbtxt").write_text(f"max_batch_size: 8\n{beside}\n")
        async with Watched(tmp_path) as watched:
            assert problem in watched.engine.entry("a").reason
            assert await watched.ask("b") == 1
            (tmp_path / "a/config.pbtxt").write_text(f"max_batch_size: 8\n{SAMPLE}\n")
            await watched.until(lambda: watched.engine.ready)
            assert watched.engine.model("a").prepared.max_batch_rows == 8

    run(scenario())


@pytest.mark.slow
def test_the_versions_that_a_configuration_asks_for(tmp_path):
    async def scenario() -> None:
        for version in (1, 2, 3):
            put(tmp_path, "a", version)
        (tmp_path / "a/config.pbtxt").write_text(
            "max_batch_size: 8\nversion_policy: { specific { versions: [1, 3] } }\n"
        )
        async with Watched(tmp_path) as watched:
            assert watched.engine.versions("a") == ["1", "3"]
            (tmp_path / "a/config.pbtxt").write_text("max_batch_size: 8\nversion_policy: { all {} }\n")
            await watched.until(lambda: watched.engine.available("a") == ["1", "2", "3"])

    run(scenario())


@pytest.mark.slow
def test_models_that_lie_in_folders_of_their_own(tmp_path):
    async def scenario() -> None:
        put(tmp_path / "here", "a", 1), put(tmp_path / "there", "b", 2)
        folders = {"one": tmp_path / "here/a", "two": tmp_path / "there/b", "late": tmp_path / "there/c"}
        async with Watched(tmp_path / "here/a", base_paths=folders) as watched:
            assert [await watched.ask("one"), await watched.ask("two")] == [1, 2]
            assert watched.said == [f"'late': no such folder: {tmp_path}/there/c"]
            put(tmp_path / "there", "c", 3)
            await watched.until(lambda: "late" in watched.engine.names() and watched.engine.available("late"))
            assert await watched.ask("late") == 3

    run(scenario())


@pytest.mark.parametrize("mode", ["poll", "none"])
def test_models_to_load_are_named_in_explicit_mode_alone(tmp_path, mode):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        with pytest.raises(ConfigError, match=f"needs model_control_mode explicit, which is {mode}"):
            await Watched(tmp_path, model_control_mode=mode, load_model="a").repository.begin()

    run(scenario())


@pytest.mark.slow
def test_the_index_forgets_what_has_gone_from_the_disk(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1), put(tmp_path, "b", 1)
        async with Watched(tmp_path, model_control_mode="explicit", load_model="*") as watched:
            await watched.repository.unload("a")
            await watched.until(lambda: watched.repository.index()[0].reason == "unloaded")
            shutil.rmtree(tmp_path / "a")
            await watched.until(lambda: [row.name for row in watched.repository.index()] == ["b"])

    run(scenario())


@pytest.mark.slow
def test_reloads_of_no_model_and_of_no_path(tmp_path):
    async def scenario() -> None:
        put(tmp_path, "a", 1)
        async with Watched(tmp_path, model_control_mode="explicit", load_model="*") as watched:
            with pytest.raises(InvalidRequest, match="base_path is not within the repository"):
                await watched.repository.reload([Source("a", f"{tmp_path}/a\0b")])
            assert await watched.ask("a") == 1
            await watched.repository.reload([])
            await watched.until(lambda: not watched.engine.names())
            await watched.looked_twice()
            assert watched.repository.index() == []

    run(scenario())
