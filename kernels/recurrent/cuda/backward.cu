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
  float* bias_sums;  // [tile][SUMS][hidden]
  i64 steps, batch, heads, units, k, unit_blocks, tiles, first_team, shared_blocks, reverse, apart;
  i64 w_head, w_row, shown_t, shown_b, lengths_step, resets_t, resets_b, dx_t, dx_b, dh_t, dh_b;
  i64 gates_t, gates_b, gates_u, cells_t, cells_b, cells_u, y_t, y_b, y_u, h0_b, h0_u, c0_b, c0_u;
  i64 dy_t, dy_b, dy_u, dhn_b, dhn_u, dcn_b, dcn_u, dh0_b, dh0_u, dc0_b, dc0_u;
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

template <class Kind>
struct Back {
  int unit, row, length;
  bool there, reset;  // reset: at the step that `kept` is of
  float dc, carried, dy, kept[Kind::KEPT], sums[Kind::SUMS];
};

// What the step s of a unit needs of the forward pass; step 0 has the first states before it.
template <class T, class Kind>
KW_DEVICE void read_kept(Back<Kind>& me, const Backward& g, i64 s, i64 unit) {
  me.reset = false;
  if (!me.there || s < 0 || s >= me.length) return;
  const i64 hidden = g.heads * g.units, time = time_of(g, me.length, s), before = g.reverse ? time + 1 : time - 1;
  me.reset = reset_at(g, me.row, time);
  me.dy = g.dy ? to_float(static_cast<const T*>(g.dy)[time * g.dy_t + me.row * g.dy_b + unit * g.dy_u]) : 0.f;
  const T* y = static_cast<const T*>(g.y) + me.row * g.y_b + unit * g.y_u;
  if (Kind::GATES == 1) {
    me.kept[0] = to_float(y[time * g.y_t]);
    return;
  }
  const T* gates = static_cast<const T*>(g.gates) + time * g.gates_t + me.row * g.gates_b + unit * g.gates_u;
#pragma unroll
  for (int gate = 0; gate < 4; gate++) me.kept[gate % Kind::KEPT] = to_float(gates[gate * hidden * g.gates_u]);
  float old = 0;
  if (Kind::CELLS) {
    const T* cells = static_cast<const T*>(g.cells) + me.row * g.cells_b + unit * g.cells_u;
    me.kept[4 % Kind::KEPT] = to_float(cells[time * g.cells_t]);
    if (s)
      old = to_float(cells[before * g.cells_t]);
    else if (g.c0)
      old = to_float(static_cast<const T*>(g.c0)[me.row * g.c0_b + unit * g.c0_u]);
  } else if (s) {
    old = to_float(y[before * g.y_t]);
  } else if (g.h0) {
    old = to_float(static_cast<const T*>(g.h0)[me.row * g.h0_b + unit * g.h0_u]);
  }
  me.kept[Kind::KEPT - 1] = me.reset ? 0.f : old;
}

// The sums of the tile's sequences for each bias, in the order of the sequences.
template <class Kind, class Product, int EACH>
KW_DEVICE void write_bias_sums(const Backward& g, const Share& share, const Back<Kind> (&all)[EACH], float* memory) {
  constexpr int NT = Product::NT, BT = 8 * NT, UNITS = 8 * Product::UG, THREADS = 32 * Product::WARPS;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int p = threadIdx.x + i * THREADS;
    Pair<NT> pair(p);
    if (p >= Product::PAIRS) continue;
#pragma unroll
    for (int gate = 0; gate < Kind::SUMS; gate++)
      memory[(gate * UNITS + pair.unit) * BT + pair.row] = all[i].there ? all[i].sums[gate] : 0.f;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < Kind::SUMS * UNITS; i += THREADS) {
    float sum = 0;
    for (int row = 0; row < BT; row++) sum += memory[i * BT + row];
    int unit = share.first_unit + i % UNITS;
    if (unit < g.units)
      g.bias_sums[(i64(share.tile) * Kind::SUMS + i / UNITS) * g.heads * g.units + share.head * g.units + unit] = sum;
  }
}

