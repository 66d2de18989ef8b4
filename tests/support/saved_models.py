"""SavedModels that do more than compute, one for each way; made in a process of its own, for it takes TensorFlow.

python tests/support/saved_models.py FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFUSED = {
    "records": "TFRecordDataset reads files",
    "offsets": "TFRecordDatasetV2 reads files",
    "lines": "TextLineDataset reads files",
    "lists": "MatchingFilesDataset lists files",
    "sql": "SqlDataset may write files",
    "lmdb": "LMDBDataset reads files",
    "summary": "CreateSummaryFileWriter may write files",
    "database": "CreateSummaryDbWriter may write files",
    "remaps": "LoadAndRemapMatrix reads files",
    "words": "GenerateVocabRemapping reads files",
    "debugs": "DebugIdentityV3 may write files",
    "prints": "PrintV2 may write files",
    "serves": "DataServiceDatasetV2 uses the network",
    "graph": "DatasetFromGraph runs what it is given",
    "aborts": "Abort changes the process",
    "saves": "SaveV2 writes files",
    "restores": "RestoreV2 reads files",
    "merges": "MergeV2Checkpoints writes files",
    "inner": "SaveV2 writes files",
    "while": "SaveV2 writes files",
    "if": "SaveV2 writes files",
    "case": "SaveV2 writes files",
    "mapped": "SaveV2 writes files",
    "initializer": "SaveV2 writes files",
    "method": "SaveV2 writes files",
    "main_op": "MergeV2Checkpoints writes files",
    "restoring": "MergeV2Checkpoints writes files",
    "replacing": "MergeV2Checkpoints writes files",
    "gradient": "MergeV2Checkpoints writes files",
    "old_call": "MergeV2Checkpoints writes files",
    "second_graph": "ReadFile reads files",
    "xla_saves": "SaveV2 writes files",
}
"""By name: the operator that must not be where it is, and what it does."""

FINE = ("weights", "vocabulary", "xla")


def make(folder: Path) -> Path:
    """Make all of them; the folder holds NAME/saved_model.pb."""
    return made_by(__file__, folder)


def made_by(program: str, folder: Path) -> Path:
    """Run a program that makes models in a folder."""
    command = [sys.executable, "-W", "ignore", program, str(folder)]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _save_all(folder: Path) -> None:
    import tensorflow as tf

    raw, text = tf.raw_ops, tf.string
    tensors: dict[str, Any] = {"tensor_names": ["a"], "shape_and_slices": [""]}

    def save(x: Any) -> Any:
        raw.SaveV2(prefix=x, tensors=[tf.constant(1.0)], **tensors)
        return tf.strings.length(x)

    def size(dataset: Any) -> Any:
        return {"y": raw.DatasetCardinality(input_dataset=dataset)}

    inner = tf.function(save, input_signature=[tf.TensorSpec([], text)])
    types: dict[str, Any] = {"output_types": [text], "output_shapes": [[]]}
    numbers = tf.constant([1], tf.int64)
    functions: dict[str, Callable[[Any], Any]] = {
        "records": lambda x: {"y": tf.data.TFRecordDataset(x).reduce(b"", lambda a, b: a + b)},
        "offsets": lambda x: size(
            raw.TFRecordDatasetV2(filenames=x, compression_type="", buffer_size=0, byte_offsets=numbers)
        ),
        "lines": lambda x: {"y": tf.data.TextLineDataset(x).reduce(b"", lambda a, b: a + b)},
        "lists": lambda x: size(raw.MatchingFilesDataset(patterns=x)),
        "sql": lambda x: size(raw.SqlDataset(driver_name="sqlite", data_source_name=x, query="SELECT 1", **types)),
        "lmdb": lambda x: size(raw.LMDBDataset(filenames=x, output_types=[text, text], output_shapes=[[], []])),
        "graph": lambda x: size(raw.DatasetFromGraph(graph_def=x)),
        "serves": lambda x: size(
            raw.DataServiceDatasetV2(
                dataset_id=0, processing_mode="", address=x, protocol="grpc", job_name="", consumer_index=0,
                num_consumers=1, max_outstanding_requests=1, iteration_counter=raw.DummyIterationCounter(), **types,
            )
        ),
        "debugs": lambda x: {"y": raw.DebugIdentityV3(input=x, debug_urls=["file:///tmp/nowhere"])},
        "saves": lambda x: {"y": save(x)},
        "restores": lambda x: {"y": raw.RestoreV2(prefix=x, dtypes=[text], **tensors)[0]},
        "inner": lambda x: {"y": inner(x)},
        "while": lambda x: {"y": tf.while_loop(lambda n: n < 3, lambda n: [n + save(x)], [0])[0]},
        "if": lambda x: {"y": tf.cond(x == "", lambda: save(x), lambda: 0)},
        "case": lambda x: {"y": tf.switch_case(tf.strings.length(x), [lambda: save(x), lambda: 0])},
        "mapped": lambda x: {"y": tf.data.Dataset.from_tensors(x).map(save).reduce(0, lambda a, b: a + b)},
    }  # fmt: skip

    def after(operator: Callable[..., Any], *same: str, **given: Any) -> Callable[[Any], Any]:
        """A function that runs an operator first; `same`: which of its inputs are the function's."""

        def run(x: Any) -> Any:
            operator(**given, **dict.fromkeys(same, x))
            return {"y": x}

        return run

    def written(operator: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **given: operator(writer=raw.SummaryWriter(shared_name="", container=""), **given)

    def merge(**given: Any) -> None:
        raw.MergeV2Checkpoints(checkpoint_prefixes=["somewhere"], **given)

    vocabulary = {"new_vocab_offset": 0, "num_new_vocab": 1}
    matrix = {"old_tensor_name": "a", "row_remapping": numbers, "col_remapping": numbers, "num_rows": 1, "num_cols": 1}
    functions |= {
        "prints": after(tf.print, output_stream="file:///tmp/nowhere"),
        "aborts": after(raw.Abort),
        "merges": after(merge, "destination_prefix"),
        "database": after(written(raw.CreateSummaryDbWriter), "db_uri", "experiment_name", "run_name", "user_name"),
        "summary": after(
            written(raw.CreateSummaryFileWriter), "logdir", max_queue=1, flush_millis=1, filename_suffix=""
        ),
        "words": after(raw.GenerateVocabRemapping, "new_vocab_file", "old_vocab_file", **vocabulary),
        "remaps": after(raw.LoadAndRemapMatrix, "ckpt_path", initializing_values=[], **matrix),
    }

    def saved(name: str, function: Callable[[Any], Any], **more: Any) -> None:
        """A module of its own for each: all of a module's functions are written."""
        module = tf.Module()
        module.run = tf.function(function, input_signature=[tf.TensorSpec([], text, name="x")])
        for key, value in more.items():
            setattr(module, key, value)
        tf.saved_model.save(module, str(folder / name), signatures=module.run)

    for name, function in functions.items():
        saved(name, function)
    variable = tf.Variable(2.0)
    saved("weights", lambda x: {"y": variable * tf.strings.to_number(x)}, variable=variable)
    (folder / "words.txt").write_text("red\ngreen\n")
    whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    words = tf.lookup.TextFileInitializer(str(folder / "words.txt"), text, whole, tf.int64, line)
    table = tf.lookup.StaticHashTable(words, -1)
    saved("vocabulary", lambda x: {"y": table.lookup(x)}, table=table)
    saved("method", lambda x: {"y": x}, backup=inner)

    saved("xla", _xla_program("%y = stablehlo.add %x, %x : tensor<f32>"))
    called = tf.function(lambda x: x + tf.cast(save("nowhere"), tf.float32), input_signature=[tf.TensorSpec([])])
    config = "{called_index = 0, has_token_input_output = false}"
    call = f"stablehlo.custom_call @tf.call_tf_function(%x) {{api_version = 2 : i32, tf.backend_config = {config}}}"
    saved("xla_saves", _xla_program(f"%y = {call} : (tensor<f32>) -> tensor<f32>", called.get_concrete_function()))

    class Initialized(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self) -> Any:
            return raw.VarHandleOp(dtype=tf.float32, shape=[])

        def _initialize(self) -> None:
            save(tf.constant("nowhere"))

    held = Initialized()
    saved("initializer", lambda x: {"y": raw.VarIsInitializedOp(resource=held.resource_handle)}, held=held)
    _edit_all(folder)


def _xla_program(body: str, *functions: Any) -> Callable[[Any], Any]:
    """A function that calls a program of XLA's, as JAX's converter writes one; it takes and gives a number."""
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    for function in functions:
        function.add_to_graph()
    number = "tensor<f32>"
    module = f"module {{ func.func public @main(%x: {number}) -> {number} {{ {body} return %y : {number} }} }}"
    fixed: dict[str, Any] = {"version": 10, "Sout": [[]], "Tout": [tf.float32], "platforms": ["CPU"]}

    def run(x: Any) -> Any:
        given = [tf.strings.to_number(x)]
        called = gen_xla_ops.xla_call_module(
            args=given, module=module, dim_args_spec=[], function_list=functions, **fixed
        )
        return {"y": called[0]}

    return run


def _edit_all(folder: Path) -> None:
    """Files that TensorFlow would not write."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    def edited(name: str, change: Callable[[Any], object]) -> None:
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((folder / "weights/saved_model.pb").read_bytes())
        change(saved)
        tf.io.gfile.makedirs(str(folder / name))
        (folder / name / "saved_model.pb").write_bytes(saved.SerializeToString())

    def saver(graph: Any) -> Any:
        return next(each for each in graph.graph_def.library.function if "traced_save" in each.signature.name)

    def main_op(saved: Any) -> None:
        (graph,) = saved.meta_graphs
        del graph.signature_def["__saved_model_init_op"]
        graph.collection_def["legacy_init_op"].node_list.value[:] = [graph.saver_def.save_tensor_name]

    def restoring(saved: Any) -> None:
        (graph,) = saved.meta_graphs
        graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]

    def replacing(saved: Any) -> None:
        saver(saved.meta_graphs[0]).attr["api_implements"].s = b"another"

    def gradient(saved: Any) -> None:
        (graph,) = saved.meta_graphs
        called = next(each for each in graph.graph_def.library.function if "signature_wrapper" in each.signature.name)
        graph.graph_def.library.gradient.add(
            function_name=called.signature.name, gradient_func=saver(graph).signature.name
        )

    def old_call(saved: Any) -> None:
        (graph,) = saved.meta_graphs
        called = next(each for each in graph.graph_def.library.function if "signature_wrapper" in each.signature.name)
        called.node_def.add(name="again", op=saver(graph).signature.name)

    def second_graph(saved: Any) -> None:
        other = saved.meta_graphs.add()
        other.CopyFrom(saved.meta_graphs[0])
        other.graph_def.node.add(name="reads", op="ReadFile")
        saved.meta_graphs[0].meta_info_def.tags.append("train")

    for change in (main_op, restoring, replacing, gradient, old_call, second_graph):
        edited(change.__name__, change)


if __name__ == "__main__":
    _save_all(Path(sys.argv[1]))
