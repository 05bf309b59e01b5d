"""CTC on the GPU: sums over all alignments, a program a sequence, the states of its target along the threads.

    walk      a[t, s] = log(e^a[t-1, s] + e^a[t-1, s-1] + e^a[t-1, s-2]) + p[t, l'_s], with blanks between
              labels; the state two places back counts where it is another label. States stay in registers,
              and are handed to their neighbours once a step; the scores of the step after are on their way
              meanwhile. The same walk over time and states turned round gives b, for the gradient: both are
              programs of one launch, so that the gradient has as many steps after one another as the loss
    shares    dp[t, c] = -dloss sum over l'_s = c of exp(a[t, s] + b[t, s] - p[t, c] + loss): a program a time
              of a sequence. States of the same label are a list, made by the walk, and added in its order

Everything is in the log domain, in the dtype of the scores, as on the CPU. Where a length or a label does not
fit, what is read stays inside of the arrays: lengths are cut to what there is, and a label that is no class
counts as a blank.

*Roof.* Latency: a step is an exchange between threads, three exponentials and a logarithm after one another,
and there are as many steps as times. Many sequences run beside each other; one alone leaves the chip idle.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .row_kernels import power


@triton.jit
def limited(x, most):
    """x within 0 .. most."""
    return tl.minimum(tl.maximum(x, 0), most)


@triton.jit
def lengths_of(steps, lengths, i, times, longest, steps_n, lengths_n):
    """(times of sequence i, labels of its target)."""
    count = limited(tl.load(steps + i * steps_n).to(tl.int64), times)
    return count, limited(tl.load(lengths + i * lengths_n).to(tl.int64), longest)


@triton.jit
def target_begin(lengths, i, lengths_n, IN_A_ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Where a target starts among those that follow one another: the lengths of all before it."""
    begin = tl.zeros([], tl.int64)
    if IN_A_ROW:
        for j0 in range(0, i, BLOCK):
            j = j0 + tl.arange(0, BLOCK).to(tl.int64)
            begin += tl.sum(tl.load(lengths + j * lengths_n, mask=j < i, other=0).to(tl.int64), 0)
    return begin


@triton.jit
def label_at(targets, i, begin, j, there, classes, blank, most, targets_n, targets_s):
    """Label number j of a target: int32; a blank where it is no class."""
    at = i * targets_n + limited(begin + j, most - 1) * targets_s
    label = tl.load(targets + at, mask=there & (most > 0), other=-1).to(tl.int64)
    return tl.where((label >= 0) & (label < classes), label, blank).to(tl.int32)


@triton.jit
def log_sum(x, y, z):
    """log(e^x + e^y + e^z), minus infinity of three of them."""
    most = tl.maximum(x, tl.maximum(y, z))
    shift = tl.where(most == float("-inf"), 0.0, most)
    return shift + tl.log(power(x - shift) + power(y - shift) + power(z - shift))


@triton.jit
def equal_labels(
    links, leads, targets, label, place, mine, i, begin, length, classes, blank, most, targets_n, targets_s
):  # fmt: skip
    """Store for each state the next one of its label, 0 for none, and whether it is the first of them."""
    following = tl.zeros(label.shape, tl.int32)
    first = mine & (place % 2 == 1) & (label != blank)
    labelled = first
    for j in range(0, length):
        other = label_at(targets, i, begin, j, length > 0, classes, blank, most, targets_n, targets_s)
        same = labelled & (label == other)
        at = tl.cast(2 * j + 1, tl.int32)
        following = tl.where(same & (at > place) & (following == 0), at, following)
        first = first & ((same == 0) | (at >= place))
    at = place.to(tl.int64)
    tl.store(links + at, following, mask=mine)
    tl.store(leads + at, first.to(tl.int32), mask=mine)


