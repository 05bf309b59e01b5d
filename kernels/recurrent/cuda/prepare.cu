// What is made before and after the steps of a recurrence: memory that the blocks show each other numbers in, weights as
// the product reads them, the states before each step, and the gradients of the biases.

struct Prepare {
  void *shown, *w_out;
  const void *w, *h0;
  // shown: [steps][batch][heads][k], of which the first `first` are h0; numbers from `used` on are never shown.
  i64 steps, batch, heads, units, k, used, first, h0_b, h0_u;
  // w_out: [heads][rows][w_k]. Turned: row u, number gate x apart + r is w[gate units + r, u]; else as in w.
  i64 rows, w_k, gates, apart, turned, w_head, w_row, w_column;
};

// 16 bytes at a time. W: of the weights, which may be narrower than T.
template <class T, class W>
KW_DEVICE void recurrent_prepare(const Prepare& g, unsigned char*) {
  constexpr int V = 16 / sizeof(T);
  const i64 threads = i64(gridDim.x) * blockDim.x, thread = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 vectors = g.k / V, row_vectors = g.heads * vectors;
  union {
    u32 words[4];
    T numbers[V];
  } made;
  for (i64 i = thread; i < g.steps * g.batch * row_vectors; i += threads) {
    i64 first = i % vectors * V, row = i / row_vectors, head = i / vectors % g.heads;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float x = -0.f;
      bool nothing = first + v < g.used && row >= g.first * g.batch;
      if (!nothing && first + v < g.units && g.h0)
        x = to_float(static_cast<const T*>(g.h0)[row * g.h0_b + (head * g.units + first + v) * g.h0_u]);
      round_to(made.numbers[v], nothing ? 0.f : x == 0.f ? -0.f : x);
    }
    store_global(static_cast<T*>(g.shown) + i * V, Pack<u32, 4>{made.words[0], made.words[1], made.words[2], made.words[3]});
  }
  if (!g.w_out) return;
  const i64 along = g.w_k / V, each = g.rows * along;
  for (i64 i = thread; i < g.heads * each; i += threads) {
    // Neighbouring threads read neighbouring numbers: turned, those of neighbouring rows.
    i64 head = i / each, place = i % each;
    i64 row = g.turned ? place % g.rows : place / along, first = (g.turned ? place / g.rows : place % along) * V;
#pragma unroll
    for (int v = 0; v < V; v++) {
      i64 k = first + v, from = g.turned ? k / g.apart * g.units + k % g.apart : row, column = g.turned ? row : k;
      bool there = g.turned ? k < g.gates * g.apart && k % g.apart < g.units : k < g.units;
      float x = 0;
      if (there) x = to_float(static_cast<const W*>(g.w)[head * g.w_head + from * g.w_row + column * g.w_column]);
      round_to(made.numbers[v], x);
    }
    T* to = static_cast<T*>(g.w_out) + (head * g.rows + row) * g.w_k + first;
    store_global(to, Pack<u32, 4>{made.words[0], made.words[1], made.words[2], made.words[3]});
  }
}

// h before each step: [t, b, hidden]; h0 before the first one, zeros before one with a reset, and beyond the length.
struct Before {
  const void *y, *h0;
  const i64* lengths;
  const unsigned char* resets;
  void* out;
  i64 steps, batch, hidden, reverse, y_t, y_b, y_u, h0_b, h0_u, lengths_step, resets_t, resets_b, out_t, out_b;
};

template <class T>
KW_DEVICE void recurrent_before(const Before& g, unsigned char*) {
  const i64 threads = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < g.steps * g.batch * g.hidden; i += threads) {
    i64 unit = i % g.hidden, row = i / g.hidden % g.batch, t = i / g.hidden / g.batch;
    i64 length = g.lengths ? g.lengths[row * g.lengths_step] : g.steps;
    bool first = t == (g.reverse ? length - 1 : 0);
    float x = 0;
    if (t < length && !(g.resets && g.resets[t * g.resets_t + row * g.resets_b])) {
      if (!first)
        x = to_float(static_cast<const T*>(g.y)[(g.reverse ? t + 1 : t - 1) * g.y_t + row * g.y_b + unit * g.y_u]);
      else if (g.h0)
        x = to_float(static_cast<const T*>(g.h0)[row * g.h0_b + unit * g.h0_u]);
    }
    round_to(static_cast<T*>(g.out)[t * g.out_t + row * g.out_b + unit], x);
  }
}

// An array [steps, batch, hidden] one element after the other, for products that join its first two axes.
struct Gather {
  const void* from;
  void* to;
  i64 outer, inner, width, from_outer, from_inner, from_step;
};

template <class T>
KW_DEVICE void recurrent_gather(const Gather& g, unsigned char*) {
  const i64 threads = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < g.outer * g.inner * g.width; i += threads) {
    i64 row = i / g.width;
    static_cast<T*>(g.to)[i] = static_cast<const T*>(
        g.from)[row / g.inner * g.from_outer + row % g.inner * g.from_inner + i % g.width * g.from_step];
  }
}

// db_ih and db_hh from the sums of each group of tiles of sequences, which are [group][sums][hidden].
struct Biases {
  const float* sums;
  void *db_ih, *db_hh;
  i64 tiles, hidden, gates, sums_of_tile, ih_step, hh_step;
};

template <class T>
KW_DEVICE void recurrent_biases(const Biases& g, unsigned char*) {
  const i64 threads = i64(gridDim.x) * blockDim.x, all = g.sums_of_tile * g.hidden;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += threads) {
    float sum = 0;
    for (i64 tile = 0; tile < g.tiles; tile++) sum += g.sums[tile * all + i];
    i64 which = i / g.hidden, unit = i % g.hidden;
    // A fourth sum of three gates is that of the last gate as h sees it.
    if (which < g.gates) round_to(static_cast<T*>(g.db_ih)[i * g.ih_step], sum);
    if (which >= g.gates || which != g.gates - 1 || g.sums_of_tile == g.gates) {
      i64 gate = which < g.gates ? which : g.gates - 1;
      round_to(static_cast<T*>(g.db_hh)[(gate * g.hidden + unit) * g.hh_step], sum);
    }
  }
}
