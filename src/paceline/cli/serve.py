"""`paceline serve MODEL`: serve a model over HTTP."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paceline.cli.flags import config_flag, setting_flags
from paceline.cli.main import DEBUG, Failure
from paceline.config import tfs_flags
from paceline.config.machine import usable_cores
from paceline.config.resolve import resolve
from paceline.config.toml_file import find_toml
from paceline.core.errors import PacelineError
from paceline.supervisor import VARIABLE

if TYPE_CHECKING:
    from paceline.server.supervised import Supervised

_TFS = "paceline.tfs"  # a key of Context.meta
_TRITON = {
    "--model-repository": "MODEL: paceline serve PATH",
    "--model-store": "MODEL: paceline serve PATH",
    "--http-port": "--port",
    "--http-address": "--host",
    "--grpc-address": "--host",
    "--metrics-port": "--port, at /metrics",
    "--repository-poll-secs": "--repository-poll-s",
    "--log-verbose": "--access-log, or --debug",
}
"""Flags of Triton that somebody may type, and what they are here."""


class _Serve(click.Command):
    """Reads TensorFlow Serving's command lines too: what is theirs is taken out before ours is parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if tfs_flags.spoken(args):
            theirs = ctx.meta[_TFS] = tfs_flags.translate(args, usable_cores().whole)
            args = list(theirs.rest)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in _TRITON:
                text = f"{error.option_name} is Triton's; here it is {_TRITON[error.option_name]}."
                raise click.UsageError(text, ctx) from None
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("In place of MODEL, TensorFlow Serving's flags"):
            formatter.write_text(
                "--model_name=m --model_base_path=/models/m --rest_api_port=8501 --port=8500 --enable_batching "
                "--batching_parameters_file=batching.cfg, or --model_config_file=models.cfg. Its other flags are "
                "read as well; those without effect are named at start."
            )


@click.command("serve", cls=_Serve)
@click.argument("model", type=click.Path(path_type=Path), required=False, metavar="MODEL")
@config_flag
@click.option("--json", "as_json", is_flag=True, help="Once ready, write what the panel says as one JSON document.")
@setting_flags
@click.pass_context
def command(ctx: click.Context, /, model: Path | None, config_path: Path | None, as_json: bool, **flags: Any) -> None:
    """Serve MODEL over HTTP and gRPC, with settings found by measuring.

    MODEL is a model, the folder of one model with its versions (1/model.onnx), or a folder of such folders
    (NAME/1/model.onnx). A model is what `paceline optimize` has written, or a file or folder: ONNX (.onnx), OpenVINO
    (.xml), TensorFlow (a SavedModel, .keras), PyTorch (.pt2; TorchScript: .pt), XGBoost (.ubj, .json), LightGBM
    (.txt), CatBoost (.cbm), scikit-learn (.skops; with --allow-pickle .pkl, .joblib).

    Or it is code: service.py or service.py:Name with a function or a class that predicts, score.py with init and run,
    a Studio module, model.R, or several of these in pipeline.toml. Code, and classical models in their own formats,
    run in worker processes, one for each core.

    Every flag is also a key of [serve] in paceline.toml and a variable PACELINE_<NAME>;
    a flag wins over a variable, and a variable over the file.

    The panel and the log go to stderr. With --json, stdout gets one JSON document on one line when the model
    is ready: url, model, version, platform, inputs, outputs, settings (each a value and its reason), ready_s.
    """
    # Until the server takes over there is nothing to drain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ctx.meta[DEBUG] = flags["debug"]
    supervised = _supervisor()
    try:
        code = _serve(ctx, model, config_path, as_json, flags, supervised)
    except PacelineError as error:
        if supervised is None:
            raise
        # Every replica may fail alike: the supervisor says it once.
        supervised.problem(error.message, error.hint, fatal=True)
        code = Failure(error).exit_code
    ctx.exit(code)


def _serve(
    ctx: click.Context,
    model: Path | None,
    config_path: Path | None,
    as_json: bool,
    flags: dict[str, Any],
    supervised: "Supervised | None",
) -> int:
    theirs: tfs_flags.Command | None = ctx.meta.get(_TFS)
    path = _one_model(ctx, model, theirs)
    settings = resolve(flags, os.environ, find_toml(config_path), theirs.given if theirs else None)
    ctx.meta[DEBUG] = settings.debug
    if supervised is None:
        for note in theirs.notes if theirs else ():
            click.echo(f"paceline: {note}", err=True)
    # Imported once the settings are known to be right: a typo need not wait for the machinery to load.
    if settings.replicas is not None and supervised is None:
        from paceline.supervisor.supervisor import supervise

        return supervise([sys.executable, *sys.orig_argv[1:]], settings)
    from paceline.server.serve import serve

    return serve(path, settings, as_json=as_json, supervised=supervised)


def _supervisor() -> "Supervised | None":
    """The supervisor, if this process is one of its replicas."""
    if VARIABLE not in os.environ:
        return None
    from paceline.server.supervised import Supervised

    return Supervised.from_environment()


def _one_model(ctx: click.Context, model: Path | None, theirs: tfs_flags.Command | None) -> Path:
    if theirs is not None:
        if model is not None:
            raise click.UsageError(f"MODEL '{model}' and TensorFlow Serving's flags: give one of the two.", ctx)
        return theirs.model
    if model is None:
        raise click.MissingParameter(ctx=ctx, param=next(each for each in ctx.command.params if each.name == "model"))
    return model
