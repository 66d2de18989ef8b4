"""Which JSON library? Tensors in and out: typed decoding, and float32 written with the shortest digits.

Decoding ends in a float32 array, encoding starts from one, for that is what a server has to do. What is wrong
with the result stands beside its time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import msgspec
import numpy as np
import orjson

from benchmarks.bench import Group, Run, Table, interleaved

SHAPES = {"one row of 64": (64,), "128 rows of 64": (128, 64), "one image": (3, 224, 224)}
OUTPUTS = {"one row of 10": (10,), "128 rows of 10": (128, 10), "one image": (3, 224, 224)}

_NUMPY = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


def measure(run: Run) -> Group:
    """Decoding, encoding, and what each accepts."""
    group = Group("JSON codecs, in-process")
    random = np.random.default_rng(4)
    rounds = run.either(15, 5)
    rows: list[tuple[Any, ...]] = []
    for name, shape in SHAPES.items():
        text = json.dumps(np.round(random.uniform(-1, 1, shape), 4).tolist()).encode()
        rows += _decoding(group, name, text, len(shape), rounds)
    columns = ("decode to float32", "codec", "us", "times the fastest")
    group.tables.append(Table("decoding (medians)", columns, rows))
    rows = []
    for name, shape in OUTPUTS.items():
        rows += _encoding(group, name, random.standard_normal(shape, np.float32), rounds)
    columns = ("encode float32", "codec", "us", "times the fastest", "bytes", "same float32 back")
    group.tables.append(Table("encoding (medians)", columns, rows))
    group.tables.append(_acceptance())
    return group


def _decoding(group: Group, name: str, text: bytes, rank: int, rounds: int) -> list[tuple[Any, ...]]:
    kind: Any = float
    for _ in range(rank):
        kind = list[kind]
    codecs = {
        "msgspec, typed": msgspec.json.Decoder(kind).decode,
        "msgspec, untyped": msgspec.json.Decoder().decode,
        "orjson": orjson.loads,
        "json": json.loads,
    }
    cases = {
        codec: partial(_time_us, lambda decode=decode: np.array(decode(text), np.float32), len(text))
        for codec, decode in codecs.items()
    }
    times = interleaved(cases, rounds)
    group.samples[f"decode {name}"] = times
    best = min(median(each) for each in times.values())
    return [(name, codec, median(each), f"{median(each) / best:.2f}x") for codec, each in times.items()]


def _encoding(group: Group, name: str, array: np.ndarray, rounds: int) -> list[tuple[Any, ...]]:
    codecs: dict[str, Callable[[np.ndarray], bytes]] = {
        "orjson, the array itself": _NUMPY,
        "orjson, tolist()": lambda array: orjson.dumps(array.tolist()),
        "msgspec, tolist()": lambda array: msgspec.json.encode(array.tolist()),
        "json, tolist()": lambda array: json.dumps(array.tolist()).encode(),
    }
    cases = {codec: partial(_time_us, partial(encode, array), array.nbytes) for codec, encode in codecs.items()}
    times = interleaved(cases, rounds)
    group.samples[f"encode {name}"] = times
    best = min(median(each) for each in times.values())
    rows = []
    for codec, each in times.items():
        text = codecs[codec](array)
        same = np.array_equal(np.array(json.loads(text), np.float32), array)
        rows.append((name, codec, median(each), f"{median(each) / best:.2f}x", len(text), same))
    return rows


def _time_us(work: Callable[[], Any], size_bytes: int) -> float:
    """Mean of as many calls as make some milliseconds."""
    calls = max(3, 4_000_000 // size_bytes)
    work()
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls * 1e6


def _acceptance() -> Table:
    """What comes out for input that a typed endpoint must refuse, or take exactly."""
    typed = msgspec.json.Decoder(list[float]).decode
    decoders: dict[str, Callable[[bytes], Any]] = {
        "msgspec, typed": typed,
        "orjson": orjson.loads,
        "json": json.loads,
    }
    inputs = {
        "a bool among numbers": b"[1.0, true]",
        "a string among numbers": b'[1.0, "2"]',
        "null among numbers": b"[1.0, null]",
        "NaN": b"[NaN]",
        "1e999": b"[1e999]",
        "not a list": b'{"a": 1}',
        "nested 100 000 deep": b"[" * 100_000,
        "invalid UTF-8": b'["\xff"]',
    }
    rows = [(name, *(_shown(decode, text) for decode in decoders.values())) for name, text in inputs.items()]
    rows += [
        (f"encode {text}", "msgspec: " + _shown(msgspec.json.encode, [value]),
         "orjson: " + _shown(_NUMPY, np.array([value], np.float32)),
         "json: " + _shown(json.dumps, [value]))
        for text, value in (("NaN", float("nan")), ("float32 0.1", float(np.float32(0.1))))
    ]  # fmt: skip
    return Table("what comes out", ("input", *decoders), rows)


def _shown(call: Callable[[Any], Any], value: Any) -> str:
    try:
        result = call(value)
    except Exception as error:  # any refusal counts, whatever its class
        return f"refused ({type(error).__name__})"
    text = result.decode() if isinstance(result, bytes) else repr(result)
    return text if len(text) <= 40 else f"{text[:37]}..."
