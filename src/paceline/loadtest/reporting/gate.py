"""Is this result good enough, beside an older one or by itself?

Rules:
- A rule names what would be a failure: `p99+10%`, `rate-5%`, `max+20ms` beside a baseline; `p99>50ms`, `errors>1%`,
  `rate<1000/s` without one.
- Steps are compared by their labels. What cannot be compared fails, and says why: a gate that opens where it cannot see
  is none.
- A percentile of fewer requests than have one beyond it is no number to compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from paceline.core.errors import ConfigError
from paceline.loadtest.quantities import parse_latency, parse_rate
from paceline.loadtest.result import PERCENTILES, Gate, Result, StepResult
from paceline.reports.units import MILLISECONDS, PER_SECOND, PERCENT, Unit

_PERCENTILES: Final = {f"p{percent:g}": percent for percent in PERCENTILES.values()}
_TIMES: Final = (*_PERCENTILES, "max", "mean")
_RATES: Final = ("rate", "goodput", "capacity")
METRICS: Final = (*_TIMES, *_RATES, "errors")
_RULE: Final = re.compile(r"([a-z0-9.]+?)\s*([-+<>])\s*(.+)")
_LEAST_REQUESTS: Final = 10

How = Literal["share", "difference", "absolute"]


class Rule(NamedTuple):
    """What would be a failure.

    Attributes:
        text: as it was written.
        metric: of `METRICS`.
        how: against the baseline as a share of it or as a difference, or by itself.
        bound: the share, or milliseconds, answers per second, or a share of the requests.
        rises: it fails above the bound; otherwise below.
    """

    text: str
    metric: str
    how: How
    bound: float
    rises: bool


def parse(text: str) -> Rule:
    """A rule such as `p99+10%` or `errors>1%`.

    Raises:
        ConfigError: it is none, or calls an improvement a failure.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"expected a rule such as p99+10%, rate-5% or errors>1%, got {text!r}")
    metric, sign, amount = match[1], match[2], match[3].strip()
    if metric not in METRICS:
        close = get_close_matches(metric, METRICS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else None
        raise ConfigError(f"{text!r}: expected one of {', '.join(METRICS)}, got {metric!r}", hint=hint)
    rises = sign in "+>"
    if rises == (metric in _RATES):
        other = {"+": "-", "-": "+", "<": ">", ">": "<"}[sign]
        raise ConfigError(
            f"{text!r}: a rule says what would be a failure, and this would be an improvement",
            hint=f"did you mean {metric}{other}{amount}?",
        )
    how: How = "absolute" if sign in "<>" else "difference"
    if sign in "+-" and amount.endswith("%") and metric != "errors":
        how = "share"
    return Rule(text.strip(), metric, how, _bound(text, metric, how, amount), rises)


def check(rules: Sequence[Rule], baseline: Result | None, *, slo: bool, searches: bool) -> None:
    """Find out before the test what could not be compared after it.

    Args:
        slo: the test has one, so that there is a goodput.
        searches: the test looks for a capacity.

    Raises:
        ConfigError: a rule needs a baseline, an SLO or a search, and there is none.
    """
    _check_baseline(rules, baseline)
    for rule in rules:
        if rule.metric == "goodput" and not slo:
            raise ConfigError(f"{rule.text!r}: there is no goodput without an SLO", hint="give one: --slo p99=50ms")
        if rule.metric == "capacity" and not searches:
            raise ConfigError(f"{rule.text!r}: nothing looks for the capacity", hint="add --find-capacity")


def _check_baseline(rules: Sequence[Rule], baseline: Result | None) -> None:
    for rule in rules:
        if rule.how != "absolute" and baseline is None:
            raise ConfigError(f"{rule.text!r} compares with a baseline", hint="give one: --baseline old.json")


def compare(result: Result, baseline: Result | None, rules: Sequence[Rule]) -> list[Gate]:
    """Apply each rule to each step; one on the capacity applies once.

    Raises:
        ConfigError: a rule needs a baseline, and there is none.
    """
    _check_baseline(rules, baseline)
    gates: list[Gate] = []
    for rule in rules:
        older = baseline if rule.how != "absolute" else None
        gates += _of_capacity(rule, result, older) if rule.metric == "capacity" else _of_steps(rule, result, older)
    return gates


def differences(result: Result, baseline: Result) -> list[str]:
    """What else is not the same in the two, so that a reader does not take it for the server's doing."""
    now, before = _circumstances(result), _circumstances(baseline)
    said = [
        f"{name}: {_text(before.get(name))} in the baseline, {_text(now.get(name))} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    old, new = _labels(baseline), _labels(result)
    for labels, where in (
        ([label for label in old if label not in new], "baseline"),
        ([label for label in new if label not in old], "new result"),
    ):
        if labels:
            said.append(f"only the {where} has {', '.join(labels)}: not compared")
    return said


def _circumstances(result: Result) -> dict[str, object]:
    """What the numbers depend on beside the server's speed. A server's port says nothing."""
    url = urlsplit(result.url)
    return {
        "kind": result.kind,
        "host": url.hostname,
        "path": url.path,
        "protocol": result.protocol,
        "model": result.model,
        "server": result.server,
        "rows": result.rows,
        "engine": result.engine,
        "SLO": result.slo and f"p{result.slo.percentile:g} <= {result.slo.latency_ms:g} ms",
        **{f"machine, {name}": value for name, value in result.machine.items()},
    }


def _text(value: object) -> str:
    return "none" if value in (None, "") else str(value)


def _bound(text: str, metric: str, how: How, amount: str) -> float:
    if how == "share" or metric == "errors":
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", amount)
        if match is None:
            raise ConfigError(f"{text!r}: expected a share such as 1%, got {amount!r}")
        return float(match[1]) / 100.0
    try:
        return parse_rate(amount) if metric in _RATES else parse_latency(amount)
    except ConfigError as error:
        raise ConfigError(f"{text!r}: {error}") from None


def _of_steps(rule: Rule, result: Result, baseline: Result | None) -> Iterator[Gate]:
    now = _labels(result)
    before = _labels(baseline) if baseline is not None else {}
    labels = [label for label in now if baseline is None or label in before]
    if not labels:
        why = "no step has the same load as one of the baseline" if baseline else "there is no step"
        yield Gate(rule=rule.text, label="", before=None, now=None, ok=False, why=why)
    for label in labels:
        yield _gate(rule, label, now[label], before.get(label))


def _gate(rule: Rule, label: str, now: StepResult, before: StepResult | None) -> Gate:
    missing = _missing(rule, "", now) or (before and _missing(rule, "the baseline: ", before))
    new, old = _value(rule.metric, now), _value(rule.metric, before) if before else None
    if missing or new is None:
        return Gate(rule=rule.text, label=label, before=old, now=new, ok=False, why=f"not compared: {missing}")
    counts = f"; {now.requests} requests" + (f", {before.requests} in the baseline" if before else "")
    return _judged(rule, label, new, old, counts)


def _of_capacity(rule: Rule, result: Result, baseline: Result | None) -> Iterator[Gate]:
    now = result.capacity.rate if result.capacity else None
    before = baseline.capacity.rate if baseline and baseline.capacity else None
    if now is None or (baseline is not None and before is None):
        which = "this result" if now is None else "the baseline"
        why = f"not compared: {which} has no capacity (--find-capacity)"
        yield Gate(rule=rule.text, label="capacity", before=before, now=now, ok=False, why=why)
        return
    yield _judged(rule, "capacity", now, before, "")


def _judged(rule: Rule, label: str, now: float, before: float | None, counts: str) -> Gate:
    bound = rule.bound
    if before is not None:
        change = before * bound if rule.how == "share" else bound
        bound = before + (change if rule.rises else -change)
    ok = now <= bound if rule.rises else now >= bound
    unit = _unit(rule.metric)
    was = ""
    if before is not None:
        was = f", was {unit.text(before)}" + (
            f" ({now / before - 1.0:+.1%})" if before and rule.metric != "errors" else ""
        )
    why = f"{unit.text(now)}{was}; at {'most' if rule.rises else 'least'} {unit.text(bound)}{counts}"
    return Gate(rule=rule.text, label=label, before=before, now=now, ok=ok, why=why)


def _missing(rule: Rule, whose: str, step: StepResult) -> str:
    """Why a step has no number for this rule; "" if it has one."""
    if rule.metric in _PERCENTILES:
        least = max(_LEAST_REQUESTS, round(100.0 / (100.0 - _PERCENTILES[rule.metric])))
        if step.latency.count < least:
            return f"{whose}{step.latency.count} answers, and {rule.metric} needs {least}"
    if rule.metric == "goodput" and step.goodput is None:
        return f"{whose}goodput needs an SLO (--slo p99=50ms)"
    if _value(rule.metric, step) is None:
        return f"{whose}no request was answered"
    return ""


def _value(metric: str, step: StepResult) -> float | None:
    """Milliseconds, answers per second, or for errors a share of the requests."""
    if metric == "errors":
        return step.failed / step.requests if step.requests else None
    if metric in _RATES:
        return step.rate if metric == "rate" else step.goodput
    found: float | None = getattr(step.latency, f"{metric.replace('.', '')}_ms")
    return found


def _unit(metric: str) -> Unit:
    if metric == "errors":
        return PERCENT
    return PER_SECOND if metric in _RATES else MILLISECONDS


def _labels(result: Result) -> dict[str, StepResult]:
    """By label; of a load that was held more than once, the last."""
    return {step.label: step for step in result.steps}
