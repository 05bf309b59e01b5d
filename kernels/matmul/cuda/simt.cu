// Matrix products in full float32 or float64, one multiply-add at a time on the ordinary cores.
//
//   block    a tile of C, BM x BN (`by_tiles` in product.cuh); in shared memory A is [k][row], B [k][column]
//   warp     4 x 8 threads
//   thread   TM x TN sums in registers, in squares of 16 bytes that lie apart, so that the 8 threads of a row read
//            128 bytes without a bank conflict
//
// For each k a thread loads TM + TN numbers for TM TN multiply-adds: with 8 x 8, 4 loads of 16 bytes for 64.

enum How {
  ALONG_K,     // one element after the other, neighbours along k
  ALONG_ROWS,  // one element after the other, neighbours along the rows of A, the columns of B
  VECTORS,     // 16 bytes at a time along those, which are contiguous and aligned
};

// Copy [rows, k] as [k][row] into shared memory; zeros where there are no rows or no k left.
template <class T, int ROWS, int DEPTH, int PITCH, int THREADS, int how>
KW_DEVICE void bring(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) {
  constexpr int V = how == VECTORS ? 16 / int(sizeof(T)) : 1, LINE = how == ALONG_K ? DEPTH : ROWS / V;
  static_assert(ROWS * DEPTH % (V * THREADS) == 0, "every thread copies equally often");
  static_assert(THREADS % LINE == 0 || LINE % THREADS == 0, "threads side by side in whole lines, or lines by all threads");
  constexpr int TIMES = ROWS * DEPTH / (V * THREADS), PIECES = LINE > THREADS ? LINE / THREADS : 1;
  constexpr int LINES = LINE > THREADS ? 1 : THREADS / LINE;  // that the block copies at once
  int me = int(threadIdx.x) % LINE, line = int(threadIdx.x) / LINE;
  const T* start = from + (how == ALONG_K ? line * rs + me * cs : line * cs + me * V * rs);
  i64 piece_step = how == ALONG_K ? THREADS * cs : THREADS * V * rs, line_step = LINES * (how == ALONG_K ? rs : cs);
#pragma unroll
  for (int i = 0; i < TIMES; i++) {
    int k = how == ALONG_K ? me + i % PIECES * THREADS : line + i / PIECES * LINES;
    int row = how == ALONG_K ? line + i / PIECES * LINES : (me + i % PIECES * THREADS) * V;
    bool there = k < depth && row < rows;
    T* place = to + k * PITCH + row;
    const T* at = there ? start + i % PIECES * piece_step : from;
    if (how == VECTORS)
      copy_vector(place, at, there ? within(rows - row, V) * int(sizeof(T)) : 0);
    else
      copy_element(place, at, there);
    if (i % PIECES == PIECES - 1) start += line_step;
  }
}

// For `by_tiles`.
template <class T, int BM_, int BN_, int DEPTH_, int TM, int TN, int a_how, int b_how>
struct Simt {
  typedef T Element;
  typedef T Sum;
  static constexpr int BM = BM_, BN = BN_, DEPTH = DEPTH_, THREADS = BM / TM * (BN / TN), V = 16 / int(sizeof(T));
  static constexpr int PITCH_A = BM + V, PITCH_B = BN + V, B_AT = DEPTH * PITCH_A, HELD = DEPTH * (PITCH_A + PITCH_B);
  static constexpr int SQUARES_M = TM / V, SQUARES_N = TN / V, PARTS = SQUARES_M, PITCH = BN + V;
  static_assert(BN % (8 * TN) == 0 && BM % (4 * TM) == 0 && TM % V == 0 && TN % V == 0, "whole warps of 4 x 8");
  struct Sums {
    T of[TM][TN];
  };

  int down, across;  // where the thread's first square is

  KW_DEVICE Simt() {
    constexpr int WARPS_ACROSS = BN / TN / 8;
    int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    down = (warp / WARPS_ACROSS * 4 + lane / 8) * V;
    across = (warp % WARPS_ACROSS * 8 + lane % 8) * V;
  }
  KW_DEVICE void bring_a(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) const {
    bring<T, BM, DEPTH, PITCH_A, THREADS, a_how>(to, from, rs, cs, rows, depth);
  }
  KW_DEVICE void bring_b(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) const {
    bring<T, BN, DEPTH, PITCH_B, THREADS, b_how>(to, from, rs, cs, rows, depth);
  }
  KW_DEVICE void multiply(Sums& sums, const T* at) const {
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      Pack<T, V> of_a[SQUARES_M], of_b[SQUARES_N];
#pragma unroll
      for (int i = 0; i < SQUARES_M; i++)
        of_a[i] = load<Pack<T, V>>(at + k * PITCH_A + i * (BM / SQUARES_M) + down);
#pragma unroll
      for (int j = 0; j < SQUARES_N; j++)
        of_b[j] = load<Pack<T, V>>(at + B_AT + k * PITCH_B + j * (BN / SQUARES_N) + across);
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sums.of[i][j] += of_a[i / V].e[i % V] * of_b[j / V].e[j % V];
    }
  }
  KW_DEVICE void put(const Sums& sums, int part, T* to) const {
#pragma unroll
    for (int v = 0; v < V; v++) {
#pragma unroll
      for (int j = 0; j < SQUARES_N; j++) {
        Pack<T, V> some;
#pragma unroll
        for (int u = 0; u < V; u++) some.e[u] = sums.of[part * V + v][j * V + u];
        store_shared(to + (down + v) * PITCH + j * (BN / SQUARES_N) + across, some);
      }
    }
  }
};

template <class T, int BM, int BN, int DEPTH, int TM, int TN, int STAGES, int a_how, int b_how, bool wide_c,
          bool has_bias, bool has_residual, int activation>
KW_DEVICE void simt_matmul(const Product& g, unsigned char* shared) {
  by_tiles<Simt<T, BM, BN, DEPTH, TM, TN, a_how, b_how>, STAGES, wide_c, has_bias, has_residual, activation>(g, shared);
}
