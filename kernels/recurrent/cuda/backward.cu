// The gradients of LSTM, GRU and RNN through all steps, the last one first, in one cooperative launch: see team.cuh.
//
//   dh[b, unit] = dy[t, b, unit] + w_hh[:, unit] . d[t + 1, b, :]        d: [gates x units], the gradients of the gates
//
// What blocks show each other is d of a step, at the place of its time: when the launch ends, all of it lies there, and the
// gradients of x and of the weights are products over it. Weights are w_hh turned, so that k runs over gates and units.
// A thread has dh and dc of its units in registers, and adds up the gradients of their biases. Where a sequence was
// reset, nothing passes to the step before.

struct Backward {
  void* shown;  // [t][b][head][k]: gate x (units, rounded up to a whole word) + unit
  const void *w, *gates, *cells, *y, *h0, *c0, *dy, *dh_n, *dc_n;
  const i64* lengths;
  const unsigned char* resets;
  void *dx_gates, *dh_gates;  // d as x sees it [t, b, gates x hidden], as h sees it [t, b, head, gates x units]; or null
  void *dh0, *dc0;
  float* bias_sums;  // [group][SUMS][hidden]
  i64 steps, batch, heads, units, k, unit_blocks, tiles, groups, turns, first_team, shared_blocks, reverse, apart;
  i64 w_head, w_row, shown_t, shown_b, lengths_step, resets_t, resets_b, dx_t, dx_b, dh_t, dh_b;
  i64 gates_t, gates_b, gates_u, cells_t, cells_b, cells_u, y_t, y_b, y_u, h0_b, h0_u, c0_b, c0_u;
  i64 dy_t, dy_b, dy_u, dhn_b, dhn_u, dcn_b, dcn_u, dh0_b, dh0_u, dc0_b, dc0_u;
  i64 hidden, gates_gate;  // heads x units; from gate to gate of `gates`
};

KW_DEVICE float slope(float x) { return x * (1.f - x); }
KW_DEVICE float one_minus_square(float x) { return (1.f - x) * (1.f + x); }

// back: from dh (that of y included), dc and what the forward pass saved to the gradients of the gates, and to what
// goes on to the step before without a product. d[SUMS - 1] of GRU is the candidate's as h sees it.
// `kept`: the gates, then c and c before (LSTM), or h before (GRU); RNN: h.
struct LstmBack {
  static constexpr int GATES = 4, SUMS = 4, KEPT = 6;
  static constexpr bool CELLS = true;
  static KW_DEVICE void back(float dh, const float (&kept)[6], float& dc, float& carried, float (&d)[4]) {
    float t = tanh_of(kept[4]);
    float d_cell = dc + dh * kept[3] * one_minus_square(t);
    d[0] = d_cell * kept[2] * slope(kept[0]);
    d[1] = d_cell * kept[5] * slope(kept[1]);
    d[2] = d_cell * kept[0] * one_minus_square(kept[2]);
    d[3] = dh * t * slope(kept[3]);
    dc = d_cell * kept[1];
    carried = 0;
  }
};
struct GruBack {
  static constexpr int GATES = 3, SUMS = 4, KEPT = 5;
  static constexpr bool CELLS = false;
  static KW_DEVICE void back(float dh, const float (&kept)[5], float&, float& carried, float (&d)[4]) {
    float r = kept[0], z = kept[1], n = kept[2];
    d[1] = dh * (kept[4] - n) * slope(z);
    d[2] = dh * (1.f - z) * one_minus_square(n);
    d[0] = d[2] * kept[3] * slope(r);
    d[3] = d[2] * r;
    carried = dh * z;
  }
};
template <bool RELU>
struct RnnBack {
  static constexpr int GATES = 1, SUMS = 1, KEPT = 1;
  static constexpr bool CELLS = false;
  static KW_DEVICE void back(float dh, const float (&kept)[1], float&, float& carried, float (&d)[1]) {
    d[0] = RELU ? (kept[0] > 0.f ? dh : 0.f) : dh * one_minus_square(kept[0]);
    carried = 0;
  }
};

// A unit of a sequence, in the thread that has it; where its numbers lie: of the forward pass, of the step that is read
// next; d, of the present step.
template <class T, class Kind>
struct Back {
  int unit, length;  // unit of the head; how many steps, 0 beyond the units or the batch
  float dc, carried, sums[Kind::SUMS];
  T of_y, kept[Kind::KEPT];  // as they were read: a conversion would wait for them
  const T *gates, *cells, *y, *dy;
  T *shown, *dx, *dh;
};

