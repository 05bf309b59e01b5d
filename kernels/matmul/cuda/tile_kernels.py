"""Matrix products by tiles, for tensor cores: C[m, n] = end(A[m, k] B[k, n]), with a batch in front.

    by_pointers       any strides, any chip: blocks of A and B by cp.async
    by_descriptors    Hopper and later: blocks by the bulk copy engine, from descriptors made on the host

              n ->                    one program: BM x BN sums in registers; blocks BM x BK of A and
        +--+--+--+--+                 BK x BN of B pass through shared memory, several in flight.
    m   |0 |2 |  |  |   GROUP = 2     Tiles are taken in groups of GROUP rows of tiles, down each column of
    |   |1 |3 |  |  |   rows of       the group first, so that the programs that run at one time read few
    v   |  |  |  |  |   tiles         different blocks, which the L2 cache then holds.

The grid is persistent: program i computes the tiles i, i + programs, i + 2 programs, ... Where there are
fewer tiles than multiprocessors, k is cut into `splits` parts: each program writes its sums to scratch, and
the one that arrives last adds them up, in the order of the parts whoever is last, so that the result does
not depend on the order of arrival.

`A_FORM` says along which axis the elements of A are side by side: "m", "k", or "" for neither; `B_FORM` and
`C_FORM` likewise. A transposed operand is read as it lies. Offsets are 64-bit: strides may pass 2^31.

Of an integer argument nothing is compiled in, so that one kernel serves all problems of a kind. Where steps
are multiples of 16 bytes, a constant says so: `A_UNIT`, in elements, and the compiler then loads as many at a
time. `M_UNIT`, `N_UNIT` and `K_UNIT` say it of the lengths along which that matters; BIAS_UNIT above 1, that
the bias has its elements side by side.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_activations import activate

# The argument lists of kernels are long, and are written several to a line.
# fmt: off


@triton.jit
def place_of(index, tiles_m, tiles_n, GROUP: tl.constexpr):
    """The row and the column of tile number `index` in grouped order."""
    per_group = GROUP * tiles_n
    first = index // per_group * GROUP
    high = min(tiles_m - first, GROUP)
    inside = index % per_group
    return first + inside % high, inside // high


@triton.jit
def whole(x, UNIT: tl.constexpr):
    """`x`, which is a multiple of UNIT, such that the compiler knows it."""
    if UNIT == 1:
        return x
    else:
        return x // UNIT * UNIT


@triton.jit
def matrix_at(p, inner, outer_step, inner_step, BATCH_AXES: tl.constexpr):
    """The offset of matrix number `p` of a batch with no, one or two axes; elements, in 64 bits."""
    if BATCH_AXES == 2:
        outer = p // inner
        return tl.cast(outer, tl.int64) * outer_step + tl.cast(p - outer * inner, tl.int64) * inner_step
    elif BATCH_AXES == 1:
        return tl.cast(p, tl.int64) * inner_step
    else:
        return tl.cast(0, tl.int64)


@triton.jit
def grid_of(
    rows, columns, row_step, column_step, FORM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Offsets [rows, columns] in 64 bits; along the axis that FORM names, elements are side by side."""
    r = rows.to(tl.int64)[:, None]
    s = columns.to(tl.int64)[None, :]
    if FORM == COLUMNS:
        return r * row_step + s
    elif FORM == ROWS:
        return r + s * column_step
    else:
        return r * row_step + s * column_step


