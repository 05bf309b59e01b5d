"""Normalisation by statistics first and then each element, as launches. Needs triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.device import facts
from ...cuda.step import Step, Workspace
from ...kernel import Config
from ...op import Attrs, Specs
from ...reduce.cuda import plan
from ...reduce.cuda.axes import Nest, nest
from ...reduce.cuda.numbers import float64_bits
from .channel_kernels import applied, group_sums, pair_sums, slopes, statistics
from .row_plans import added_step, given, named, outputs_of, steps_left_out, triton_float
from .views import Steps, View

Arrays = Mapping[str, Steps]
_GROUPS = 4  # that a program of `group_sums` adds up
_CHANNELS = 128


class Call:
    """A call of one of the norms: its arrays by name, and the axes in which kernels look at them.

    Args:
        op: its name.
        specs, attrs: of the call.
        outputs: the names of its outputs.
    """

    def __init__(self, op: str, specs: Specs, attrs: Attrs, outputs: Sequence[str]) -> None:
        self.op, self.specs, self.attrs = op, specs, attrs
        self.found = named(op, specs, outputs)
        self.x = self.found["x"][1]
        self.view = View(op, self.x, dict(attrs))
        self.device = facts(self.x.device)
        self.dtype = "float64" if self.x.dtype == "float64" else "float32"
        self.count = self.view.form.count
        # Beside x of one element to a weight, weight and bias change along lines: layer and RMS norm.
        self.of_places = "axes" in attrs

    def there(self, name: str) -> bool:
        """Whether the array was given."""
        return name in self.found and self.found[name][1].present and bool(self.found[name][1].size)

    def full(self, name: str) -> Steps:
        """Steps of an array of x's shape."""
        return self.view.full(self.found[name][1])

    def parameter(self, name: str) -> Steps:
        """Steps of weight or bias."""
        return self.view.parameter(self.found[name][1])

    def statistic(self, name: str) -> Steps:
        """Steps of mean, rstd or a running statistic."""
        return self.view.statistic(self.found[name][1])

    def present(self, **letters: tuple[str, str]) -> dict[str, Steps]:
        """By letter the steps of those arrays that are there: letter=(name, "full" or ...)."""
        return {
            letter: getattr(self, how)(name) for letter, (name, how) in letters.items() if self.there(name)
        }

    def args(self, *names: str) -> dict[str, Any]:
        """The arguments for arrays by name."""
        return given(self.found, *names)

    def nest(self, line: Sequence[int], arrays: Arrays) -> Nest:
        """The axes, lines being along those named."""
        return nest(self.view.shape, line, list(arrays.values()), self.x.itemsize)

    def each_line(self) -> list[int]:
        """The axes of lines where elements are computed one by one: no coefficient changes along them.

        But for layer and RMS norm, whose weight does. Of a batch of images whose pixels lie side by side only
        the pixels, so that a line is one run of memory; the image is another of what tells lines apart.
        """
        axes = list(self.view.form.axes)
        if self.of_places:
            return axes
        free = [place for place in axes if place not in self.view.of_parameters]
        steps = self.full("x")
        inner = min(range(len(steps)), key=lambda place: self._distance(steps, place))
        if inner not in free:
            return free
        line = [inner]
        for place in sorted(free, key=lambda place: self._distance(steps, place)):
            before = line[-1]
            if place != inner and steps[place] == steps[before] * self.view.shape[before]:
                line.append(place)
        return line

    def _distance(self, steps: Steps, place: int) -> tuple[bool, int]:
        alone = steps[place] == 0 or self.view.shape[place] == 1
        return (alone, abs(steps[place]))


def _step(
    fn: Any, found: Nest, arrays: Arrays, cut: plan.Cut, args: Mapping[str, Any], dtype: str, programs: int
) -> Step:
    """A launch over the lines of a nest: `programs` for each block of lines."""
    every = {
        **steps_left_out(fn),
        **found.arguments(fn, list(arrays)),
        "share": cut.share,
        "TYPE": triton_float(dtype),
        "BK": cut.bk,
        "BR": cut.br,
        "ROWS": found.rows,
        "WIDE": found.wide,
        **args,
    }
    grid = (max(1, ceil_div(found.lines, cut.bk)) * programs,)
    return Step(fn, grid, every, warps=cut.warps, stages=1, registers=cut.registers, any_int=True)


def _scratch(found: Nest, cut: plan.Cut, dtype: str, numbers: int) -> dict[str, Any]:
    """What parts of lines are put together in."""
    names = ("wa", "wb", "wc")[:3]
    args: dict[str, Any] = dict.fromkeys((*names, "arrivals"))
    if cut.parts > 1:
        args |= {name: Workspace((cut.parts, found.lines), dtype) for name in names[:numbers]}
        args["arrivals"] = Workspace((ceil_div(found.lines, cut.bk),), "int32", zero=True)
    return {**args, "parts": cut.parts, "PARTS": cut.together, "STAGES": cut.stages}