template <class T, class Kind>
KW_DEVICE void start(Back<T, Kind>& me, const Backward& g, int head, int unit, int row) {
  const bool there = unit < g.units && row >= 0;
  const i64 at = head * g.units + unit;
  me.dc = me.carried = 0;
  if (there && g.dh_n) me.carried = to_float(static_cast<const T*>(g.dh_n)[row * g.dhn_b + at * g.dhn_u]);
  if (Kind::CELLS && there && g.dc_n) me.dc = to_float(static_cast<const T*>(g.dc_n)[row * g.dcn_b + at * g.dcn_u]);
}

// Where the numbers of step s lie.
template <bool APART, class T, class Kind>
KW_DEVICE void place(Back<T, Kind>& me, const Backward& g, int head, int unit, int row, int length, int s) {
  const i64 at = head * g.units + unit, time = time_of(g, length, s);
  me.unit = unit;
  me.length = unit < g.units && row >= 0 ? length : 0;
  if (Kind::GATES > 1) me.gates = static_cast<const T*>(g.gates) + time * g.gates_t + row * g.gates_b + at * g.gates_u;
  if (Kind::CELLS) me.cells = static_cast<const T*>(g.cells) + time * g.cells_t + row * g.cells_b + at * g.cells_u;
  if (!Kind::CELLS) me.y = static_cast<const T*>(g.y) + time * g.y_t + row * g.y_b + at * g.y_u;
  if (g.dy) me.dy = static_cast<const T*>(g.dy) + time * g.dy_t + row * g.dy_b + at * g.dy_u;
  me.shown = static_cast<T*>(g.shown) + time * g.shown_t + row * g.shown_b + head * g.k + unit;
  if (!APART) return;
  me.dx = static_cast<T*>(g.dx_gates) + time * g.dx_t + row * g.dx_b + at;
  me.dh = static_cast<T*>(g.dh_gates) + time * g.dh_t + row * g.dh_b + head * Kind::GATES * g.units + unit;
}

// What step s needs of the forward pass, and the gradient of its y. first(): where the state before step 0 is, or null.
template <class T, class Kind, class First>
KW_DEVICE void read_step(Back<T, Kind>& me, const Backward& g, int s, const First& first) {
  if (s < 0 || s >= me.length) return;
  const i64 on = g.reverse ? 1 : -1;
  if (g.dy) me.of_y = *me.dy;
  T old;
  round_to(old, 0.f);
  if (Kind::GATES > 1) {
#pragma unroll
    for (int gate = 0; gate < 4; gate++)
      me.kept[gate % Kind::KEPT] = me.gates[gate * g.gates_gate];
    if (s)
      old = Kind::CELLS ? me.cells[on * g.cells_t] : me.y[on * g.y_t];
    else if (const T* from = first())
      old = *from;
    me.gates += on * g.gates_t;
  }
  if (Kind::CELLS) {
    me.kept[4 % Kind::KEPT] = *me.cells;
    me.cells += on * g.cells_t;
  } else {
    if (Kind::GATES == 1) me.kept[0] = *me.y;
    me.y += on * g.y_t;
  }
  if (Kind::GATES > 1) me.kept[Kind::KEPT - 1] = old;
  if (g.dy) me.dy += on * g.dy_t;
}

// The sums of the tile's sequences for each bias, in the order of the sequences.
template <class T, class Kind, class Product, int EACH>
KW_DEVICE void write_bias_sums(const Backward& g, const Share& share, const Back<T, Kind> (&all)[EACH], float* memory) {
  constexpr int NT = Product::NT, BT = 8 * NT, UNITS = 8 * Product::UG, THREADS = 32 * Product::WARPS;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int p = threadIdx.x + i * THREADS;
    Pair<NT> pair(p);
    if (p >= Product::PAIRS) continue;
#pragma unroll
    for (int gate = 0; gate < Kind::SUMS; gate++)
      memory[(gate * UNITS + pair.unit) * BT + pair.row] = all[i].sums[gate];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < Kind::SUMS * UNITS; i += THREADS) {
    float sum = 0;
    for (int row = 0; row < BT; row++) sum += memory[i * BT + row];
    int unit = share.first_unit + i % UNITS;
    if (unit < g.units)
      g.bias_sums[(i64(share.group) * Kind::SUMS + i / UNITS) * g.hidden + share.head * g.units + unit] = sum;
  }
}

