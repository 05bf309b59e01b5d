"""Which shared libraries this process has, and which of them a kernel has no business in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .fences import EXECUTE, READ, Range

# Libraries of mathematics and of networks: what kernels are measured against, or what would do their work.
VENDORS = re.compile(
    r"blas|lapack|atlas|[-_/]mkl|libmkl|dnnl|onednn|libtorch(_cpu|_cuda|\.)|onnxruntime|libblis|xnnpack|tensorflow|jaxlib|xla_|"
    r"armpl|xsmm|cutlass|libtvm|cublas|cudnn|cusparse|cusolver|hipblas|rocblas|miopen|mxnet|paddle|openvino|"
    r"libggml|libarm_compute|nnpack|fbgemm|libiree|libfftw",
    re.IGNORECASE,
)
# What any kernel may run in: Python and its own modules, C's library, NumPy's arrays (those of bfloat16 are
# of ml_dtypes), and Numba with what it makes threads with.
_OURS = re.compile(
    r"/(python3[^/]*|ld-linux[^/]*|libpython[^/]*|libc|libm|libmvec|libdl|librt|libpthread|libgcc_s|libstdc\+\+|"
    r"libffi|libz|libgomp|libiomp5|libomp|libtbb)([-.][^/]*)?$|/(numpy|numba|llvmlite|ml_dtypes)/|/lib-dynload/",
)


@dataclass(frozen=True)
class Library:
    """A mapped file with code in it.

    Attributes:
        path: of the file.
        ranges: its pages of code.
    """

    path: str
    ranges: tuple[Range, ...]

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def is_vendor(self) -> bool:
        return VENDORS.search(f"/{self.path.rpartition('/')[2]}") is not None

    @property
    def is_ours(self) -> bool:
        """Whether any kernel may run in it."""
        return not self.is_vendor and _OURS.search(self.path) is not None


def mapped(maps: Iterable[str] | None = None) -> dict[str, Library]:
    """The files that this process has mapped to run, by path; empty where the system does not tell.

    Args:
        maps: the lines of /proc/self/maps, for tests.
    """
    if maps is None:
        try:
            maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
    found: dict[str, list[Range]] = {}
    for line in maps:
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[1][2] != "x" or not fields[5].startswith("/"):
            continue
        start, _, end = fields[0].partition("-")
        each = Range(fields[5], int(start, 16), int(end, 16), READ | EXECUTE)
        found.setdefault(fields[5], []).append(each)
    return {path: Library(path, tuple(ranges)) for path, ranges in found.items()}


def suspects(known: Iterable[str]) -> list[Library]:
    """Those mapped now that a call must not enter: vendors', and what came since `known` was listed."""
    before = set(known)
    return [
        library
        for library in mapped().values()
        if library.is_vendor or (library.path not in before and not library.is_ours)
    ]
