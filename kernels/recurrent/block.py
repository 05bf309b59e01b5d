"""The argument block of the recurrent kernels: which word says what.

A block starts with the addresses of the call's arrays and of its scratch. As ops have different arrays, a
role such as `Y` has a word that says where its array's address stands (-1: the call has no such array).
Strides are in bytes; `*_AT` are offsets in bytes into the scratch.
"""

from __future__ import annotations

from ..cpu.compile import part
from ..cpu.memory import load_word, store_word

FIRST = 24  # arrays and scratch stand before
NAMES = (
    # Which array.
    *("X", "H0", "C0", "W_IH", "W_HH", "B_IH", "B_HH", "LENGTHS", "Y", "H_N", "C_N", "GATES", "CELLS"),
    *("DY", "DH_N", "DC_N", "DX", "DH0", "DC0", "DW_IH", "DW_HH", "DB_IH", "DB_HH", "W_HR", "DW_HR"),
    "SCRATCH",
    # Strides: of time, of the batch, of rows and columns.
    *("X_TS", "X_BS", "X_CS", "H0_BS", "H0_CS", "C0_BS", "C0_CS", "WI_RS", "WI_CS", "WH_RS", "WH_CS"),
    *("BI_S", "BH_S", "LENGTHS_S", "Y_TS", "Y_BS", "G_TS", "G_BS", "CE_TS", "CE_BS", "HN_BS", "CN_BS"),
    *("DY_TS", "DY_BS", "DX_TS", "DX_BS", "DHN_BS", "DHN_CS", "DCN_BS", "DCN_CS"),
    # Sizes: T, B, I, H; parts of the rows and of the units, which share the work; panels of hidden units.
    *("NT", "NB", "NI", "NH", "REVERSE", "ROW_PARTS", "UNIT_PARTS", "PANELS", "CHUNK", "X_IN_PLACE"),
    # Scratch, and how far apart the rows of a state, the halves of a state, and two tasks' chunks are.
    *("WI_AT", "WH_AT", "BIAS_AT", "TABLE_AT", "SYNC_AT", "H_AT", "C_AT", "G_AT", "XBUF_AT", "HBUF_AT"),
    *("STATE_RS", "STATE_STEP", "G_RS", "G_STEP", "XBUF_RS", "XBUF_STEP", "HBUF_RS"),
    # Backward: gradients of the gates (as x and as h see them), the products that follow, dx in place.
    *("DG_RS", "DGX_AT", "DGH_AT", "DXBUF_AT", "PROD_AT", "PROD_STEP", "DX_IN_PLACE", "TASKS"),
    *("DY_CS", "DYBUF_AT"),
    # Panels of w_ih, w_hh and w_hr: in which array, at the offset above; whether packed ahead.
    *("WI_IN", "WH_IN", "HR_IN", "WI_PACKED", "WH_PACKED", "HR_PACKED"),
    # Weights of 16 bits: which array, its strides, where it is widened to (an address), and that offset.
    *("W16_IH", "W16_HH", "W16I_RS", "W16I_CS", "W16H_RS", "W16H_CS"),
    *("WIDE_IH", "WIDE_HH", "WIDEI_AT", "WIDEH_AT", "COUNT_G"),
    # Rows of both weights; rows of w_hh whose product is with h itself; r h for the others.
    *("SEEN", "RBUF_AT"),
    # The width of h (P; H where it is not projected) and its panels; w_hr, packed; z = o tanh(c) of a step,
    # or its gradient; the gradients of h, and z, of all steps.
    *("NP", "P_PANELS", "HR_RS", "HR_CS", "HR_AT", "Z_AT", "DHBUF_AT", "ZBUF_AT"),
)
# fmt: off
(
    X, H0, C0, W_IH, W_HH, B_IH, B_HH, LENGTHS, Y, H_N, C_N, GATES, CELLS,
    DY, DH_N, DC_N, DX, DH0, DC0, DW_IH, DW_HH, DB_IH, DB_HH, W_HR, DW_HR,
    SCRATCH,
    X_TS, X_BS, X_CS, H0_BS, H0_CS, C0_BS, C0_CS, WI_RS, WI_CS, WH_RS, WH_CS,
    BI_S, BH_S, LENGTHS_S, Y_TS, Y_BS, G_TS, G_BS, CE_TS, CE_BS, HN_BS, CN_BS,
    DY_TS, DY_BS, DX_TS, DX_BS, DHN_BS, DHN_CS, DCN_BS, DCN_CS,
    NT, NB, NI, NH, REVERSE, ROW_PARTS, UNIT_PARTS, PANELS, CHUNK, X_IN_PLACE,
    WI_AT, WH_AT, BIAS_AT, TABLE_AT, SYNC_AT, H_AT, C_AT, G_AT, XBUF_AT, HBUF_AT,
    STATE_RS, STATE_STEP, G_RS, G_STEP, XBUF_RS, XBUF_STEP, HBUF_RS,
    DG_RS, DGX_AT, DGH_AT, DXBUF_AT, PROD_AT, PROD_STEP, DX_IN_PLACE, TASKS, DY_CS, DYBUF_AT,
    WI_IN, WH_IN, HR_IN, WI_PACKED, WH_PACKED, HR_PACKED,
    W16_IH, W16_HH, W16I_RS, W16I_CS, W16H_RS, W16H_CS, WIDE_IH, WIDE_HH, WIDEI_AT, WIDEH_AT, COUNT_G,
    SEEN, RBUF_AT, NP, P_PANELS, HR_RS, HR_CS, HR_AT, Z_AT, DHBUF_AT, ZBUF_AT,
) = range(FIRST, FIRST + len(NAMES))
# fmt: on
WORD = {name: FIRST + place for place, name in enumerate(NAMES)}
WORDS = FIRST + len(NAMES)


