"""`paceline optimize MODEL --data ROWS`: find the fastest form of a model that is still as good."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import click

from paceline.cli.bench_options import Quantity
from paceline.cli.documents import json_flag
from paceline.cli.main import debug_flag
from paceline.core.errors import ConfigError
from paceline.loadtest.quantities import parse_duration

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_MOST_ROWS: Final = 100_000
_RATIO: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*x?")
_LEAST_BUDGET_S: Final = 5.0
_BATCHES: Final = (1, 8, 32)


def _batches(text: str) -> tuple[int, ...]:
    found = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if not all(1 <= each <= _MOST_ROWS for each in found):
        raise ConfigError(f"expected numbers of rows such as 1,8,32, got {text!r}")
    return found


def _ratio(text: str) -> float:
    match = _RATIO.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) < 1e6:
        raise ConfigError(f"expected how many times as fast, such as 1.5x, got {text!r}")
    return float(match[1])


def _drop(text: str) -> Any:
    from paceline.optimize.judging.gate import parse_drop  # it needs numpy, which --help does not

    return parse_drop(text)


def _names(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(re.fullmatch(r"[\w.*?-]+", each) for each in found):
        raise ConfigError(f"expected names such as int8-dynamic,openvino or int8*, got {text!r}")
    return found


def _budget(text: str) -> float:
    return parse_duration(text, least_s=_LEAST_BUDGET_S)


@click.command("optimize")
@click.argument("model", metavar="MODEL")
@click.option("--data", type=_FILE, help="Real rows: .npz, .npy, .csv, .parquet, .json, .jsonl.")
@click.option("--labels", metavar="FILE|COLUMN", help="What is true of the rows: .npy, .csv; or a column of --data.")
@click.option("--metric", metavar="NAME", help="accuracy, f1, roc_auc, rmse, ...  [default: the one that fits]")
@click.option(
    "--max-drop",
    type=Quantity("DROP", _drop),
    help="How much worse it may be: 0.5% or 0.005.  [default: 1%; without labels 0.5%]",
)
@click.option(
    "--batch",
    type=click.IntRange(1, _MOST_ROWS),
    default=1,
    help="Rows at a time where speed decides, as your users send them.  [default: 1]",
)
@click.option(
    "--batches",
    type=Quantity("N,N,...", _batches),
    default=_BATCHES,
    help="Rows at a time that are measured as well.  [default: 1,8,32]",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of an instance.  [default: one and all cores are tried]")
@click.option("--budget", type=Quantity("TIME", _budget), default=600.0, help="For all of it.  [default: 10m]")
@click.option(
    "--candidates",
    "--only",
    "only",
    type=Quantity("NAME,...", _names),
    default=(),
    help="Only these; int8* is several.",
)
@click.option("--skip", type=Quantity("NAME,...", _names), default=(), help="Not these.")
@click.option("--require", type=Quantity("RATIO", _ratio), help="End with code 1 unless it got so fast: 1.5x.")
@click.option(
    "--price-per-hour",
    type=click.FloatRange(0, min_open=True),
    metavar="PRICE",
    help="Of a machine like this one: for the cost of a million predictions.",
)
@click.option("--calibration-rows", type=click.IntRange(2), help="To calibrate with.  [default: a fifth, 512 at most]")
@click.option("--seed", type=click.IntRange(0), default=0, help="Which rows these are.  [default: 0]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: MODEL-optimized]")
@click.option("--allow-pickle", is_flag=True, help="Load a pickle, which can run any code.")
@json_flag
@debug_flag
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    data: Path | None,
    out: Path | None,
    batches: tuple[int, ...],
    batch: int,
    budget: float,
    require: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the fastest form of MODEL that is still as good, and write it as a bundle for `paceline serve`.

    MODEL is a file or folder: ONNX, scikit-learn, XGBoost, LightGBM, CatBoost, Keras, a TensorFlow SavedModel,
    torch.export or TorchScript; or `module:factory` for a PyTorch module. It is converted to ONNX, and changed and
    run in other ways: other runtimes, 8 bits, fewer units. Each candidate answers the rows of --data. It is accepted
    when it is shown to be as good as the original, but for --max-drop, and at least 5 % faster on this machine.

    An interrupted study goes on where it was when the same command is given again. A bundle in --out is served until
    the new one is whole.

    Exit codes: 0, the bundle is written, also when nothing helped; 1, it is not as fast as --require; 2, the command
    line, or 3, the rows or labels are wrong; 4, MODEL cannot be loaded; 6, it is a pickle; 130 or 143, interrupted by
    Ctrl-C or SIGTERM.
    """
    if data is None:
        raise click.UsageError(_no_data(model), ctx)
    from paceline.cli.optimize_run import optimize
    from paceline.optimize.wanted import Wanted

    wanted = Wanted(
        model=model,
        data=data,
        out=out or Path(f"{_stem(model)}-optimized"),
        batch=batch,
        batches=tuple(dict.fromkeys(each for each in batches if each != batch)),
        budget_s=budget,
        command=("paceline", *sys.argv[1:]),
        **given,
    )
    ctx.exit(optimize(wanted, require, as_json=as_json))


def _stem(model: str) -> str:
    path = Path(model)
    if not path.exists() and ":" in model:
        return model.replace(":", "-").replace(".", "-")
    return path.resolve().name if path.is_dir() else path.stem


def _no_data(model: str) -> str:
    """What is missing, and how it is made."""
    lines = ["--data is missing: real rows of the model's inputs, on which candidates are judged and timed."]
    path = Path(model)
    beside = [path.with_name(f"{path.stem}{end}") for end in ("_example.json", "_examples.json", "_rows.npz")]
    beside += [path.with_name(name) for name in ("examples.json", "rows.npz", "rows.csv")]
    found = next((each for each in beside if each.is_file()), None)
    if found is not None:
        lines.append(f"There are some in {found}: --data {found}")
    lines.append("From numpy: np.savez('rows.npz', INPUT=array); `paceline inspect MODEL` shows the names of inputs.")
    return "\n".join(lines)
