"""Kernel: one hand-written function, and what was declared about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

from .errors import RegistrationError
from .op import Attrs, Op, Specs, get_op

Config = dict[str, Any]
Launch = Callable[..., None]
Supports = Callable[[Specs, Attrs], str | None]
Configs = Callable[[Specs, Attrs, int], Sequence[Mapping[str, Any]]]
Model = Callable[[Specs, Attrs, Config, int], float | None]


@dataclass(frozen=True)
class ExtraError:
    """What a kernel declares whose errors may be larger than the standard budget (`accuracy.budget`).

    Attributes:
        factor: how many times the standard budget the norm of its errors may be.
        why: where the errors and the number come from, in one line.
        magnitude: like `Op.magnitude`, of the terms that this kernel adds up, which may be more than the op's
            definition has: what the errors of single elements are measured against. None for the op's own.
            Elements for which it is not finite are not judged: the kernel may spread infinities and NaN.
        explicit: whether the kernel runs only where that is asked for, by extra_error=True or by its name as
            the backend; else it runs in all dtypes but float64 unless extra_error=False.
    """

    factor: float
    why: str
    magnitude: Callable[..., tuple[Any, ...]] | None = field(default=None, repr=False)
    explicit: bool = False

    def refusal(self, setting: bool | None) -> str:
        """The reason why such a kernel does not run, under settings that allow no extra error."""
        if setting is False:
            rule = "extra_error=False is set"
        elif self.explicit:
            rule = "it runs only under extra_error=True, or where backend= names it"
        else:
            rule = "float64 allows that only with extra_error=True"
        return f"may err by more than the standard budget, and {rule} ({self.why})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Kernel:
    """A kernel as it was registered. `id` names it everywhere: `matmul/cpu_numba/packed`.

    `specs` in every method are those of the inputs followed by those of the outputs.
    """

    op: str
    device: str
    dtypes: tuple[str, ...]
    name: str
    language: str
    function: Callable[..., Any] = field(repr=False)
    supports: Supports | None = field(default=None, repr=False)
    configs: Configs | tuple[Config, ...] = field(default=(), repr=False)
    rank: int = 0
    model: Model | None = field(default=None, repr=False)
    binds: bool = False
    error: ExtraError | None = None
    source_file: str = ""
    line: int = 0
    stamp: tuple[int, int] | None = field(default=None, repr=False)
    """Time of change and length of the source file at registration; None when the source is no file."""
    digest: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.id

    @cached_property
    def id(self) -> str:
        """`<op>/<stem of the file>/<name>`."""
        return f"{self.op}/{Path(self.source_file).stem}/{self.name}"

    @property
    def where(self) -> str:
        """`path/of/file.py:12`."""
        return f"{self.source_file}:{self.line}"

    def source_digest(self) -> str:
        """The SHA-256 of the kernel's file as it was at registration: times are kept under it.

        On a GPU also of the other files that its code is in: `cuda.provenance`.
        """
        return self.digest if self.device == "cpu" else self._device_digest

    @cached_property
    def _device_digest(self) -> str:
        from .cuda import provenance

        try:
            return provenance.digest(Path(self.source_file), self.stamp)
        except (OSError, SyntaxError):  # typed at a prompt, or gone
            return self.digest

    def why_not(self, specs: Specs, attrs: Attrs) -> str | None:
        """The reason why this kernel cannot run the call, or None when it can."""
        for _, spec in get_op(self.op).typed(specs):
            if spec.dtype not in self.dtypes:
                return f"takes {' or '.join(self.dtypes)}, not {spec.dtype}"
        if self.supports is None:
            return None
        try:
            return self.supports(specs, attrs)
        except Exception as error:  # an extender's code: say whose, and go on without the kernel
            return f"its supports() raised {type(error).__name__}: {error}"

    def configurations(self, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        """What tuning may choose from, the default first; `[{}]` when there is nothing to choose.

        Raises:
            RegistrationError: when the kernel's `configs` returns something that is no list of dicts.
        """
        found = self.configs(specs, attrs, threads) if callable(self.configs) else self.configs
        return [checked_config(config, self.id) for config in found] or [{}]

    def predict(self, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
        """Seconds that the kernel's model predicts; None without a model, or when it does not say."""
        if self.model is None:
            return None
        seconds = self.model(specs, attrs, config, threads)
        return float(seconds) if seconds is not None and seconds >= 0 else None

    def bind(self, specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        """A `launch(*inputs, *outputs)` for arrays of exactly these specs; compiles at its first call.

        A call whose outputs have no elements never reaches the kernel: there is nothing to compute.
        """
        if not any(spec.size for spec in specs[len(get_op(self.op).inputs) :]):
            return nothing_to_do
        if self.binds:
            launch: Launch = self.function(specs, attrs, config, threads)
            return launch
        from .cpu.compile import compiled

        extra = self._trailing_values(len(specs), attrs, config, threads)
        if "parts" in extra:
            return self._entry(specs, extra, threads)
        function: Launch = compiled(self.function)
        if getattr(function, "targetoptions", {}).get("parallel"):
            return _with_trailing(_on_threads(function, threads), extra)
        return _recordable(_with_trailing(function, extra), lambda: self._entry(specs, extra, threads))

    def _entry(self, specs: Specs, extra: Mapping[str, Any], threads: int) -> Launch:
        from .cpu.entry import bind_entry, is_value

        odd = [name for name, value in extra.items() if not is_value(value)]
        if odd:
            raise RegistrationError(
                f"{self.id} ({self.where}): the parameter {odd[0]} is {extra[odd[0]]!r}; a kernel that is "
                "cut into parts, or runs in a plan, takes numbers, bools and tuples of whole numbers after "
                "its arrays. Write it with binds=True to see other attributes."
            )
        return bind_entry(self.function, specs, extra, threads)

    def _trailing_values(self, arrays: int, attrs: Attrs, config: Config, threads: int) -> dict[str, Any]:
        """The parameters that follow the arrays, looked up by their names."""
        known = {"threads": threads, **attrs, **config, "part": 0, "parts": 1}
        code = python_function(self.function).__code__
        names = code.co_varnames[arrays : code.co_argcount]
        unknown = [name for name in names if name not in known]
        if code.co_argcount < arrays or unknown:
            raise RegistrationError(
                f"{self.id} ({self.where}) takes ({', '.join(code.co_varnames[: code.co_argcount])}), but a "
                f"call has {arrays} arrays (inputs, then outputs)"
                + (f", and no configuration or attribute is called {', '.join(unknown)}" if unknown else "")
                + f". Parameters after the arrays must be among: {', '.join(known)}."
            )
        return {name: known[name] for name in names}

    def replaces(self, old: Kernel) -> bool:
        """Whether this is `old` itself again: a module was reloaded, or a notebook's cell was run again."""
        if (self.op, self.device, self.name) != (old.op, old.device, old.name):
            return False
        if self.stamp is None and old.stamp is None:
            return True
        return self.source_file == old.source_file and (self.line == old.line or self.stamp != old.stamp)

    def clash(self, old: Kernel) -> str | None:
        """What both this kernel and `old` claim, with the way out; None when they go together."""
        if self.name == old.name:
            return (
                f"called {self.name!r} for {self.op} on {self.device}; give one another name: "
                f"@kernel(..., name=...)."
            )
        shared = [dtype for dtype in self.dtypes if dtype in old.dtypes]
        if shared and self.model is None and old.model is None and self.rank == old.rank:
            return (
                f"without a model and of rank {self.rank} for {self.op} of {shared[0]} on {self.device}, so "
                f"neither goes before the other; give one another rank: @kernel(..., rank={self.rank + 1})."
            )
        return None


def make_kernel(
    function: Callable[..., Any],
    *,
    op: Op,
    device: str,
    dtypes: tuple[str, ...],
    name: str | None,
    language: str,
    supports: Supports | None,
    configs: Configs | Sequence[Mapping[str, Any]] | None,
    rank: int,
    model: Model | None,
    binds: bool,
    error: ExtraError | None = None,
) -> Kernel:
    """Check a declaration and make the Kernel. See `registry.kernel` for the arguments.

    Raises:
        RegistrationError: for something that is no Python function, too few parameters, a rank or
            configurations that mean nothing.
    """
    plain = python_function(function)
    code = plain.__code__
    label = f"{op.name}/{name or plain.__name__}"
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise RegistrationError(f"{label}: rank must be a whole number, got {rank!r}.")
    if error is not None and not (isinstance(error, ExtraError) and error.factor >= 1 and error.why):
        raise RegistrationError(
            f"{label}: error is ExtraError(factor, why) with a factor of 1 or more and where it comes from, "
            f"got {error!r}; leave it out for a kernel within the standard budget."
        )
    if binds and code.co_argcount != 4:
        raise RegistrationError(
            f"{label}: with binds=True the function is fn(specs, attrs, config, threads), got "
            f"({', '.join(code.co_varnames[: code.co_argcount])})."
        )
    if not binds and device.partition(":")[0] == "cuda":
        raise RegistrationError(
            f"{label}: a kernel on {device!r} is declared with binds=True: fn(specs, attrs, config, threads) "
            "returns what launches it over torch tensors (kernels/cuda/launch.py)."
        )
    if not binds and code.co_argcount <= len(op.inputs):
        raise RegistrationError(
            f"{label}: {op.signature()} has {len(op.inputs)} inputs, and the outputs follow them; write "
            f"def {plain.__name__}({', '.join(op.inputs)}, out): ..."
        )
    chosen = (
        configs if callable(configs) else tuple(checked_config(config, label) for config in configs or ())
    )
    source = os.path.abspath(code.co_filename) if os.path.exists(code.co_filename) else code.co_filename
    return Kernel(
        op=op.name,
        device=device.partition(":")[0],
        dtypes=dtypes,
        name=name or plain.__name__,
        language=language,
        function=function,
        supports=supports,
        configs=chosen,
        rank=rank,
        model=model,
        binds=binds,
        error=error,
        source_file=source,
        line=code.co_firstlineno,
        stamp=_stamp(source),
        digest=_digest(source, code),
    )


def python_function(function: Callable[..., Any]) -> Any:
    """The Python function behind `function`, which may be a Numba dispatcher.

    Raises:
        RegistrationError: when there is none.
    """
    plain = getattr(function, "py_func", function)
    if not hasattr(plain, "__code__"):
        raise RegistrationError(
            f"@kernel decorates a Python function or a @numba.njit function, got {type(function).__name__} "
            f"{function!r}."
        )
    return plain


def checked_config(config: Mapping[str, Any], label: str) -> Config:
    """`config` as a dict, if it is one of str, int, float or bool values; RegistrationError otherwise."""
    if not isinstance(config, Mapping):
        raise RegistrationError(f"{label}: a configuration is a dict such as {{'mc': 96}}, got {config!r}.")
    for key, value in config.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float):
            raise RegistrationError(
                f"{label}: a configuration maps names to str, int, float or bool, got {key!r}: {value!r} "
                f"({type(value).__name__})."
            )
    return dict(config)