@triton.jit
def ended(
    x, bias, residual, a_scale, b_scale, r_at, rm, rn, m, n, bias_step, r_ms, r_ns, a_scale_step,
    b_scale_step, BIAS: tl.constexpr, BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr, R_FORM: tl.constexpr,
    R_UNIT: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
):
    """activation(scale x + bias + residual) of the sums x at rows rm and columns rn."""
    if SCALED:
        of_a = tl.load(a_scale + rm.to(tl.int64) * a_scale_step, mask=rm < m, other=0.0)
        of_b = tl.load(b_scale + rn.to(tl.int64) * b_scale_step, mask=rn < n, other=0.0)
        x = x * of_a[:, None] * of_b[None, :]
    if BIAS == "n":
        at = bias + rn.to(tl.int64) * (1 if BIAS_UNIT > 1 else bias_step)
        x += tl.load(at, mask=rn < n, other=0.0).to(tl.float32)[None, :]
    elif BIAS == "m":
        at = bias + rm.to(tl.int64) * (1 if BIAS_UNIT > 1 else bias_step)
        x += tl.load(at, mask=rm < m, other=0.0).to(tl.float32)[:, None]
    if RESIDUAL:
        inside = (rm < m)[:, None] & (rn < n)[None, :]
        r_ms, r_ns = whole(r_ms, 1 if R_FORM == "m" else R_UNIT), whole(r_ns, 1 if R_FORM == "n" else R_UNIT)
        at = residual + whole(r_at, R_UNIT) + grid_of(rm, rn, r_ms, r_ns, R_FORM, "m", "n")
        x += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    return activate(x, ACTIVATION)


@triton.jit
def added_up(x, sums, arrivals, tile, split, splits, BM: tl.constexpr, BN: tl.constexpr):
    """Leave the sums of one part of k; for the last to arrive at a tile: all parts added up, and True.

    The barrier puts the stores of all threads before the arrival, which releases them to the program that
    arrives last; ".cg" loads come from the L2 cache, where all multiprocessors see the same. The counter is
    left at zero for the next launch.
    """
    inside = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    first = sums + tl.cast(tile, tl.int64) * splits * (BM * BN)
    tl.store(first + tl.cast(split, tl.int64) * (BM * BN) + inside, x)
    tl.debug_barrier()
    arrived = arrivals + tl.cast(tile, tl.int64)
    last = tl.atomic_add(arrived, 1, sem="acq_rel") == splits - 1
    total = x
    if last:
        total = tl.load(first + inside, cache_modifier=".cg")
        for part in range(1, splits):
            total += tl.load(first + tl.cast(part, tl.int64) * (BM * BN) + inside, cache_modifier=".cg")
        tl.store(arrived, 0)
    return total, last


@triton.jit
def put(
    x, c, bias, residual, a_scale, b_scale, p, c_at, r_at, first_m, first_n, m, n, bias_step, c_ms, c_ns,
    r_ms, r_ns, a_scale_step, b_scale_step, BM: tl.constexpr, BN: tl.constexpr, BIAS: tl.constexpr,
    BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr, R_FORM: tl.constexpr, R_UNIT: tl.constexpr,
    SCALED: tl.constexpr, ACTIVATION: tl.constexpr, C_FORM: tl.constexpr, C_UNIT: tl.constexpr,
    STORE: tl.constexpr,
):
    """End the sums x of rows first_m.. and columns first_n.., and store them."""
    rm = first_m + tl.arange(0, BM)
    rn = first_n + tl.arange(0, BN)
    x = ended(
        x, bias, residual, a_scale, b_scale, r_at, rm, rn, m, n, bias_step, r_ms, r_ns, a_scale_step,
        b_scale_step, BIAS, BIAS_UNIT, RESIDUAL, R_FORM, R_UNIT, SCALED, ACTIVATION,
    )
    if STORE == "descriptor":
        c.store([first_m, first_n], x.to(c.dtype))
    elif STORE == "descriptor3":
        c.store([p, first_m, first_n], x.to(c.dtype).reshape(1, BM, BN))
    else:
        c_ms, c_ns = whole(c_ms, 1 if C_FORM == "m" else C_UNIT), whole(c_ns, 1 if C_FORM == "n" else C_UNIT)
        at = c + c_at + grid_of(rm, rn, c_ms, c_ns, C_FORM, "m", "n")
        tl.store(at, x.to(c.dtype.element_ty), mask=(rm < m)[:, None] & (rn < n)[None, :])


