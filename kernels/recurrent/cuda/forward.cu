// LSTM, GRU and RNN over whole sequences, all steps in one cooperative launch: see team.cuh for who does what.
//
//   pre[t, b, gate, unit] = x[t, b, gate, unit] + w_hh[gate, unit, :] . h[b, :] + bias      x: the input's product, before
//
// A thread has one unit (or a few) of one sequence, whose h and c stay in its registers as float32. What other blocks
// wait for is shown first; y, and what the gradient needs, are written after that, and the numbers of x for the
// next step are on their way since before the product. Beyond the length of a sequence its state stands still and zeros are
// written.

// Eight bytes a field, in the order that recurrent/cuda_cupy.py packs; steps are in elements.
struct Forward {
  void* shown;  // [slot][row][head][k]: the states before step `slot`
  const void *w, *x, *bias, *h0, *c0;
  const i64* lengths;
  const unsigned char* resets;
  void *y, *h_n, *c_n, *gates, *cells;
  i64 steps, batch, heads, units, k, unit_blocks, tiles, first_team, shared_blocks, reverse;
  i64 w_head, w_row, shown_t, shown_b, x_t, x_b, bias_step, h0_b, h0_u, c0_b, c0_u, lengths_step, resets_t, resets_b;
  i64 y_t, y_b, y_u, hn_b, hn_u, cn_b, cn_u, gates_t, gates_b, gates_u, cells_t, cells_b, cells_u;
};

KW_DEVICE float sigmoid(float x) { return quotient(1.f, 1.f + exp_of(-x)); }

// advance: from sums of x and of h (with its bias) to the state after the step; `saved` is what the gradient needs.
struct Lstm {
  static constexpr int GATES = 4, SAVED = 4;
  static constexpr bool CELLS = true;
  static KW_DEVICE void advance(const float (&x)[4], const float (&of_h)[4], float& h, float& c, float (&saved)[4]) {
    saved[0] = sigmoid(x[0] + of_h[0]);
    saved[1] = sigmoid(x[1] + of_h[1]);
    saved[2] = tanh_of(x[2] + of_h[2]);
    saved[3] = sigmoid(x[3] + of_h[3]);
    c = saved[1] * c + saved[0] * saved[2];
    h = saved[3] * tanh_of(c);
  }
};
struct Gru {
  static constexpr int GATES = 3, SAVED = 4;
  static constexpr bool CELLS = false;
  static KW_DEVICE void advance(const float (&x)[3], const float (&of_h)[3], float& h, float&, float (&saved)[4]) {
    saved[0] = sigmoid(x[0] + of_h[0]);
    saved[1] = sigmoid(x[1] + of_h[1]);
    saved[2] = tanh_of(x[2] + saved[0] * of_h[2]);
    saved[3] = of_h[2];
    h = (1.f - saved[1]) * saved[2] + saved[1] * h;
  }
};
template <bool RELU>
struct Rnn {
  static constexpr int GATES = 1, SAVED = 1;
  static constexpr bool CELLS = false;
  static KW_DEVICE void advance(const float (&x)[1], const float (&of_h)[1], float& h, float&, float (&)[1]) {
    float pre = x[0] + of_h[0];
    h = !RELU ? tanh_of(pre) : pre < 0.f ? 0.f : pre;  // NaN stays
  }
};

// A unit of a sequence, in the thread that has it.
template <class Kind>
struct State {
  int unit, row, length;  // unit of the head; the sequence, -1 for none
  bool there;
  float h, c, bias[Kind::GATES], x[Kind::GATES];
};

