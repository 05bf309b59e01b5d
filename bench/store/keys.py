"""Which machine a result is from: a readable line, and a digest of it that tells two machines apart.

Times are compared only between results of one key. It covers what moves a time without any change of ours:
the CPU's model, how many cores the process may use, the vectors in force, the GPU with its driver, and the
versions of the compilers and of the vendors' libraries. The machine's name is not in it: two alike machines
share a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

# Their versions decide how fast our kernels are compiled, and how fast the vendor is.
LIBRARIES = ("numpy", "numba", "llvmlite", "torch", "onnxruntime", "triton", "cupy")


@dataclass(frozen=True)
class MachineKey:
    """A machine with its libraries.

    Attributes:
        digest: twelve hex digits of the text.
        text: what it stands for.
    """

    digest: str
    text: str

    @classmethod
    def of(cls, machine: Mapping[str, Any], versions: Mapping[str, Any]) -> MachineKey:
        """The key of a document's `machine` and `versions`; what they leave out is left out of the key."""
        parts = [str(machine.get("cpu") or "unknown CPU")]
        if machine.get("cores"):
            parts.append(f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}")
        if machine.get("simd"):
            width = f" in {machine['vector_bytes']} bytes" if machine.get("vector_bytes") else ""
            parts.append(f"{machine['simd']}{width}")
        parts += [f"{name} {_plain(machine[name])}" for name in ("gpu", "driver") if machine.get(name)]
        python = ".".join(str(versions.get("python") or "").split(".")[:2])
        parts += [f"python {python}"] if python else []
        parts += [
            f"{name} {version}"
            for name, version in sorted(versions.items())
            if version is not None and name.partition("-")[0] in LIBRARIES
        ]
        text = ", ".join(parts)
        return cls(digest_of(text), text)

    @classmethod
    def here(cls) -> MachineKey:
        """The key of the machine that this runs on."""
        from ..machine import facts, versions

        return cls.of(facts(), versions())


def digest_of(value: Any) -> str:
    """Twelve hex digits of a JSON value."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
