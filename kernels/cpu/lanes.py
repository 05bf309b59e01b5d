"""Vectors of any dtype, a number of lanes each: how they are loaded, stored, converted and compared.

    dtype                  in memory          in a register
    float32, float64       itself             itself
    bfloat16, float16      16 bits            float32
    int8 .. uint64         itself             itself
    bool                   a byte, 0 or 1     a mask

A `Lanes` object stands for one number of lanes, which all vectors of a program share whatever their width:
LLVM makes as many registers of each as that takes.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from . import narrow
from .vector_ir import I1, I8, I32, I64, POINTER, Vectors, i64, offset

SIXTEEN = narrow.NARROW
FLOATING = ("float32", "float64", *SIXTEEN)
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
WHOLE = (*SIGNED, *UNSIGNED)
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "bool": 1}


def item_bytes(dtype: str) -> int:
    """Bytes of an element in memory."""
    known = _BYTES.get(dtype)
    return int(dtype.lstrip("uint")) // 8 if known is None else known


def computed(dtype: str) -> str:
    """The dtype in registers."""
    return "float32" if dtype in SIXTEEN else dtype


def register_bytes(dtype: str) -> int:
    """Bytes of an element in a register; a mask counts as a byte."""
    return item_bytes(computed(dtype))


class Lanes:
    """Emits operations on vectors of `lanes` elements of any dtype."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        self.builder = builder
        self.lanes = lanes
        self._floats: dict[str, Vectors] = {}

    def floats(self, dtype: str) -> Vectors:
        """The vectors in which a floating-point dtype is computed."""
        name = computed(dtype)
        if name not in self._floats:
            self._floats[name] = Vectors(self.builder, name, self.lanes)
        return self._floats[name]

    def element(self, dtype: str) -> ir.Type:
        """The type of one element in a register."""
        if dtype in FLOATING:
            return self.floats(dtype).element
        return I1 if dtype == "bool" else ir.IntType(8 * item_bytes(dtype))

    def type(self, dtype: str) -> ir.VectorType:
        """The type of a vector in registers."""
        return ir.VectorType(self.element(dtype), self.lanes)

    def constant(self, dtype: str, value: float) -> ir.Constant:
        """`value` in every lane."""
        if dtype in FLOATING:
            return self.floats(dtype).constant(value)
        if dtype != "bool":
            bits = 8 * item_bytes(dtype)
            value = (int(value) + (1 << 63)) % (1 << 64) - (1 << 63) if bits == 64 else int(value)
        return ir.Constant(self.type(dtype), [int(value)] * self.lanes)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A scalar in every lane."""
        b, kind = self.builder, ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        first = b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(first, undefined, order)

    def tail(self, valid: ir.Value) -> ir.Value:
        """The mask of lanes below `valid`, an i64."""
        return self.floats("float32").tail_mask(valid)

    # --- memory ---------------------------------------------------------------------------------------------

    def _stored(self, dtype: str) -> ir.Type:
        """The type of one element in memory, as it is moved."""
        if dtype in SIXTEEN:
            return narrow.I16
        return I8 if dtype == "bool" else self.element(dtype)

    def _widened(self, dtype: str, value: ir.Value) -> ir.Value:
        if dtype in SIXTEEN:
            return narrow.widen(self.floats(dtype), value, dtype)
        if dtype == "bool":
            return self.builder.icmp_unsigned("!=", value, ir.Constant(value.type, [0] * self.lanes))
        return value

    def _narrowed(self, dtype: str, value: ir.Value) -> ir.Value:
        if dtype in SIXTEEN:
            return narrow.narrow(self.floats(dtype), value, dtype)
        if dtype == "bool":
            return self.builder.zext(value, ir.VectorType(I8, self.lanes))
        return value

    def _masked(self, what: str, kind: ir.VectorType) -> ir.Function:
        element = kind.element
        name = (
            f"f{32 if isinstance(element, ir.FloatType) else 64}"
            if _is_float(element)
            else f"i{element.width}"
        )
        mask = ir.VectorType(I1, self.lanes)
        fnty = (
            ir.FunctionType(kind, [POINTER, I32, mask, kind])
            if what == "load"
            else ir.FunctionType(ir.VoidType(), [kind, POINTER, I32, mask])
        )
        return cgutils.get_or_insert_function(
            self.builder.module, fnty, f"llvm.masked.{what}.v{self.lanes}{name}.p0"
        )

    def load(self, dtype: str, ptr: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """Elements side by side; those outside the mask are 0 and not touched."""
        kind = ir.VectorType(self._stored(dtype), self.lanes)
        if mask is None:
            value = self.builder.load(ptr, typ=kind)
            value.align = 1
        else:
            none = ir.Constant(kind, [0.0 if _is_float(kind.element) else 0] * self.lanes)
            value = self.builder.call(self._masked("load", kind), [ptr, ir.Constant(I32, 1), mask, none])
        return self._widened(dtype, value)

    def load_one(self, dtype: str, ptr: ir.Value) -> ir.Value:
        """One element in every lane."""
        value = self.builder.load(ptr, typ=self._stored(dtype))
        value.align = 1
        return self._widened(dtype, self.splat(value))

    def load_apart(self, dtype: str, ptr: ir.Value, step: ir.Value) -> ir.Value:
        """Elements `step` bytes apart."""
        b, kind = self.builder, ir.VectorType(self._stored(dtype), self.lanes)
        value: ir.Value = ir.Constant(kind, ir.Undefined)
        for lane in range(self.lanes):
            at = ptr if lane == 0 else offset(b, ptr, b.mul(step, i64(lane)))
            one = b.load(at, typ=kind.element)
            one.align = 1
            value = b.insert_element(value, one, ir.Constant(I32, lane))
        return self._widened(dtype, value)

    def store(
        self, dtype: str, value: ir.Value, ptr: ir.Value, mask: ir.Value | None = None, past: bool = False
    ) -> None:
        """Elements side by side; `past` the caches, where `ptr` is a multiple of the vector's bytes."""
        value = self._narrowed(dtype, value)
        if mask is not None:
            self.builder.call(self._masked("store", value.type), [value, ptr, ir.Constant(I32, 1), mask])
            return
        store = self.builder.store(value, ptr)
        store.align = 1
        if past:
            store.align = self.lanes * item_bytes(dtype)
            store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(I32, 1)]))

    def store_apart(self, dtype: str, value: ir.Value, ptr: ir.Value, step: ir.Value) -> None:
        """Elements `step` bytes apart."""
        b, value = self.builder, self._narrowed(dtype, value)
        for lane in range(self.lanes):
            at = ptr if lane == 0 else offset(b, ptr, b.mul(step, i64(lane)))
            b.store(b.extract_element(value, ir.Constant(I32, lane)), at).align = 1

    def store_first(self, dtype: str, value: ir.Value, ptr: ir.Value) -> None:
        """The first lane's element."""
        value = self._narrowed(dtype, value)
        self.builder.store(self.builder.extract_element(value, ir.Constant(I32, 0)), ptr).align = 1

    # --- meaning --------------------------------------------------------------------------------------------

    def compare(self, operator: str, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """The mask of lanes where `a operator b`."""
        if dtype in FLOATING:
            return self.floats(dtype).compare(operator, a, b)
        if dtype in SIGNED:
            return self.builder.icmp_signed(operator, a, b)
        return self.builder.icmp_unsigned(operator, a, b)

    def truth(self, dtype: str, value: ir.Value) -> ir.Value:
        """The mask of lanes that are not 0; NaN is not."""
        return value if dtype == "bool" else self.compare("!=", dtype, value, self.constant(dtype, 0))

    def cast(self, value: ir.Value, old: str, new: str) -> ir.Value:
        """From one dtype to another. Floats to whole numbers are cut off, and kept within their range."""
        b = self.builder
        if old == new:
            return value
        if new == "bool":
            return self.truth(old, value)
        if new in FLOATING:
            return self._cast_to_float(value, old, new)
        kind = self.type(new)
        if old in FLOATING:
            letter = "s" if new in SIGNED else "u"
            source = self.floats(old)
            name = f"llvm.fpto{letter}i.sat.v{self.lanes}i{kind.element.width}.{source.suffix}"
            fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [source.type]), name)
            return b.call(fn, [value])
        have, want = (1 if old == "bool" else 8 * item_bytes(old)), kind.element.width
        if have == want:
            return value
        if have > want:
            return b.trunc(value, kind)
        return b.sext(value, kind) if old in SIGNED else b.zext(value, kind)

    def _cast_to_float(self, value: ir.Value, old: str, new: str) -> ir.Value:
        b, v = self.builder, self.floats(new)
        if old in FLOATING:
            have, want = self.floats(old).itemsize, v.itemsize
            if have > want:
                value = b.fptrunc(value, v.type)
            elif have < want:
                value = b.fpext(value, v.type)
        else:
            value = b.sitofp(value, v.type) if old in SIGNED else b.uitofp(value, v.type)
        if new in SIXTEEN:  # what is asked for is the rounding
            value = narrow.widen(v, narrow.narrow(v, value, new), new)
        return value


def _is_float(element: ir.Type) -> bool:
    return isinstance(element, ir.FloatType | ir.DoubleType)


def lane_numbers(lanes: Lanes, dtype: str) -> ir.Constant:
    """0, 1, 2, ... in a vector of a whole-number dtype."""
    return ir.Constant(lanes.type(dtype), list(range(lanes.lanes)))


__all__ = ["I64", "Lanes", "computed", "item_bytes", "lane_numbers", "register_bytes"]