// The gradients of the first states, and zeros beyond the length.
template <bool APART, class T, class Kind>
KW_DEVICE void end(const Back<T, Kind>& me, const Backward& g, float dh, int head, int row) {
  if (me.unit >= g.units || row < 0) return;
  const i64 at = head * g.units + me.unit;
  round_to(static_cast<T*>(g.dh0)[row * g.dh0_b + at * g.dh0_u], dh);
  if (Kind::CELLS) round_to(static_cast<T*>(g.dc0)[row * g.dc0_b + at * g.dc0_u], me.dc);
  for (i64 t = me.length; APART && t < g.steps; t++)
    for (int gate = 0; gate < Kind::GATES; gate++) {
      if (g.dx_gates) round_to(static_cast<T*>(g.dx_gates)[t * g.dx_t + row * g.dx_b + gate * g.hidden + at], 0.f);
      i64 unit = (head * Kind::GATES + gate) * g.units + me.unit;
      if (g.dh_gates) round_to(static_cast<T*>(g.dh_gates)[t * g.dh_t + row * g.dh_b + unit], 0.f);
    }
}

// APART: dx_gates or dh_gates are to be written, apart from what is shown.
template <class T, class Kind, class Product, bool MANY, bool APART>
KW_DEVICE void recurrent_backward(const Backward& g, unsigned char* shared) {
  constexpr int GATES = Kind::GATES, NT = Product::NT, BT = 8 * NT, PAIRS = Product::PAIRS;
  constexpr int WARPS = Product::WARPS, THREADS = 32 * WARPS, EACH = (PAIRS + THREADS - 1) / THREADS;
  typedef Pack<float, 2> Kept;  // dc and what is carried of a tile whose turn it is not
  const Share share = share_of(g, 8 * Product::UG);
  Rows<BT>* const tiles = reinterpret_cast<Rows<BT>*>(shared);
  Kept* const kept = reinterpret_cast<Kept*>(shared + g.turns * sizeof(Rows<BT>)) + threadIdx.x;
  float* const parts = reinterpret_cast<float*>(shared + g.turns * (sizeof(Rows<BT>) + (MANY ? EACH * THREADS * sizeof(Kept) : 0)));
  const Product product(g, share, reinterpret_cast<unsigned char*>(parts + 2 * WARPS * PAIRS));
  const int thread = threadIdx.x, last = int(g.steps) - 1;
  const i64 on = g.reverse ? 1 : -1;  // from a step's time to that of the step before
  auto first_of = [&](const Rows<BT>& rows, int p) -> const T* {
    const T* from = static_cast<const T*>(Kind::CELLS ? g.c0 : g.h0);
    const Pair<NT> pair(p);
    const i64 row = rows.row[pair.row], unit = share.head * g.units + share.first_unit + pair.unit;
    return from ? from + row * (Kind::CELLS ? g.c0_b : g.h0_b) + unit * (Kind::CELLS ? g.c0_u : g.h0_u) : nullptr;
  };
  Back<T, Kind> all[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    round_to(all[i].of_y, 0.f);
#pragma unroll
    for (int j = 0; j < Kind::SUMS; j++) all[i].sums[j] = 0;
#pragma unroll
    for (int j = 0; j < Kind::KEPT; j++) round_to(all[i].kept[j], 0.f);
  }
  for (int tile = 0; tile < share.tiles; tile++) {
    Rows<BT>& rows = tiles[tile];
    find_rows<BT, THREADS>(rows, g, share.first_tile + tile);
    // Nobody looks at it before the first barrier of the steps: no sequence has a step after the last.
    if (thread < BT)
      rows.origin[thread] = rows.row[thread] * g.shown_b + time_of(g, rows.length[thread], 0) * g.shown_t;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int p = thread + i * THREADS;
      Pair<NT> pair(p < PAIRS ? p : 0);
      int row = p < PAIRS ? rows.row[pair.row] : -1, unit = share.first_unit + pair.unit;
      start(all[i], g, share.head, unit, row);
      if (MANY) {
        kept[(tile * EACH + i) * THREADS] = {all[i].dc, all[i].carried};
      } else {
        const int length = rows.length[pair.row];
        place<APART>(all[i], g, share.head, unit, row, length, length - 1);
        read_step(all[i], g, last, [&] { return first_of(rows, p); });
      }
    }
  }

  int after = 0, side = 0;  // sequences that have a step s + 1, whose numbers lie at `shown` from where those of step 0 do
  const T* shown = static_cast<const T*>(g.shown) + share.head * g.k - on * g.steps * g.shown_t;
