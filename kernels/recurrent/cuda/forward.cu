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
  i64 steps, batch, heads, units, k, unit_blocks, tiles, groups, turns, first_team, shared_blocks, reverse;
  i64 w_head, w_row, shown_t, shown_b, x_t, x_b, bias_step, h0_b, h0_u, c0_b, c0_u, lengths_step, resets_t, resets_b;
  i64 y_t, y_b, y_u, hn_b, hn_u, cn_b, cn_u, gates_t, gates_b, gates_u, cells_t, cells_b, cells_u;
  i64 hidden, gates_gate;  // heads x units; from gate to gate of `gates`
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

// A unit of a sequence, in the thread that has it; where its numbers lie, at the present step (x: at the next one).
template <class T, class Kind>
struct State {
  int unit, length;  // unit of the head; how many steps, 0 beyond the units or the batch
  float h, c, bias[Kind::GATES];
  T of_x[Kind::GATES];  // as it was read: a conversion would wait for it
  const T* x;
  T *shown, *y, *gates, *cells;

  // Of step s, and on to the next.
  KW_DEVICE void read_x(const Forward& g, int s) {
    if (s < length) {
#pragma unroll
      for (int gate = 0; gate < Kind::GATES; gate++) of_x[gate] = x[gate * g.hidden];
    }
    x += g.reverse ? -g.x_t : g.x_t;
  }
};

template <class T, class Kind>
KW_DEVICE void start(State<T, Kind>& me, const Forward& g, int head, int unit, int row) {
  const bool there = unit < g.units && row >= 0;
  const i64 at = head * g.units + unit;
  me.h = me.c = 0;
  if (there && g.h0) me.h = to_float(static_cast<const T*>(g.h0)[row * g.h0_b + at * g.h0_u]);
  if (Kind::CELLS && there && g.c0) me.c = to_float(static_cast<const T*>(g.c0)[row * g.c0_b + at * g.c0_u]);
#pragma unroll
  for (int gate = 0; gate < Kind::GATES; gate++) {
    me.bias[gate] = 0;
    if (unit < g.units && g.bias)
      me.bias[gate] = to_float(static_cast<const T*>(g.bias)[(gate * g.hidden + at) * g.bias_step]);
    round_to(me.of_x[gate], 0.f);
  }
}

// Where the numbers of step s lie; those of x are asked for.
template <bool TRAIN, class T, class Kind>
KW_DEVICE void place(State<T, Kind>& me, const Forward& g, int head, int unit, int row, int length, int s) {
  const i64 at = head * g.units + unit, time = time_of(g, length, s);
  me.unit = unit;
  me.length = unit < g.units && row >= 0 ? length : 0;
  me.x = static_cast<const T*>(g.x) + time * g.x_t + row * g.x_b + at;
  me.shown = static_cast<T*>(g.shown) + (s + 1) * g.shown_t + row * g.shown_b + head * g.k + unit;
  me.y = static_cast<T*>(g.y) + time * g.y_t + row * g.y_b + at * g.y_u;
  if (TRAIN) me.gates = static_cast<T*>(g.gates) + time * g.gates_t + row * g.gates_b + at * g.gates_u;
  if (TRAIN && Kind::CELLS) me.cells = static_cast<T*>(g.cells) + time * g.cells_t + row * g.cells_b + at * g.cells_u;
  me.read_x(g, s);
}

// y and what the gradient needs of the present step; then on to the next.
template <bool TRAIN, class T, class Kind>
KW_DEVICE void write_step(State<T, Kind>& me, const Forward& g, const float (&saved)[Kind::SAVED]) {
  round_to(*me.y, me.h);
  me.y += g.reverse ? -g.y_t : g.y_t;
  if (TRAIN) {
#pragma unroll
    for (int gate = 0; gate < Kind::SAVED; gate++) round_to(me.gates[gate * g.gates_gate], saved[gate]);
    me.gates += g.reverse ? -g.gates_t : g.gates_t;
    if (Kind::CELLS) {
      round_to(*me.cells, me.c);
      me.cells += g.reverse ? -g.cells_t : g.cells_t;
    }
  }
}

// The last states, and zeros beyond the length.
template <bool TRAIN, class T, class Kind>
KW_DEVICE void end(const State<T, Kind>& me, const Forward& g, int head, int row) {
  if (me.unit >= g.units || row < 0) return;
  const i64 at = head * g.units + me.unit;
  round_to(static_cast<T*>(g.h_n)[row * g.hn_b + at * g.hn_u], me.h);
  if (Kind::CELLS) round_to(static_cast<T*>(g.c_n)[row * g.cn_b + at * g.cn_u], me.c);
  for (i64 t = me.length; t < g.steps; t++) {
    round_to(static_cast<T*>(g.y)[t * g.y_t + row * g.y_b + at * g.y_u], 0.f);
    if (TRAIN) {
      T* gates = static_cast<T*>(g.gates) + t * g.gates_t + row * g.gates_b + at * g.gates_u;
      for (int gate = 0; gate < Kind::SAVED; gate++) round_to(gates[gate * g.gates_gate], 0.f);
      if (Kind::CELLS) round_to(static_cast<T*>(g.cells)[t * g.cells_t + row * g.cells_b + at * g.cells_u], 0.f);
    }
  }
}

