"""Winograd convolution of images with contiguous channels: the compiled tasks.

    pack    (unless the filters come packed)   U[panel][p][c, nr] = G w G^T
    conv    for each block of tiles            V[p][tile, c] = B^T x B, vectors along the channels
              for each panel of nr outputs
                for each of the (m + 2)^2 p    M[p][tile, nr] = V[p] U[panel][p]: the micro-kernel of matmul
                for each tile of the block     y = activation(A^T M A + bias + residual)

bfloat16 is widened on its way into V and U, and rounded once, when y is written.

V, one panel's M and a p's share of a panel stay in the L2 cache; U streams past, once a block of tiles. A
pixel beyond the image is read from a line of zeros, one beyond the result is written to a line that nobody
reads: both are a matter of who writes the tables of addresses. Tasks split tiles and panels in a grid of
gm x gn and share nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.copies import copies
from ...cpu.memory import call_task, fetch_line, load_word, stack_words, store_word
from ...cpu.microkernel import microkernel
from ..block import LINE
from ..winograd_plan import low_tile
from .elements import computed, elements
from .winograd_transform import filter_transform, image_transform, result_transform, side

# The words of a block. Strides are in bytes.
(X, W, B, RESIDUAL, Y, SCRATCH) = range(6)
(X_N, X_H, X_W, Y_N, Y_H, Y_W, R_N, R_H, R_W, W_O, W_C, W_H, W_W, B_STEP) = range(6, 20)
(SIZE_H, SIZE_W, PLACES_H, PLACES_W, LO_H, LO_W, CHANNELS, OUT) = range(20, 28)
(TILES_H, TILES_W, TILES, GM, GN, BLOCK_TILES, KC) = range(28, 35)
# Where things are: transformed filters in the scratch (PACK_TASKS is not 0) or in W; in the scratch, the
# tasks, and in each task: zeros, a line to write to, bias, tables, V, M. From p to p of U, V and M.
(PACK_TASKS, PACKED, TASKS_AT, TASK_BYTES, TRASH_AT, BIAS_AT, TABLE_AT, V_AT, M_AT) = range(35, 44)
(U_STEP, V_STEP, M_STEP, V_ROW, ZEROS_BYTES, PACK_AT, PACK_BYTES, PACK_CHANNELS) = range(44, 52)
# Channels of a panel, products of a tile, whether x is beyond the nearer caches; the addresses of the three
# parts of a task.
(WIDTH, PRODUCTS, FETCH, IMAGES, PRODUCT, RESULTS) = range(52, 58)
WORDS = 58
# What a task tells its parts.
(BLOCK, ROOM, WEIGHTS, FIRST, COUNT) = range(5)


@cache
def pack_task(dtype: str, lanes: int, columns: int, m: int) -> Any:
    """The Numba function `task(block, index)` that transforms a share of the filters into panels."""
    wide, from_size = elements(computed(dtype)), elements(dtype).size
    size, nr, products = wide.size, columns * lanes, side(m) ** 2
    pack_rows = copies(computed(dtype), lanes, columns, dtype).rows
    transform = filter_transform(computed(dtype), lanes, m)

    @part(dtype, lanes, columns, m)
    def task(block, index):
        c_all, o_all, tasks = load_word(block, CHANNELS), load_word(block, OUT), load_word(block, PACK_TASKS)
        at_once = load_word(block, PACK_CHANNELS)
        o_step, c_step = load_word(block, W_O), load_word(block, W_C)
        h_step, w_step = load_word(block, W_H), load_word(block, W_W)
        scratch, source = load_word(block, SCRATCH), load_word(block, W)
        room = scratch + load_word(block, PACK_AT) + index * load_word(block, PACK_BYTES)
        step, row = load_word(block, U_STEP), nr * size
        contiguous = w_step == from_size and h_step == 3 * from_size
        contiguous = contiguous and (c_step == 9 * from_size or c_all == 1)
        for at in range(load_word(block, PACK_BYTES) // 8):
            store_word(room, at, 0)
        total = (o_all + nr - 1) // nr
        for panel in range(total * index // tasks, total * (index + 1) // tasks):
            to = scratch + load_word(block, PACKED) + panel * products * step
            cols = min(nr, o_all - panel * nr)
            if cols < nr:
                for at in range(load_word(block, PACK_BYTES) // 8):
                    store_word(room, at, 0)
            for c in range(0, c_all, at_once):
                count = min(at_once, c_all - c)
                origin = source + panel * nr * o_step + c * c_step
                if contiguous:
                    pack_rows(room, row, origin, from_size, o_step, 9 * count, cols)
                else:
                    for tap in range(9):
                        first = origin + tap // 3 * h_step + tap % 3 * w_step
                        pack_rows(room + tap * row, 9 * row, first, c_step, o_step, count, cols)
                for i in range(count):
                    transform(room + 9 * i * row, row, to + (c + i) * row, step, columns)

    return task


@cache
def table_part(dtype: str, m: int) -> Any:
    """`pixels`, `places` and `fetch`: where the pixels of a tile of x and of y are."""
    n, size = side(m), elements(dtype).size

    @part(dtype, m)
    def place(block, tile):
        """Image, row and column of tiles that a tile is."""
        per_row, per_column = load_word(block, TILES_W), load_word(block, TILES_H)
        return tile // (per_row * per_column), tile // per_row % per_column, tile % per_row

    @part(dtype, m)
    def pixels(block, table, zeros, tile):
        """The addresses of the n x n pixels of a tile of x, `zeros` for those on padding."""
        image, th, tw = place(block, tile)
        h, w = th * m - load_word(block, LO_H), tw * m - load_word(block, LO_W)
        step_h, step_w = load_word(block, X_H), load_word(block, X_W)
        size_h, size_w = load_word(block, SIZE_H), load_word(block, SIZE_W)
        at = load_word(block, X) + image * load_word(block, X_N) + h * step_h + w * step_w
        if h >= 0 and h + n <= size_h and w >= 0 and w + n <= size_w:
            for i in range(n):
                for j in range(n):
                    store_word(table, i * n + j, at + i * step_h + j * step_w)
            return
        for i in range(n):
            for j in range(n):
                inside = h + i >= 0 and h + i < size_h and w + j >= 0 and w + j < size_w
                store_word(table, i * n + j, at + i * step_h + j * step_w if inside else zeros)

    @part(dtype, m)
    def places(block, table, trash, tile, base, step_n, step_h, step_w):
        """The addresses of the m x m pixels of a tile of a result, `trash` for those beyond it."""
        image, th, tw = place(block, tile)
        h, w = th * m, tw * m
        all_h, all_w = load_word(block, PLACES_H), load_word(block, PLACES_W)
        at = base + image * step_n + h * step_h + w * step_w
        for i in range(m):
            for j in range(m):
                inside = h + i < all_h and w + j < all_w
                store_word(table, i * m + j, at + i * step_h + j * step_w if inside else trash)

    @part(dtype, m)
    def fetch(block, tile):
        """Asks for those pixels of a tile of x that the tile before it did not have."""
        image, th, tw = place(block, tile)
        h, w = th * m - load_word(block, LO_H), tw * m - load_word(block, LO_W)
        step_h, step_w = load_word(block, X_H), load_word(block, X_W)
        row_bytes = load_word(block, CHANNELS) * size
        at = load_word(block, X) + image * load_word(block, X_N)
        for i in range(max(h, 0), min(h + n, load_word(block, SIZE_H))):
            for j in range(max(w + n - m, 0), min(w + n, load_word(block, SIZE_W))):
                pixel = at + i * step_h + j * step_w
                for line in range(0, row_bytes, LINE):
                    fetch_line(pixel + line)

    return pixels, places, fetch


@cache
def images_task(dtype: str, lanes: int, m: int) -> Any:
    """`task(state, index)`: V of the tiles of a block, and the tables of where their results go."""
    transform = image_transform(dtype, lanes, m)
    pixels, places, fetch = table_part(dtype, m)
    squares = m * m

    @part(dtype, lanes, m)
    def task(state, index):
        block, scratch = load_word(state, BLOCK), load_word(state, ROOM)
        first, count = load_word(state, FIRST), load_word(state, COUNT)
        table = stack_words(64)
        channels, v_row, v_step = (
            load_word(block, CHANNELS),
            load_word(block, V_ROW),
            load_word(block, V_STEP),
        )
        trash, tables = scratch + load_word(block, TRASH_AT), scratch + load_word(block, TABLE_AT)
        y_n, y_h, y_w = load_word(block, Y_N), load_word(block, Y_H), load_word(block, Y_W)
        r_n, r_h, r_w = load_word(block, R_N), load_word(block, R_H), load_word(block, R_W)
        y, residual, ahead = load_word(block, Y), load_word(block, RESIDUAL), load_word(block, FETCH)
        for t in range(count):
            pixels(block, table, scratch, first + t)
            if ahead != 0 and t + 1 < count:
                fetch(block, first + t + 1)
            transform(table, scratch + load_word(block, V_AT) + t * v_row, v_step, channels)
            at = tables + 16 * squares * t
            places(block, at, trash, first + t, y, y_n, y_h, y_w)
            if residual != 0:
                places(block, at + 8 * squares, trash, first + t, residual, r_n, r_h, r_w)

    return task


@cache
def products_task(dtype: str, lanes: int, mr: int, columns: int) -> Any:
    """`task(state, panel)`: M[p] = V[p] U[p] of the tiles of a block, for all p."""
    size, nr, half = elements(dtype).size, columns * lanes, low_tile(mr)
    row = nr * size
    tile = microkernel(dtype, lanes, mr, columns, ahead=True)
    tile_half = microkernel(dtype, lanes, half, columns, ahead=True)

    @part(dtype, lanes, mr, columns)
    def product(block, v, u, to, count, far):
        """One p, in blocks of channels. Each register tile asks for a column of lines of the next filters."""
        channels, at_once, v_row = load_word(block, CHANNELS), load_word(block, KC), load_word(block, V_ROW)
        for k in range(0, channels, at_once):
            terms, soon = min(at_once, channels - k), far
            for i in range(0, count, mr):
                rows, a, b, c = min(mr, count - i), v + i * v_row + k * size, u + k * row, to + i * row
                if rows > half:
                    tile(terms, a, v_row, b, row, c, row, rows, nr, k, soon)
                else:
                    tile_half(terms, a, v_row, b, row, c, row, rows, nr, k, soon)
                if far != 0:
                    soon = far + (soon - far + LINE) % row

    @part(dtype, lanes, mr, columns)
    def task(state, panel):
        block, scratch, count = load_word(state, BLOCK), load_word(state, ROOM), load_word(state, COUNT)
        u_step, v_step, m_step = load_word(block, U_STEP), load_word(block, V_STEP), load_word(block, M_STEP)
        products = load_word(block, PRODUCTS)
        u = load_word(state, WEIGHTS) + panel * products * u_step
        v, to = scratch + load_word(block, V_AT), scratch + load_word(block, M_AT)
        # Unless all lines are asked for, the core's own prefetching is better left alone (measured).
        far = u_step if (count + mr - 1) // mr * LINE >= row else 0
        for p in range(products):
            product(block, v + p * v_step, u + p * u_step, to + p * m_step, count, far)

    return task


@cache
def results_task(
    dtype: str, lanes: int, columns: int, m: int, activation: str | None, with_residual: bool
) -> Any:
    """`task(state, panel)`: y of the tiles of a block from the M of a panel."""
    size, wide, nr, squares = elements(dtype).size, elements(computed(dtype)).size, columns * lanes, m * m
    finish = result_transform(dtype, lanes, m, activation, with_residual)

    @part(dtype, lanes, columns, m, activation, with_residual)
    def task(state, panel):
        block, scratch, count = load_word(state, BLOCK), load_word(state, ROOM), load_word(state, COUNT)
        m_step, shift = load_word(block, M_STEP), panel * nr * size
        cols = min(nr, load_word(block, OUT) - panel * nr)
        bias, tables = scratch + load_word(block, BIAS_AT) + shift, scratch + load_word(block, TABLE_AT)
        for t in range(count):
            at = tables + 16 * squares * t
            products = scratch + load_word(block, M_AT) + t * nr * wide
            soon = tables + 16 * squares * min(t + 2, count - 1)
            finish(products, m_step, at, at + 8 * squares, soon, bias, shift, cols)

    return task


@cache
def conv_task(dtype: str) -> Any:
    """The Numba function `task(block, index)`: a share of the tiles and panels, by three tasks in turn.

    They are called by their addresses, so that each is compiled once for whatever it goes together with.
    """
    move, clear, size = elements(dtype)

    @part(dtype)
    def task(block, index):
        gm, gn, nr = load_word(block, GM), load_word(block, GN), load_word(block, WIDTH)
        tiles, out = load_word(block, TILES), load_word(block, OUT)
        panels = (out + nr - 1) // nr
        i, j = index // gn, index % gn
        first_tile, end_tile = i * tiles // gm, (i + 1) * tiles // gm
        first_panel, end_panel = j * panels // gn, (j + 1) * panels // gn
        base = load_word(block, SCRATCH)
        scratch = base + load_word(block, TASKS_AT) + index * load_word(block, TASK_BYTES)
        for at in range(load_word(block, ZEROS_BYTES) // 8):
            store_word(scratch, at, 0)
        bias, given, step = scratch + load_word(block, BIAS_AT), load_word(block, B), load_word(block, B_STEP)
        for o in range(panels * nr):
            if given != 0 and o < out:
                move(bias + o * size, given + o * step)
            else:
                clear(bias + o * size)
        state = stack_words(8)
        store_word(state, BLOCK, block)
        store_word(state, ROOM, scratch)
        weights = base if load_word(block, PACK_TASKS) != 0 else load_word(block, W)
        store_word(state, WEIGHTS, weights + load_word(block, PACKED))
        at_once = load_word(block, BLOCK_TILES)
        for start in range(first_tile, end_tile, at_once):
            store_word(state, FIRST, start)
            store_word(state, COUNT, min(at_once, end_tile - start))
            call_task(load_word(block, IMAGES), state, 0)
            for panel in range(first_panel, end_panel):
                call_task(load_word(block, PRODUCT), state, panel)
                call_task(load_word(block, RESULTS), state, panel)

    return task