def _cut(call: Call, found: Nest, numbers: int, config: Config) -> plan.Cut:
    kept = numbers * (8 if call.dtype == "float64" else 4)
    return plan.cut(found, kept, config, call.device)


def _elementwise(call: Call, found: Nest) -> plan.Cut:
    shape = (found.lines, found.length, found.rows, found.itemsize)
    return plan.elementwise(*shape, found.vector(0), call.device)


# --- Forward ------------------------------------------------------------------------------------------------


def statistics_nest(call: Call) -> tuple[Nest, Arrays]:
    """The lines that share a mean."""
    arrays = {"x": call.full("x"), **call.present(m=("mean", "statistic"), s=("rstd", "statistic"))}
    return call.nest(call.view.form.axes, arrays), arrays


def statistics_step(call: Call, config: Config) -> Step:
    """mean and rstd, and new running statistics where there are old ones."""
    found, arrays = statistics_nest(call)
    # The mean of squares is one number, moments are three.
    numbers = 1 if call.op == "rms_norm" else 3
    cut = _cut(call, found, numbers, config)
    args = call.args("x", "mean", "rstd", "running_mean", "running_var", "new_mean", "new_var")
    runs = {}
    for step, name in (
        ("old_mean", "running_mean"),
        ("old_var", "running_var"),
        ("new_mean", "new_mean"),
        ("new_var", "new_var"),
    ):
        spec = call.found[name][1] if call.there(name) else None
        runs[f"{step}_step"] = spec.strides[0] // spec.itemsize if spec is not None else 0
    more = {
        **args,
        **runs,
        **_scratch(found, cut, call.dtype, numbers),
        "eps": float64_bits(call.attrs["eps"]),
        "momentum": float64_bits(call.attrs.get("momentum", 0.0)),
        "CENTRED": call.op != "rms_norm",
    }
    return _step(statistics, found, arrays, cut, more, call.dtype, cut.parts)


def applied_nest(call: Call, mean: str, rstd: str) -> tuple[Nest, Arrays]:
    """The lines whose elements are computed one by one."""
    arrays = {
        "x": call.full("x"),
        "y": call.full("y"),
        **call.present(
            e=("residual", "full"), w=("weight", "parameter"), b=("bias", "parameter"),
            m=(mean, "statistic"), s=(rstd, "statistic"),
        ),
    }  # fmt: skip
    return call.nest(call.each_line(), arrays), arrays


def applied_step(call: Call, mean: str, rstd: str) -> Step:
    """y, from the arrays called so: the statistics of this batch, or running ones."""
    found, arrays = applied_nest(call, mean, rstd)
    cut = _elementwise(call, found)
    args = {
        **call.args("x", "weight", "bias", "residual", "y"),
        "mean": call.args(mean)[mean],
        "rstd": call.args(rstd)[rstd],
        "eps": float64_bits(call.attrs["eps"]),
        "OF_VAR": rstd == "running_var",
        "RELU": call.attrs.get("activation") == "relu",
        "ALONG": "places" if call.of_places else "lines",
    }
    return _step(applied, found, arrays, cut, args, call.dtype, cut.parts)


def forward_steps(op: str, specs: Specs, attrs: Attrs, config: Config) -> list[Step]:
    """The launches of a forward call."""
    call = forward_call(op, specs, attrs)
    if op == "batch_norm_inference":
        return [applied_step(call, "running_mean", "running_var")]
    steps = [statistics_step(call, config)]
    return [*steps, applied_step(call, "mean", "rstd")] if call.there("y") else steps


def forward_call(op: str, specs: Specs, attrs: Attrs) -> Call:
    """A forward call."""
    outputs = {
        "batch_norm": ("y", "mean", "rstd", "new_mean", "new_var"),
        "batch_norm_inference": ("y",),
    }.get(op) or outputs_of(op)
    return Call(op, specs, attrs, outputs)


# --- Backward -----------------------------------------------------------------------------------------------


def backward_call(op: str, specs: Specs, attrs: Attrs) -> Call:
    """A backward call."""
    outputs = ("dx", "dweight", "dbias", "dresidual") if op == "batch_norm_grad" else outputs_of(op)
    return Call(op, specs, attrs, outputs)