template <class T, class Kind, class Product>
KW_DEVICE void recurrent_backward(const Backward& g, unsigned char* shared) {
  constexpr int GATES = Kind::GATES, NT = Product::NT, BT = 8 * NT, PAIRS = Product::PAIRS;
  constexpr int WARPS = Product::WARPS, THREADS = 32 * WARPS, EACH = (PAIRS + THREADS - 1) / THREADS;
  Rows<BT>& rows = *reinterpret_cast<Rows<BT>*>(shared);
  float* parts = reinterpret_cast<float*>(shared + sizeof(Rows<BT>));
  unsigned char* rest = shared + sizeof(Rows<BT>) + 2 * WARPS * PAIRS * sizeof(float);
  const Share share = share_of(g, 8 * Product::UG);
  find_rows<BT, THREADS>(rows, g, share.tile);
  const Product product(g, share, rest);
  const i64 hidden = g.heads * g.units, head_unit = share.head * g.units;
  const int thread = threadIdx.x;
  T* shown = static_cast<T*>(g.shown) + share.head * g.k;

  Back<Kind> all[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    Back<Kind>& me = all[i];
    int p = thread + i * THREADS;
    Pair<NT> pair(p < PAIRS ? p : 0);
    me.unit = share.first_unit + pair.unit;
    me.row = rows.row[pair.row];
    me.length = rows.length[pair.row];
    me.there = p < PAIRS && me.unit < g.units && me.row >= 0;
    me.dc = me.carried = me.dy = 0;
    i64 unit = head_unit + me.unit;
    if (me.there && g.dh_n) me.carried = to_float(static_cast<const T*>(g.dh_n)[me.row * g.dhn_b + unit * g.dhn_u]);
    if (Kind::CELLS && me.there && g.dc_n)
      me.dc = to_float(static_cast<const T*>(g.dc_n)[me.row * g.dcn_b + unit * g.dcn_u]);
#pragma unroll
    for (int j = 0; j < Kind::SUMS; j++) me.sums[j] = 0;
#pragma unroll
    for (int j = 0; j < Kind::KEPT; j++) me.kept[j] = 0;
    read_kept<T>(me, g, g.steps - 1, unit);
  }

  int after = 0;  // sequences that have a step s + 1
#pragma unroll 1
  for (i64 s = g.steps - 1; s >= -1; s--) {
    const int turn = int((s + 1) % 2);
    while (after < BT && rows.length[after] > s + 1) after++;
    Back<Kind> step[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      step[i] = all[i];
      read_kept<T>(all[i], g, s - 1, head_unit + all[i].unit);
    }
    bool reset = false;
    if (thread < BT && s >= 0 && s < rows.length[thread])
      reset = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], s));
    float* mine = parts + turn * (WARPS * PAIRS);
    if (after) {
      product.run(mine, after, [&](int i) -> const T* {
        if (i >= after || rows.skip[turn][i]) return nullptr;
        return shown + time_of(g, rows.length[i], s + 1) * g.shown_t + rows.row[i] * g.shown_b;
      });
    }
    if (thread < BT) rows.skip[turn ^ 1][thread] = reset;
    __syncthreads();
    float d[EACH][Kind::SUMS];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int p = thread + i * THREADS;
      if (p >= PAIRS) continue;  // the same for a whole warp
      Back<Kind>& me = all[i];
      const bool alive = me.there && s < me.length;
      float dh = me.carried;
      if (alive && s + 1 < me.length) {
        float sum[1];
        add_parts<WARPS, PAIRS, 1>(sum, mine, p);
        dh += sum[0];
      }
      if (s < 0) {
        if (!me.there) continue;  // nothing is shown any more
        i64 unit = head_unit + me.unit;
        round_to(static_cast<T*>(g.dh0)[me.row * g.dh0_b + unit * g.dh0_u], dh);
        if (Kind::CELLS) round_to(static_cast<T*>(g.dc0)[me.row * g.dc0_b + unit * g.dc0_u], me.dc);
        continue;
      }
#pragma unroll
      for (int gate = 0; gate < Kind::SUMS; gate++) d[i][gate] = 0;
      if (alive) {
        Kind::back(dh + step[i].dy, step[i].kept, me.dc, me.carried, d[i]);
        if (step[i].reset) me.dc = me.carried = 0;
#pragma unroll
        for (int gate = 0; gate < Kind::SUMS; gate++) me.sums[gate] += d[i][gate];
      }
      T* to = shown + (alive ? time_of(g, me.length, s) : s) * g.shown_t + me.row * g.shown_b + me.unit;
#pragma unroll
      for (int gate = 0; gate < GATES; gate++) {
        float seen = d[i][gate == 2 && Kind::SUMS > GATES ? 3 : gate];
        show_unit<T>(to + gate * g.apart, shown_bits<T>(seen), me.unit, me.there, alive);
      }
    }
    if (s < 0) break;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const Back<Kind>& me = all[i];
      if (!me.there) continue;
      const i64 time = s < me.length ? time_of(g, me.length, s) : s, unit = head_unit + me.unit;
      T* dx = static_cast<T*>(g.dx_gates) + time * g.dx_t + me.row * g.dx_b + unit;
      T* dh = static_cast<T*>(g.dh_gates) + time * g.dh_t + me.row * g.dh_b + share.head * GATES * g.units + me.unit;
#pragma unroll
      for (int gate = 0; gate < GATES; gate++) {
        if (g.dx_gates) round_to(dx[gate * hidden], d[i][gate]);
        if (g.dh_gates) round_to(dh[gate * g.units], d[i][gate == 2 && Kind::SUMS > GATES ? 3 : gate]);
      }
    }
  }
  write_bias_sums<Kind, Product, EACH>(g, share, all, parts);
}