@part()
def array(block, role):
    """The address of the array of that role, 0 when there is none."""
    place = load_word(block, role)
    return load_word(block, place) if place >= 0 else 0


@part()
def scratch_at(block, offset_word):
    """The address in the scratch whose offset stands in that word."""
    return array(block, SCRATCH) + load_word(block, offset_word)


@part()
def panels_at(block, array_word, offset_word):
    """The address of a weight's panels: in the scratch, or in the array that came in packed."""
    return array(block, array_word) + load_word(block, offset_word)


# The table of a call, worked out once and read by all: NB rows in the order in which they are computed, the
# longest sequence first; their lengths; for each step how many rows take it; and how steps form chunks.


def table_words(t, b):
    """How many words the table has."""
    return 2 * b + 4 * t + 3


@part()
def order_at(block):
    """Address of NB words: the sequence in each place."""
    return scratch_at(block, TABLE_AT)


@part()
def lengths_at(block):
    """Address of NB words: the length of the sequence in each place."""
    return scratch_at(block, TABLE_AT) + 8 * load_word(block, NB)


@part()
def active_at(block):
    """Address of NT + 1 words: how many sequences are longer than s."""
    return scratch_at(block, TABLE_AT) + 16 * load_word(block, NB)


@part()
def chunk_at(block):
    """Address of NT words: the first step of the chunk that step s is in."""
    return active_at(block) + 16 * (load_word(block, NT) + 1)


@part()
def place_at(block):
    """Address of NT words: how many rows stand before step s in its chunk."""
    return chunk_at(block) + 8 * load_word(block, NT)


@part()
def steps_of(block):
    """How many steps there are: the longest length."""
    return load_word(place_at(block), load_word(block, NT))


@part()
def make_table(block, parts, most):
    """Fills the table: a counting sort of the sequences by length, then chunks of at most `most` rows.

    A step has as many rows as the largest of `parts` shares of its sequences.
    """
    t, b = load_word(block, NT), load_word(block, NB)
    order, lengths, active = order_at(block), lengths_at(block), active_at(block)
    cursor, given, step = active + 8 * (t + 1), array(block, LENGTHS), load_word(block, LENGTHS_S)
    for s in range(t + 1):
        store_word(active, s, 0)
    for i in range(b):
        n = t if given == 0 else min(max(load_word(given + i * step, 0), 0), t)
        store_word(active, n, load_word(active, n) + 1)
    longer = 0
    for s in range(t, -1, -1):
        here = load_word(active, s)
        store_word(active, s, longer)
        store_word(cursor, s, longer)
        longer += here
    for i in range(b):
        n = t if given == 0 else min(max(load_word(given + i * step, 0), 0), t)
        place = load_word(cursor, n)
        store_word(cursor, n, place + 1)
        store_word(order, place, i)
        store_word(lengths, place, n)
    steps = load_word(lengths, 0) if b > 0 else 0
    chunk, place, first, rows = chunk_at(block), place_at(block), 0, 0
    for s in range(steps):
        more = (load_word(active, s) + parts - 1) // parts
        if rows + more > most:
            first, rows = s, 0
        store_word(chunk, s, first)
        store_word(place, s, rows)
        rows += more
    store_word(place, t, steps)