template <class T, class Kind, class Product, bool TRAIN>
KW_DEVICE void recurrent_forward(const Forward& g, unsigned char* shared) {
  constexpr int GATES = Kind::GATES, NT = Product::NT, BT = 8 * NT, PAIRS = Product::PAIRS;
  constexpr int WARPS = Product::WARPS, THREADS = 32 * WARPS, EACH = (PAIRS + THREADS - 1) / THREADS;
  Rows<BT>& rows = *reinterpret_cast<Rows<BT>*>(shared);
  float* parts = reinterpret_cast<float*>(shared + sizeof(Rows<BT>));
  unsigned char* rest = shared + sizeof(Rows<BT>) + 2 * WARPS * PAIRS * GATES * sizeof(float);
  const Share share = share_of(g, 8 * Product::UG);
  find_rows<BT, THREADS>(rows, g, share.tile);
  const Product product(g, share, rest);
  const i64 hidden = g.heads * g.units, head_unit = share.head * g.units;
  const int thread = threadIdx.x;
  const T* x = static_cast<const T*>(g.x);
  T* shown = static_cast<T*>(g.shown) + share.head * g.k;

  State<Kind> states[EACH];
  auto read_x = [&](State<Kind>& me, i64 s) {
#pragma unroll
    for (int gate = 0; gate < GATES; gate++) {
      me.x[gate] = 0;
      if (me.there && s < me.length)
        me.x[gate] = to_float(x[time_of(g, me.length, s) * g.x_t + me.row * g.x_b + gate * hidden + head_unit + me.unit]);
    }
  };
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    State<Kind>& me = states[i];
    int p = thread + i * THREADS;
    Pair<NT> pair(p < PAIRS ? p : 0);
    me.unit = share.first_unit + pair.unit;
    me.row = rows.row[pair.row];
    me.length = rows.length[pair.row];
    me.there = p < PAIRS && me.unit < g.units && me.row >= 0;
    me.h = me.c = 0;
    i64 unit = head_unit + me.unit;
    if (me.there && g.h0) me.h = to_float(static_cast<const T*>(g.h0)[me.row * g.h0_b + unit * g.h0_u]);
    if (Kind::CELLS && me.there && g.c0) me.c = to_float(static_cast<const T*>(g.c0)[me.row * g.c0_b + unit * g.c0_u]);
#pragma unroll
    for (int gate = 0; gate < GATES; gate++)
      me.bias[gate] =
          me.there && g.bias ? to_float(static_cast<const T*>(g.bias)[(gate * hidden + unit) * g.bias_step]) : 0.f;
    read_x(me, 0);
  }
  if (thread < BT && rows.length[thread])
    rows.skip[0][thread] = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], 0));
  __syncthreads();

  int now = BT;
#pragma unroll 1
  for (i64 s = 0; s < g.steps; s++) {
    const int turn = int(s % 2);
    while (now && rows.length[now - 1] <= s) now--;
    float of_x[EACH][GATES];
    bool fresh[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
      for (int gate = 0; gate < GATES; gate++) of_x[i][gate] = states[i].x[gate];
      int p = thread + i * THREADS;
      fresh[i] = p < PAIRS && rows.skip[turn][Pair<NT>(p < PAIRS ? p : 0).row];
      read_x(states[i], s + 1);
    }
    float* mine = parts + turn * (WARPS * PAIRS * GATES);
    if (now) {
      bool reset = false;
      if (thread < BT && s + 1 < rows.length[thread])
        reset = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], s + 1));
      product.run(mine, now, [&](int i) -> const T* {
        return i < now && !rows.skip[turn][i] ? shown + s * g.shown_t + rows.row[i] * g.shown_b : nullptr;
      });
      if (thread < BT) rows.skip[turn ^ 1][thread] = reset;
      __syncthreads();
    }
    float saved[EACH][Kind::SAVED];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      State<Kind>& me = states[i];
      int p = thread + i * THREADS;
      if (p < PAIRS) {  // the same for a whole warp
        if (me.there && s < me.length) {
          float of_h[GATES];
          add_parts<WARPS, PAIRS, GATES>(of_h, mine, p);
#pragma unroll
          for (int gate = 0; gate < GATES; gate++) of_h[gate] += me.bias[gate];
          if (fresh[i]) me.h = me.c = 0;
          Kind::advance(of_x[i], of_h, me.h, me.c, saved[i]);
        }
        T* to = shown + (s + 1) * g.shown_t + me.row * g.shown_b + me.unit;
        show_unit<T>(to, shown_bits<T>(me.h), me.unit, me.there, s + 1 < me.length);
      }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const State<Kind>& me = states[i];
      if (!me.there) continue;
      const bool alive = s < me.length;
      const i64 time = alive ? time_of(g, me.length, s) : s, unit = head_unit + me.unit;
      round_to(static_cast<T*>(g.y)[time * g.y_t + me.row * g.y_b + unit * g.y_u], alive ? me.h : 0.f);
      if (TRAIN) {
#pragma unroll
        for (int gate = 0; gate < Kind::SAVED; gate++)
          round_to(static_cast<T*>(g.gates)[time * g.gates_t + me.row * g.gates_b + (gate * hidden + unit) * g.gates_u],
                   alive ? saved[i][gate] : 0.f);
        if (Kind::CELLS)
          round_to(static_cast<T*>(g.cells)[time * g.cells_t + me.row * g.cells_b + unit * g.cells_u],
                   alive ? me.c : 0.f);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const State<Kind>& me = states[i];
    if (!me.there) continue;
    const i64 unit = head_unit + me.unit;
    round_to(static_cast<T*>(g.h_n)[me.row * g.hn_b + unit * g.hn_u], me.h);
    if (Kind::CELLS) round_to(static_cast<T*>(g.c_n)[me.row * g.cn_b + unit * g.cn_u], me.c);
  }
}