def _sums_step(
    call: Call, line: Sequence[int], along: str, order: Steps, args: Mapping[str, Any], config: Config
) -> Step:
    """A launch of `pair_sums` over lines along some axes; `order` are the steps of what it writes."""
    arrays = {
        "x": call.full("x"),
        "g": call.full("dy"),
        "f": order,
        **call.present(y=("y", "full"), m=("mean", "statistic"), s=("rstd", "statistic")),
    }
    if args.get("weight") is not None:
        arrays["w"] = call.parameter("weight")
    found = call.nest(line, arrays)
    # Two sums, and room for what is read: up to three arrays.
    cut = _cut(call, found, 3, config)
    more = {
        "weight": None,
        "dweight": None,
        "dbias": None,
        "first": None,
        "second": None,
        **call.args("dy", "x", "y", "mean", "rstd"),
        **{name: value for name, value in _scratch(found, cut, call.dtype, 2).items() if name != "wc"},
        "ALONG": along,
        **args,
    }
    return _step(pair_sums, found, arrays, cut, more, call.dtype, cut.parts)


def slopes_nest(call: Call, order: Steps) -> tuple[Nest, Arrays]:
    """The lines whose elements are computed one by one."""
    arrays = {
        "x": call.full("x"),
        "g": call.full("dy"),
        "d": call.full("dx"),
        "f": order,
        **call.present(
            y=("y", "full"), e=("dresidual", "full"), w=("weight", "parameter"), m=("mean", "statistic"),
            s=("rstd", "statistic"),
        ),
    }  # fmt: skip
    return call.nest(call.each_line(), arrays), arrays


def _slopes_step(call: Call, sums: Mapping[str, Any], order: Steps, weighed: bool) -> Step:
    """The launch that computes dx from the sums, in the order of `order`."""
    found, arrays = slopes_nest(call, order)
    cut = _elementwise(call, found)
    args = {
        **call.args("dy", "x", "y", "weight", "mean", "rstd", "dx", "dresidual"),
        **sums,
        "count": call.count,
        "WEIGHED": weighed,
        "ALONG": "places" if call.of_places else "lines",
    }
    return _step(slopes, found, arrays, cut, args, call.dtype, cut.parts)


def backward_steps(op: str, specs: Specs, attrs: Attrs, config: Config) -> list[Step]:
    """The launches of a backward call."""
    call = backward_call(op, specs, attrs)
    view = call.view
    if op == "group_norm_grad":
        return _group_steps(call, config)
    lines = view.form.statistics
    sums = {name: Workspace((max(1, _size(lines)),), call.dtype) for name in ("first", "second")}
    if op == "batch_norm_grad":
        more = {**sums, **call.args("dweight", "dbias")}
        first = _sums_step(call, view.form.axes, "lines", view.table(), more, config)
        return [first, _slopes_step(call, sums, view.table(), False)]
    more = {**sums, **call.args("weight")}
    steps = [
        _sums_step(call, view.form.axes, "lines", view.table(), more, config),
        _slopes_step(call, sums, view.table(), True),
    ]
    if call.there("dweight"):
        more = call.args("dweight", "dbias")
        steps.append(_sums_step(call, view.kept, "places", view.places(), more, config))
    return steps


def _group_steps(call: Call, config: Config) -> list[Step]:
    """Group norm: sums of channels, of these those of groups and of weights, then dx."""
    n, groups, channels = call.view.shape[:3]
    of_channels = {name: Workspace((n * groups * channels,), call.dtype) for name in ("first", "second")}
    of_groups = {name: Workspace((n * groups,), call.dtype) for name in ("first", "second")}
    order = nest_order(call)
    pixels = list(range(3, len(call.view.shape)))
    weight = call.found["weight"][1]
    own = {
        **of_channels,
        **call.args("weight"),
        "of_group": of_groups["first"],
        "of_group_hat": of_groups["second"],
        "groups_of_image": groups,
        "channels": channels,
        "weight_step": weight.strides[0] // weight.itemsize if call.there("weight") else 0,
        "groups": n * groups,
        "BG": _GROUPS,
        "BC": min(_CHANNELS, plan.power_of_two(channels)),
        "TYPE": triton_float(call.dtype),
    }
    steps = [_sums_step(call, pixels, "lines", order, of_channels, config)]
    if n and channels:
        steps.append(Step(group_sums, (ceil_div(n * groups, _GROUPS),), own, warps=4, stages=1, any_int=True))
    if call.there("dweight"):
        both = {"weight_sums": of_channels["second"], "bias_sums": of_channels["first"]}
        steps.append(added_step(call.found, both, groups * channels, n))
    return [*steps, _slopes_step(call, of_groups, call.view.table(), True)] if call.there("dx") else steps


def nest_order(call: Call) -> Steps:
    """Steps of a row-major [N, G, C / G]."""
    shape = call.view.shape
    return [shape[1] * shape[2], shape[2], 1, *(0,) * (len(shape) - 3)]


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def problem(nests: Sequence[Nest]) -> str | None:
    """Why kernels cannot take the axes of a call, or None."""
    return next((found.problem for found in nests if found.problem), None)
