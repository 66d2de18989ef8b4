"""Which candidates are worth a try, and in which order?

Rules:
- First come single ideas, cheap ones before dear ones. Then those that passed the gate are combined: what changes the
  model with what runs it differently, and changes of different kinds with one another.
- A change that is not faster by itself may be so with another runtime.
- Combinations are bounded: the most promising first, by the product of the ratios of their parts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise, product
from typing import Final

from paceline.config.processor import Processor
from paceline.core.errors import ConfigError
from paceline.optimize.candidate import Candidate, Change
from paceline.optimize.result import Tried
from paceline.optimize.search.facts import Facts
from paceline.optimize.search.pareto import speed_at
from paceline.runtimes.options import RuntimeOptions

ORIGINAL: Final = "original"
_MOST_COMBINED: Final = 6
_DEFAULT: Final = RuntimeOptions()
# The order in which changes are made; two of one kind are not combined.
_KINDS: Final[dict[str, int]] = {
    "graph": 1,
    "prune": 2,
    "quantize": 3,
    "exclude": 3,
}
_CALIBRATED: Final = ("quantize:static", "exclude:", "prune:")
_COSTS: Final[dict[str, int]] = {
    "graph": 1,
    "quantize:dynamic": 1,
    "quantize": 2,
    "prune": 3,
    "exclude": 4,
}


def original(*, title: str) -> Candidate:
    """The model as it came."""
    return Candidate(name=ORIGINAL, title=f"as it came: {title}", native=True)


def converted(*, title: str) -> Candidate:
    """The model in ONNX, changed no further."""
    return Candidate(name="onnx", title="in ONNX, on ONNX Runtime", needs=f"{title} can be converted")


def opened() -> Candidate:
    """The ONNX model that came, with an open batch dimension, changed no further."""
    return Candidate(name="open-batch", title="batch dimension opened", needs="the file fixes it at 1")


def singles(facts: Facts, processor: Processor) -> list[Candidate]:
    """One idea each, in the order in which they are tried."""
    # Imported here: what they can do is theirs to know, and they know it without loading a framework.
    from paceline.optimize.transforms import graph, prune, quantize

    found = [each for module in (graph, quantize, prune) for each in module.candidates(facts, processor)]
    return sorted(found, key=cost)


def check_names(names: Sequence[str], processor: Processor) -> None:
    """Before a model is loaded: could any model have candidates of these names, or that fit these patterns?

    Raises:
        ConfigError: none could, on this machine.
    """
    plain = dict.fromkeys(("Conv", "Gemm", "LSTM", "MatMul"), 2)
    attends = {**plain, "MatMul": 6, "Softmax": 1}
    able = [Facts(operators=operators, weight_bytes=0, branches=2) for operators in (plain, attends)]
    known = [converted(title=""), opened(), *(each for facts in able for each in singles(facts, processor))]
    _require_known([part for name in names for part in name.split(".")], dict.fromkeys(each.name for each in known))


def cost(candidate: Candidate) -> int:
    """A rough measure of the time that it takes to make."""
    calls = [change.call for change in candidate.changes]
    return sum(_COSTS.get(call, _COSTS.get(call.partition(":")[0], 2)) for call in calls)


def calibrates(candidate: Candidate) -> bool:
    """True when one of its changes learns from what the calibration rows do in the model."""
    return any(change.call.startswith(_CALIBRATED) for change in candidate.changes)


def combined(tried: Sequence[Tried], batch: int) -> list[Candidate]:
    """What follows from those that were tried: pairs of them that nobody has tried yet."""
    passed = [each for each in tried if each.judgement is not None and each.judgement.accepted]
    known = {each.candidate.name for each in tried}
    pairs = []
    for first, second in product(passed, passed):
        joined = join(first.candidate, second.candidate)
        if joined is not None and joined.name not in known and _may_help(first, second, batch):
            known.add(joined.name)
            pairs.append((promise(first, batch) * promise(second, batch), joined))
    pairs.sort(key=lambda pair: -pair[0])
    return [joined for _, joined in pairs[:_MOST_COMBINED]]


def _may_help(first: Tried, second: Tried, batch: int) -> bool:
    """A change that slowed the model down is given one more chance: with another runtime. A pair is given none."""
    slow = [each for each in (first, second) if promise(each, batch) < 1.0]
    return not slow or (slow == [first] and not second.candidate.changes and first.candidate.after is None)


def promise(tried: Tried, batch: int) -> float:
    """How much faster it was; for what was not measured, 1."""
    speed = speed_at(tried, batch)
    return 1.0 if speed is None else speed.ratio


def join(first: Candidate, second: Candidate) -> Candidate | None:
    """The changes of both, run as either says; None where the two do not add up, or only the other way round."""
    changes = (*first.changes, *second.changes)
    in_order = all(_kind(one) < _kind(next_) for one, next_ in pairwise(changes))
    # A runtime comes last: its model is changed no further, so that each pair has one name.
    in_order = in_order and not (second.changes and first.options != _DEFAULT)
    ways = [each.options for each in (first, second) if each.options != _DEFAULT]
    adds = bool(second.changes) or second.options != _DEFAULT
    if not first.changes or not adds or not in_order or len(ways) > 1:
        return None
    return Candidate(
        name=f"{first.name}.{second.name}",
        title=f"{first.title}; {second.title}",
        changes=changes,
        options=ways[0] if ways else _DEFAULT,
        threads=first.threads or second.threads,
        needs=f"{first.name} and {second.name} passed the gate",
        after=first.name,
    )


def chosen(candidates: Sequence[Candidate], only: Sequence[str], skip: Sequence[str]) -> list[Candidate]:
    """Those that the user wants: by name, or by a pattern such as `int8*`; `a.b` joins two.

    Raises:
        ConfigError: a name in `only` fits none. One in `skip` that does not, has nothing to skip.
    """
    known = {each.name: each for each in candidates}
    _require_known([name for name in only if _joined(name, known) is None], known)
    kept = [each for each in candidates if wanted(each.name, only, skip)]
    joined = [_joined(name, known) for name in only if name not in known]
    return [*kept, *(each for each in joined if each is not None)]


def wanted(name: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    """True when neither flag leaves it out: it, or any part of it; it, or all parts, are among `only`."""
    parts = name.split(".")
    if any(_fits(each, skip) for each in (name, *parts)):
        return False
    return not only or _fits(name, only) or all(_fits(each, only) for each in parts)


def _require_known(names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name != "*" and not any(fnmatchcase(each, name) for each in known):
            raise ConfigError(f"no candidate is called {name!r}", hint=f"there are {', '.join(known) or 'none'}")


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _joined(name: str, known: dict[str, Candidate]) -> Candidate | None:
    first, dot, second = name.rpartition(".")
    if not dot or second not in known:
        return None
    head = known.get(first) or _joined(first, known)
    return None if head is None else join(head, known[second])


def _kind(change: Change) -> int:
    return _KINDS.get(change.call.partition(":")[0], 1)