@triton.jit
def put_all(
    x, c, bias, residual, a_scale, b_scale, p, c_at, r_at, first_m, first_n, m, n, bias_step, c_ms, c_ns,
    r_ms, r_ns, a_scale_step, b_scale_step, BM: tl.constexpr, BN: tl.constexpr, BIAS: tl.constexpr,
    BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr, R_FORM: tl.constexpr, R_UNIT: tl.constexpr,
    SCALED: tl.constexpr, ACTIVATION: tl.constexpr, C_FORM: tl.constexpr, C_UNIT: tl.constexpr,
    STORE: tl.constexpr, HALVES: tl.constexpr,
):
    """`put` for a whole tile, or by halves: half the shared memory and registers on the way out."""
    if HALVES:
        left, right = tl.split(tl.permute(tl.reshape(x, (BM, 2, BN // 2)), (0, 2, 1)))
        put(
            left, c, bias, residual, a_scale, b_scale, p, c_at, r_at, first_m, first_n, m, n, bias_step, c_ms,
            c_ns, r_ms, r_ns, a_scale_step, b_scale_step, BM, BN // 2, BIAS, BIAS_UNIT, RESIDUAL, R_FORM,
            R_UNIT, SCALED, ACTIVATION, C_FORM, C_UNIT, STORE,
        )
        put(
            right, c, bias, residual, a_scale, b_scale, p, c_at, r_at, first_m, first_n + BN // 2, m, n,
            bias_step, c_ms, c_ns, r_ms, r_ns, a_scale_step, b_scale_step, BM, BN // 2, BIAS, BIAS_UNIT,
            RESIDUAL, R_FORM, R_UNIT, SCALED, ACTIVATION, C_FORM, C_UNIT, STORE,
        )
    else:
        put(
            x, c, bias, residual, a_scale, b_scale, p, c_at, r_at, first_m, first_n, m, n, bias_step, c_ms,
            c_ns, r_ms, r_ns, a_scale_step, b_scale_step, BM, BN, BIAS, BIAS_UNIT, RESIDUAL, R_FORM, R_UNIT,
            SCALED, ACTIVATION, C_FORM, C_UNIT, STORE,
        )


@triton.jit
def multiplied(x, y, acc, PRECISION: tl.constexpr, PROMOTE: tl.constexpr):
    """acc + x y on the unit that PRECISION names; sums of float8 go to float32 every PROMOTE of k."""
    if PRECISION == "float8":
        return tl.dot(x, y, acc, max_num_imprecise_acc=PROMOTE)
    elif PRECISION == "":
        return tl.dot(x, y, acc)
    else:
        return tl.dot(x, y, acc, input_precision=PRECISION)


@triton.jit
def by_pointers(
    a, b, c, bias, residual, a_scale, b_scale, sums, arrivals, m, n, k, batch, inner, splits, steps_of_part,
    a_first, a_os, a_is, a_ms, a_ks, b_first, b_os, b_is, b_ks, b_ns, c_first, c_os, c_is, c_ms, c_ns,
    r_first, r_os, r_is, r_ms, r_ns, bias_step, a_scale_step, b_scale_step, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, A_FORM: tl.constexpr, B_FORM: tl.constexpr,
    C_FORM: tl.constexpr, R_FORM: tl.constexpr, R_UNIT: tl.constexpr, A_UNIT: tl.constexpr,
    B_UNIT: tl.constexpr, C_UNIT: tl.constexpr, M_UNIT: tl.constexpr, N_UNIT: tl.constexpr,
    K_UNIT: tl.constexpr, BATCH_AXES: tl.constexpr, WHOLE_K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, PROMOTE: tl.constexpr, BIAS: tl.constexpr, BIAS_UNIT: tl.constexpr,
    RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr, HALVES: tl.constexpr,
):
    """C = end(A B) for any strides.

    Args:
        a, b, c, bias, residual: pointers; the last two are not read unless BIAS and RESIDUAL.
        a_scale, b_scale: float32, for SCALED; the steps are 0 for one scale for all.
        sums, arrivals: scratch for SPLIT: float32 [tiles, splits, BM, BN], and int32 [tiles] of zeros.
        batch, inner: matrices in the batch, and how many of them lie along its inner axis.
        splits, steps_of_part: parts of k, and how many BK each is long.
        *_first: elements before the first that is used.
        *_os, *_is: elements from matrix to matrix along the outer and the inner axis of the batch.
        WHOLE_K: whether each part of k is a multiple of BK.
    """
    m, n, k = whole(m, M_UNIT), whole(n, N_UNIT), whole(k, K_UNIT)
    tiles_m = tl.cdiv(m, BM)
    tiles_n = tl.cdiv(n, BN)
    tiles = tiles_m * tiles_n
    part = steps_of_part * BK
    a_ms, a_ks = whole(a_ms, 1 if A_FORM == "m" else A_UNIT), whole(a_ks, 1 if A_FORM == "k" else A_UNIT)
    b_ks, b_ns = whole(b_ks, 1 if B_FORM == "k" else B_UNIT), whole(b_ns, 1 if B_FORM == "n" else B_UNIT)
    for index in tl.range(tl.program_id(0), tiles * batch * splits, tl.num_programs(0)):
        split = index % splits
        tile = index // splits
        p = tile // tiles
        row, column = place_of(tile - p * tiles, tiles_m, tiles_n, GROUP)
        rm = row * BM + tl.arange(0, BM)
        rn = column * BN + tl.arange(0, BN)
        rk = tl.arange(0, BK)
        first = split * part
        left = min(k - first, part)
        a_from = whole(a_first + matrix_at(p, inner, a_os, a_is, BATCH_AXES), A_UNIT)
        b_from = whole(b_first + matrix_at(p, inner, b_os, b_is, BATCH_AXES), B_UNIT)
        a_at = a + a_from + grid_of(rm, first + rk, a_ms, a_ks, A_FORM, "m", "k")
        b_at = b + b_from + grid_of(first + rk, rn, b_ks, b_ns, B_FORM, "k", "n")
        a_step = BK * tl.cast(1 if A_FORM == "k" else a_ks, tl.int64)
        b_step = BK * tl.cast(1 if B_FORM == "k" else b_ks, tl.int64)
        of_a = (rm < m)[:, None]
        of_b = (rn < n)[None, :]
        acc = tl.zeros((BM, BN), tl.float32)
        for step in range(0, tl.cdiv(left, BK)):
            if WHOLE_K:
                x = tl.load(a_at, mask=of_a, other=0.0)
                y = tl.load(b_at, mask=of_b, other=0.0)
            else:
                x = tl.load(a_at, mask=of_a & (rk < left - step * BK)[None, :], other=0.0)
                y = tl.load(b_at, mask=of_b & (rk < left - step * BK)[:, None], other=0.0)
            acc = multiplied(x, y, acc, PRECISION, PROMOTE)
            a_at += a_step
            b_at += b_step
        c_at = whole(c_first + matrix_at(p, inner, c_os, c_is, BATCH_AXES), C_UNIT)
        r_at = r_first + matrix_at(p, inner, r_os, r_is, BATCH_AXES)
        last = True
        if SPLIT:
            acc, last = added_up(acc, sums, arrivals, tile, split, splits, BM, BN)
        if last:
            put_all(
                acc, c, bias, residual, a_scale, b_scale, p, c_at, r_at, row * BM, column * BN, m, n,
                bias_step, c_ms, c_ns, r_ms, r_ns, a_scale_step, b_scale_step, BM, BN, BIAS, BIAS_UNIT,
                RESIDUAL, R_FORM, R_UNIT, SCALED, ACTIVATION, C_FORM, C_UNIT, "pointers", HALVES,
            )


@triton.jit
def block_of(
    d, p, row, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TURNED: tl.constexpr, RANK: tl.constexpr
):
    """The block [ROWS, COLUMNS] at (row, column) of matrix p, from a descriptor of it or of its transpose."""
    if RANK == 3:
        if TURNED:
            return d.load([p, column, row]).reshape(COLUMNS, ROWS).T
        else:
            return d.load([p, row, column]).reshape(ROWS, COLUMNS)
    elif TURNED:
        return d.load([column, row]).T
    else:
        return d.load([row, column])


@triton.jit
def by_descriptors(
    a, b, c, bias, residual, a_scale, b_scale, sums, arrivals, m, n, k, batch, splits, steps_of_part, c_is,
    c_ms, c_ns, r_is, r_ms, r_ns, bias_step, a_scale_step, b_scale_step, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, GROUP: tl.constexpr, A_FORM: tl.constexpr, B_FORM: tl.constexpr, C_FORM: tl.constexpr,
    R_FORM: tl.constexpr, R_UNIT: tl.constexpr, C_UNIT: tl.constexpr, M_UNIT: tl.constexpr,
    N_UNIT: tl.constexpr, RANK: tl.constexpr, A_BATCHED: tl.constexpr, B_BATCHED: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr, PROMOTE: tl.constexpr, BIAS: tl.constexpr,
    BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    HALVES: tl.constexpr, STORE: tl.constexpr, FLATTEN: tl.constexpr,
):
    """C = end(A B), with A and B behind tensor descriptors; what is beyond their ends arrives as zeros.

    Args:
        a: descriptor of A [m, k] with blocks [BM, BK] for A_FORM "k", of A^T with [BK, BM] for "m"; with
            RANK 3 of [matrices, m, k] with [1, BM, BK], of one matrix alone unless A_BATCHED.
        b: likewise; of B [k, n] with [BK, BN] for B_FORM "n", of B^T with [BN, BK] for "k".
        c: a pointer for STORE "pointers"; else a descriptor with blocks as wide as BN, or half with HALVES.
        The rest as for `by_pointers`.
    """
    m, n = whole(m, M_UNIT), whole(n, N_UNIT)
    tiles_m = tl.cdiv(m, BM)
    tiles_n = tl.cdiv(n, BN)
    tiles = tiles_m * tiles_n
    steps = tl.cdiv(k, BK)
    for index in tl.range(tl.program_id(0), tiles * batch * splits, tl.num_programs(0), flatten=FLATTEN):
        tile = index
        split = 0
        first = 0
        if SPLIT:
            tile = index // splits
            split = index - tile * splits
            first = split * steps_of_part * BK
            steps = min(tl.cdiv(k - first, BK), steps_of_part)
        p = 0
        place = tile
        if RANK == 3:
            p = tile // tiles
            place = tile - p * tiles
        row, column = place_of(place, tiles_m, tiles_n, GROUP)
        a_p = p if A_BATCHED else 0
        b_p = p if B_BATCHED else 0
        acc = tl.zeros((BM, BN), tl.float32)
        for step in range(0, steps):
            x = block_of(a, a_p, row * BM, first + step * BK, BM, BK, A_FORM == "m", RANK)
            y = block_of(b, b_p, first + step * BK, column * BN, BK, BN, B_FORM == "k", RANK)
            acc = multiplied(x, y, acc, PRECISION, PROMOTE)
        c_at = whole(tl.cast(p, tl.int64) * c_is, C_UNIT)
        r_at = tl.cast(p, tl.int64) * r_is
        last = True
        if SPLIT:
            acc, last = added_up(acc, sums, arrivals, tile, split, splits, BM, BN)
        if last:
            put_all(
                acc, c, bias, residual, a_scale, b_scale, p, c_at, r_at, row * BM, column * BN, m, n,
                bias_step, c_ms, c_ns, r_ms, r_ns, a_scale_step, b_scale_step, BM, BN, BIAS, BIAS_UNIT,
                RESIDUAL, R_FORM, R_UNIT, SCALED, ACTIVATION, C_FORM, C_UNIT, STORE, HALVES,
            )
