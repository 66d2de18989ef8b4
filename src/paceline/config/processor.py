"""Which processor is this, and which instructions has it? As the kernel tells; nothing is run to find out."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_MODEL_KEYS = ("model name", "Model", "cpu model")
_FLAG_KEYS = ("flags", "Features")


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor; all cores of a machine are taken to be alike.

    Attributes:
        model: as it calls itself; the architecture where it does not say.
        flags: instruction sets in the kernel's words, such as `avx512_vnni`, `amx_int8`, `asimddp`.
    """

    model: str
    architecture: str
    flags: frozenset[str]

    @property
    def has_int8_dot(self) -> bool:
        """True when products of 8-bit integers are summed in 32 bits by one instruction (VNNI, AMX, Arm's dot)."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})

    @property
    def has_bf16(self) -> bool:
        """True when bfloat16 is multiplied by the processor itself."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})

    @property
    def has_fp16(self) -> bool:
        """True when half precision is multiplied by the processor itself."""
        return bool(self.flags & {"avx512_fp16", "amx_fp16", "asimdhp"})


def processor(root: Path = Path("/")) -> Processor:
    """Ask the kernel.

    Args:
        root: where /proc stands.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    model = next((facts[key] for key in _MODEL_KEYS if facts.get(key)), platform.machine())
    flags = next((facts[key].split() for key in _FLAG_KEYS if key in facts), [])
    return Processor(model, platform.machine(), frozenset(flags))