template <class T, class Kind, class Product, bool MANY, bool TRAIN>
KW_DEVICE void recurrent_forward(const Forward& g, unsigned char* shared) {
  constexpr int GATES = Kind::GATES, NT = Product::NT, BT = 8 * NT, PAIRS = Product::PAIRS;
  constexpr int WARPS = Product::WARPS, THREADS = 32 * WARPS, EACH = (PAIRS + THREADS - 1) / THREADS;
  typedef Pack<float, 2> Kept;  // h and c of a tile whose turn it is not
  const Share share = share_of(g, 8 * Product::UG);
  Rows<BT>* const tiles = reinterpret_cast<Rows<BT>*>(shared);
  Kept* const kept = reinterpret_cast<Kept*>(shared + g.turns * sizeof(Rows<BT>)) + threadIdx.x;
  float* const parts = reinterpret_cast<float*>(shared + g.turns * (sizeof(Rows<BT>) + (MANY ? EACH * THREADS * sizeof(Kept) : 0)));
  const Product product(g, share, reinterpret_cast<unsigned char*>(parts + 2 * WARPS * PAIRS * GATES));
  const int thread = threadIdx.x;
  State<T, Kind> states[EACH];
  for (int tile = 0; tile < share.tiles; tile++) {
    Rows<BT>& rows = tiles[tile];
    find_rows<BT, THREADS>(rows, g, share.first_tile + tile);
    if (thread < BT) {
      rows.origin[thread] = rows.row[thread] * g.shown_b;
      if (rows.length[thread])
        rows.skip[0][thread] = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], 0));
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int p = thread + i * THREADS;
      Pair<NT> pair(p < PAIRS ? p : 0);
      int row = p < PAIRS ? rows.row[pair.row] : -1, unit = share.first_unit + pair.unit;
      start(states[i], g, share.head, unit, row);
      if (MANY)
        kept[(tile * EACH + i) * THREADS] = {states[i].h, states[i].c};
      else
        place<TRAIN>(states[i], g, share.head, unit, row, rows.length[pair.row], 0);
    }
  }

  int now = BT, side = 0;  // sequences that are going on; which of the two sets of parts
  const T* shown = static_cast<const T*>(g.shown) + share.head * g.k;
#pragma unroll 1
  for (int s = 0; s < g.steps; s++, shown += g.shown_t) {
    const int turn = s % 2;
#pragma unroll 1
    for (int tile = 0; tile < (MANY ? share.tiles : 1); tile++) {
      Rows<BT>& rows = tiles[MANY ? tile : 0];
      if (MANY) now = BT;
      while (now && rows.length[now - 1] <= s) now--;
      if (!now) continue;
      T of_x[EACH][GATES];
      bool fresh[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        State<T, Kind>& me = states[i];
        int p = thread + i * THREADS;
        Pair<NT> pair(p < PAIRS ? p : 0);
        if (MANY) {
          int row = p < PAIRS ? rows.row[pair.row] : -1;
          place<TRAIN>(me, g, share.head, share.first_unit + pair.unit, row, rows.length[pair.row], s);
          me.h = kept[(tile * EACH + i) * THREADS].e[0];
          me.c = kept[(tile * EACH + i) * THREADS].e[1];
        }
        fresh[i] = g.resets && p < PAIRS && rows.skip[turn][pair.row];
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) of_x[i][gate] = me.of_x[gate];
        if (!MANY) me.read_x(g, s + 1);
      }
      u32 reset = 0;
      if (g.resets && thread < BT && s + 1 < rows.length[thread])
        reset = reset_at(g, rows.row[thread], time_of(g, rows.length[thread], s + 1));
      float* mine = parts + side * (WARPS * PAIRS * GATES);
      product.run(mine, now, [&](int i) -> const T* {
        return i < now && !(g.resets && rows.skip[turn][i]) ? shown + rows.origin[i] : nullptr;
      });
      if (g.resets && thread < BT) rows.skip[turn ^ 1][thread] = reset;
      side ^= 1;
      __syncthreads();
      float saved[EACH][Kind::SAVED];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        State<T, Kind>& me = states[i];
        int p = thread + i * THREADS;
        if (p >= PAIRS) continue;  // the same for a whole warp
        float of_h[GATES], x[GATES];
        add_parts<WARPS, PAIRS, GATES>(of_h, mine, p);
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          of_h[gate] += me.bias[gate];
          x[gate] = to_float(of_x[i][gate]);
        }
        const bool going = s < me.length;
        if (going) {
          if (fresh[i]) me.h = me.c = 0;
          Kind::advance(x, of_h, me.h, me.c, saved[i]);
        }
        show_unit<T>(me.shown, shown_bits<T>(me.h), me.unit, going, s + 1 < me.length);
        me.shown += g.shown_t;
        if (MANY) kept[(tile * EACH + i) * THREADS] = {me.h, me.c};
      }
#pragma unroll
      for (int i = 0; i < EACH; i++)
        if (s < states[i].length) write_step<TRAIN>(states[i], g, saved[i]);
    }
    if (!MANY && !now) break;
  }
  for (int tile = 0; tile < share.tiles; tile++) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      State<T, Kind>& me = states[i];
      int p = thread + i * THREADS;
      if (p >= PAIRS) continue;
      Pair<NT> pair(p);
      if (MANY) {
        me.unit = share.first_unit + pair.unit;
        me.length = tiles[tile].length[pair.row];
        me.h = kept[(tile * EACH + i) * THREADS].e[0];
        me.c = kept[(tile * EACH + i) * THREADS].e[1];
      }
      end<TRAIN>(me, g, share.head, tiles[tile].row[pair.row]);
    }
  }
}