#pragma unroll 1
  for (int s = last; s >= -1; s--, shown += on * g.shown_t) {
    const int turn = (s + 1) % 2;
#pragma unroll 1
    for (int tile = 0; tile < (MANY ? share.tiles : 1); tile++) {
      Rows<BT>& rows = tiles[MANY ? tile : 0];
      if (MANY) after = 0;
      while (after < BT && rows.length[after] > s + 1) after++;
      T was[EACH][Kind::KEPT], of_y[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        Back<T, Kind>& me = all[i];
        int p = thread + i * THREADS;
        if (MANY) {
          Pair<NT> pair(p < PAIRS ? p : 0);
          int row = p < PAIRS ? rows.row[pair.row] : -1;
          place<APART>(me, g, share.head, share.first_unit + pair.unit, row, rows.length[pair.row], s);
          me.dc = kept[(tile * EACH + i) * THREADS].e[0];
          me.carried = kept[(tile * EACH + i) * THREADS].e[1];
          read_step(me, g, s, [&] { return first_of(rows, p); });
        }
        of_y[i] = me.of_y;
#pragma unroll
        for (int j = 0; j < Kind::KEPT; j++) was[i][j] = me.kept[j];
        if (!MANY) read_step(me, g, s - 1, [&] { return first_of(rows, p); });
      }
      u32 reset = 0;
      if (g.resets && thread < BT && s >= 0 && s < rows.length[thread])
        reset = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], s));
      float* mine = parts + side * (WARPS * PAIRS);
      if (after) {
        product.run(mine, after, [&](int i) -> const T* {
          return i < after && !(g.resets && rows.skip[turn][i]) ? shown + rows.origin[i] : nullptr;
        });
      }
      if (g.resets && thread < BT) rows.skip[turn ^ 1][thread] = reset;
      side ^= 1;
      __syncthreads();
      float d[EACH][Kind::SUMS];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        const int p = thread + i * THREADS;
        if (p >= PAIRS) continue;  // the same for a whole warp
        Back<T, Kind>& me = all[i];
        const bool going = s < me.length;
        float dh = me.carried;
        if (s + 1 < me.length) {
          float sum[1];
          add_parts<WARPS, PAIRS, 1>(sum, mine, p);
          dh += sum[0];
        }
        if (s < 0) {
          end<APART>(me, g, dh, share.head, rows.row[Pair<NT>(p).row]);
          continue;
        }
#pragma unroll
        for (int gate = 0; gate < Kind::SUMS; gate++) d[i][gate] = 0;
        if (going) {
          const bool fresh = g.resets && rows.skip[turn ^ 1][Pair<NT>(p).row];
          float now[Kind::KEPT];
#pragma unroll
          for (int j = 0; j < Kind::KEPT; j++) now[j] = to_float(was[i][j]);
          if (fresh && GATES > 1) now[Kind::KEPT - 1] = 0;  // the state before
          Kind::back(dh + to_float(of_y[i]), now, me.dc, me.carried, d[i]);
          if (fresh) me.dc = me.carried = 0;
#pragma unroll
          for (int gate = 0; gate < Kind::SUMS; gate++) me.sums[gate] += d[i][gate];
        }
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          float seen = d[i][gate == 2 && Kind::SUMS > GATES ? 3 : gate];
          show_unit<T>(me.shown + gate * g.apart, shown_bits<T>(seen), me.unit, going, going);
        }
        if (going) me.shown += on * g.shown_t;
        if (MANY) kept[(tile * EACH + i) * THREADS] = {me.dc, me.carried};
      }
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        Back<T, Kind>& me = all[i];
        if (!APART || s < 0 || s >= me.length) continue;
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          if (g.dx_gates) round_to(me.dx[gate * g.hidden], d[i][gate]);
          if (g.dh_gates) round_to(me.dh[gate * g.units], d[i][gate == 2 && Kind::SUMS > GATES ? 3 : gate]);
        }
        me.dx += on * g.dx_t;
        me.dh += on * g.dh_t;
      }
    }
  }
  write_bias_sums<T, Kind, Product, EACH>(g, share, all, parts);
}