def nothing_to_do(*arrays: Any) -> None:
    """The launch of a call whose outputs have no elements."""


def _stamp(source: str) -> tuple[int, int] | None:
    try:
        status = os.stat(source)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _digest(source: str, code: CodeType) -> str:
    """SHA-256 of a source file, or of the byte code of what was typed at a prompt or in a notebook.

    It is taken at registration: later, it could be that of an edit which is not running yet.
    """
    from hashlib import sha256

    try:
        return sha256(Path(source).read_bytes()).hexdigest()
    except OSError:
        return sha256(code.co_code + repr((code.co_consts, code.co_names)).encode()).hexdigest()


def _with_trailing(function: Launch, extra: Mapping[str, Any]) -> Launch:
    values = tuple(extra.values())
    if not values:
        return function

    def launch(*arrays: Any) -> None:
        function(*arrays, *values)

    return launch


def _recordable(function: Launch, entry: Callable[[], Launch]) -> Launch:
    """A launch that runs `function`, and is written down as the entry that `entry()` makes."""
    from .cpu import steps

    def launch(*arrays: Any) -> None:
        if steps.active is not None and steps.recording() is not None:
            entry()(*arrays)
        else:
            function(*arrays)

    return launch


def _on_threads(function: Launch, threads: int) -> Launch:
    """Run a `parallel=True` function on as many of Numba's threads as the settings allow."""
    import numba

    def launch(*arrays: Any) -> None:
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            function(*arrays)
        finally:
            numba.set_num_threads(before)

    return launch