@triton.jit
def walk(
    probs, targets, steps, lengths, losses, rows, links, leads, times, n, classes, blank, most, longest, row,
    probs_t, probs_n, probs_c, targets_n, targets_s, steps_n, lengths_n, losses_n, IN_A_ROW: tl.constexpr,
    ZERO_INFINITY: tl.constexpr, KEEP: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Losses; with KEEP also all of a and b, from twice as many programs.

    Args:
        probs: [times, n, classes] by its strides; targets: [n, S], or [sum of lengths] with IN_A_ROW.
        steps, lengths: of each sequence and of its target.
        losses: [n].
        rows: scratch for KEEP: [2, n, times, row], a and then b.
        links, leads: [n, row] int32; see `equal_labels`.
        most: labels in a row of targets; longest: of a target.
        STATES: a power of two of at least `row`, the states of the longest target.
    """
    TYPE: tl.constexpr = probs.dtype.element_ty
    i = (tl.program_id(0) // 2 if KEEP else tl.program_id(0)).to(tl.int64)
    back = tl.program_id(0) % 2 == 1 if KEEP else tl.program_id(0) < 0
    count, length = lengths_of(steps, lengths, i, times, longest, steps_n, lengths_n)
    states = (2 * length + 1).to(tl.int32)
    begin = target_begin(lengths, i, lengths_n, IN_A_ROW, BLOCK)
    s = tl.arange(0, STATES)
    mine = s < states
    place = tl.where(back, states - 1 - s, s)
    labelled = mine & (place % 2 == 1)
    label = label_at(targets, i, begin, place // 2, labelled, classes, blank, most, targets_n, targets_s)
    label = tl.where(labelled, label, blank).to(tl.int32)
    one_back, two_back = tl.maximum(s - 1, 0), tl.maximum(s - 2, 0)
    other = tl.gather(label, two_back, 0)
    # Of two labels with a blank between, the later one in time may follow the earlier one directly.
    later = tl.where(back, other, label)
    skips = (s >= 2) & mine & (label != other) & (later != blank)
    if KEEP:
        if tl.program_id(0) % 2 == 0:
            equal_labels(
                links + i * row, leads + i * row, targets, label, place, mine, i, begin, length, classes,
                blank, most, targets_n, targets_s,
            )  # fmt: skip
        at_rows = rows + (tl.program_id(0) % 2 * n + i) * times * row + place.to(tl.int64)
    low = float("-inf")
    scores = probs + i * probs_n + label.to(tl.int64) * probs_c
    t = tl.where(back, count - 1, 0)
    turn = tl.where(back, -1, 1).to(tl.int64)
    value = tl.load(scores + t * probs_t, mask=mine & (count > 0), other=low)
    a = tl.where(s < 2, value, tl.full([STATES], low, TYPE))
    value = tl.load(scores + (t + turn) * probs_t, mask=mine & (count > 1), other=low)
    if KEEP:
        tl.store(at_rows + t * row, a, mask=mine & (count > 0))
    for step in range(1, count):
        t += turn
        score = value
        value = tl.load(scores + (t + turn) * probs_t, mask=mine & (step + 1 < count), other=low)
        near = tl.where(s >= 1, tl.gather(a, one_back, 0), low)
        far = tl.where(skips, tl.gather(a, two_back, 0), low)
        a = tl.where(mine, log_sum(a, near, far) + score, low)
        if KEEP:
            tl.store(at_rows + t * row, a, mask=mine)
    last = tl.sum(tl.where(s == states - 1, a, 0.0), 0)
    before = tl.where(states > 1, tl.sum(tl.where(s == states - 2, a, 0.0), 0), low)
    loss = -log_sum(last, before, tl.full([], low, TYPE))
    none = tl.where(length > 0, float("inf"), 0.0).to(TYPE)  # without a time only an empty target is possible
    loss = tl.where(count > 0, loss, none)
    if ZERO_INFINITY:
        loss = tl.where(loss == float("inf"), 0.0, loss)
    # The same walk backwards has the same loss, but for rounding.
    tl.store(losses + i * losses_n, loss, mask=(back == 0))


@triton.jit
def shares(
    dloss, probs, targets, steps, lengths, out, losses, rows, links, leads, times, n, classes, blank, most,
    longest, row, dloss_n, probs_t, probs_n, probs_c, out_t, out_n, out_c, targets_n, targets_s, steps_n,
    lengths_n, IN_A_ROW: tl.constexpr, ZERO_INFINITY: tl.constexpr, STATES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of log_probs at one time of one sequence; the arguments are those of `walk`."""
    TYPE: tl.constexpr = probs.dtype.element_ty
    i = (tl.program_id(0) // times).to(tl.int64)
    t = (tl.program_id(0) % times).to(tl.int64)
    count, length = lengths_of(steps, lengths, i, times, longest, steps_n, lengths_n)
    states = 2 * length + 1
    loss = tl.load(losses + i)
    to = out + i * out_n + t * out_t
    impossible = (loss == float("inf")) & (t < count)
    fill = tl.zeros([], TYPE)
    if not ZERO_INFINITY:
        fill = tl.where(impossible, tl.full([], float("nan"), TYPE), fill)
    for c0 in range(0, classes, BLOCK):
        c = c0 + tl.arange(0, BLOCK).to(tl.int64)
        tl.store(to + c * out_c, tl.zeros([BLOCK], TYPE) + fill, mask=c < classes)
    if (t < count) & (impossible == 0):
        begin = target_begin(lengths, i, lengths_n, IN_A_ROW, BLOCK)
        s = tl.arange(0, STATES).to(tl.int64)
        mine = s < states
        labelled = mine & (s % 2 == 1)
        label = label_at(targets, i, begin, s // 2, labelled, classes, blank, most, targets_n, targets_s)
        label = tl.where(labelled, label, blank)
        label = label.to(tl.int64)
        score = tl.load(probs + i * probs_n + t * probs_t + label * probs_c, mask=mine, other=0.0)
        at = (i * times + t) * row + s
        a = tl.load(rows + at, mask=mine, other=0.0)
        b = tl.load(rows + (at + tl.cast(n, tl.int64) * times * row), mask=mine, other=0.0)
        share = power(a + b - score + loss)
        # A score of minus infinity: nothing goes through, and no gradient comes back.
        share = tl.where(mine & (score != float("-inf")), share, 0.0)
        links_here = tl.load(links + i * row + s, mask=mine, other=0)
        leads_here = tl.load(leads + i * row + s, mask=mine, other=0) != 0
        total, following = share, links_here
        more = tl.max(following, 0)
        while more > 0:
            total += tl.where(following > 0, tl.gather(share, following, 0), 0.0)
            following = tl.where(following > 0, tl.gather(links_here, following, 0), 0)
            more = tl.max(following, 0)
        blanks = tl.sum(tl.where(mine & (label == blank), share, 0.0), 0)
        total = tl.where(s == 0, blanks, total)
        slope = tl.load(dloss + i * dloss_n)
        # What was filled in above was by other threads.
        tl.debug_barrier()
        tl.store(to + label * out_c, -slope * total, mask=leads_here | (s == 0))
