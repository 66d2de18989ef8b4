"""Which versions should be served, and so, what must be loaded and what unloaded? Pure.

Rules:
- A version is tried once for each state of its files: what failed is tried again when they have changed.
- What is not wanted any more serves until everything that is wanted does; only what has gone from the disk goes
  whatever becomes of the rest.
- While files change they are left alone: a copy takes time, and half a model is a broken one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from paceline.engine.layout import Fingerprint, ModelFiles, VersionFiles


class Tried(NamedTuple):
    """What came of the last attempt to load a version; `available` also if an earlier one serves on."""

    fingerprint: Fingerprint
    available: bool


def wanted(versions: Iterable[str], policy: str) -> list[str]:
    """The versions to serve, lowest first.

    Args:
        versions: those on the disk.
        policy: `latest`, `latest:N`, `all`, or numbers separated by commas.
    """
    ordered = sorted(versions, key=int)
    if policy == "all":
        return ordered
    kind, _, count = policy.partition(":")
    if kind == "latest":
        return ordered[-int(count or 1) :]
    named = {str(int(number)) for number in policy.split(",")}
    return [version for version in ordered if version in named]


def labels(text: str | None) -> dict[str, str]:
    """Label -> version, of `stable=3,canary=4`."""
    pairs = (pair.partition("=") for pair in (text or "").split(",") if pair)
    return {label: str(int(version)) for label, _, version in pairs}


def to_load(disk: Mapping[str, VersionFiles], wanted: Iterable[str], tried: Mapping[str, Tried]) -> list[str]:
    """The wanted versions that were not tried as they are now."""
    return [v for v in wanted if v not in tried or tried[v].fingerprint != disk[v].fingerprint]


def to_unload(disk: Collection[str], wanted: Collection[str], tried: Mapping[str, Tried]) -> list[str]:
    """The versions whose time is over, after what there was to load has been loaded."""
    replaced = bool(wanted) and all(v in tried and tried[v].available for v in wanted)
    return [v for v in tried if v not in disk or (v not in wanted and (replaced or not tried[v].available))]


def settled(before: ModelFiles | None, now: ModelFiles, versions: Iterable[str]) -> bool:
    """True when the files of these versions were the same in two looks."""
    then = before.versions if before is not None else {}
    return all(v in then and then[v].fingerprint == now.versions[v].fingerprint for v in versions)
