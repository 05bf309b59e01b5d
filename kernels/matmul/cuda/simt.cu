// Matrix products in full float32 or float64, one multiply-add at a time on the ordinary cores.
//
//   block    a tile of C, BM x BN; its operands come DEPTH of k at a time through STAGES buffers of shared memory,
//            A as [k][row], B as [k][column], copied while earlier ones are computed with
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

template <class T, int BM, int BN, int DEPTH, int TM, int TN, int STAGES, int a_how, int b_how, bool wide_c,
          bool has_bias, bool has_residual, int activation>
KW_DEVICE void simt_matmul(const Product& g, unsigned char* shared) {
  constexpr int V = 16 / int(sizeof(T));
  constexpr int THREADS = BM / TM * (BN / TN), PITCH_A = BM + V, PITCH_B = BN + V;
  constexpr int HELD = DEPTH * (PITCH_A + PITCH_B), WARPS_ACROSS = BN / TN / 8;
  static_assert(BN % (8 * TN) == 0 && BM % (4 * TM) == 0 && TM % V == 0 && TN % V == 0, "whole warps of 4 x 8");
  T* buffers = reinterpret_cast<T*>(shared);
  int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  int down = (warp / WARPS_ACROSS * 4 + lane / 8) * V, across = (warp % WARPS_ACROSS * 8 + lane % 8) * V;
  constexpr int SQUARES_M = TM / V, SQUARES_N = TN / V;

  for (i64 id = blockIdx.x; id < g.tiles; id += gridDim.x) {
    const T *a, *b;
    int rows, columns;
    {
      Tile<T> tile = tile_of<T>(g, id, BM, BN);
      rows = within(g.m - tile.row, BM);
      columns = within(g.n - tile.column, BN);
      a = tile.a + tile.row * g.a_rs;
      b = tile.b + tile.column * g.b_cs;
    }
    auto bring_step = [&](int buffer, i64 left) {
      T* to = buffers + buffer * HELD;
      int depth = within(left, DEPTH);
      bring<T, BM, DEPTH, PITCH_A, THREADS, a_how>(to, a, g.a_rs, g.a_cs, rows, depth);
      bring<T, BN, DEPTH, PITCH_B, THREADS, b_how>(to + DEPTH * PITCH_A, b, g.b_cs, g.b_rs, columns, depth);
      a += DEPTH * g.a_cs;
      b += DEPTH * g.b_rs;
    };
    T sums[TM][TN];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TN; j++) sums[i][j] = T(0);

#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
      if (step * DEPTH < g.k) bring_step(step, g.k - step * DEPTH);
      commit_copies();
    }
    int used = 0;
    for (i64 left = g.k; left > 0; left -= DEPTH) {
      wait_copies<STAGES - 2>();
      __syncthreads();  // this step's operands are there, and nobody reads the buffer that is filled next
      constexpr int AHEAD = (STAGES - 1) * DEPTH;
      if (left > AHEAD) bring_step(used ? used - 1 : STAGES - 1, left - AHEAD);
      commit_copies();
      const T* at = buffers + used * HELD;
      used = used + 1 == STAGES ? 0 : used + 1;
#pragma unroll
      for (int k = 0; k < DEPTH; k++) {
        Pack<T, V> of_a[SQUARES_M], of_b[SQUARES_N];
#pragma unroll
        for (int i = 0; i < SQUARES_M; i++)
          of_a[i] = load<Pack<T, V>>(at + k * PITCH_A + i * (BM / SQUARES_M) + down);
#pragma unroll
        for (int j = 0; j < SQUARES_N; j++)
          of_b[j] = load<Pack<T, V>>(at + DEPTH * PITCH_A + k * PITCH_B + j * (BN / SQUARES_N) + across);
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
          for (int j = 0; j < TN; j++) sums[i][j] += of_a[i / V].e[i % V] * of_b[j / V].e[j % V];
      }
    }

    forget(id);
    Tile<T> tile = tile_of<T>(g, id, BM, BN);
    // The sums go through shared memory, so that neighbouring threads write neighbouring elements of C.
    constexpr int PART = BM / SQUARES_M, PITCH = BN + V;
    static_assert(PART * PITCH <= STAGES * HELD, "a part of the sums fits where the operands were");
#pragma unroll
    for (int i = 0; i < SQUARES_M; i++) {
      __syncthreads();  // nobody reads operands, or the part before, any more
#pragma unroll
      for (int v = 0; v < V; v++) {
#pragma unroll
        for (int j = 0; j < SQUARES_N; j++) {
          Pack<T, V> part;
#pragma unroll
          for (int u = 0; u < V; u++) part.e[u] = sums[i * V + v][j * V + u];
          store_shared(buffers + (down + v) * PITCH + j * (BN / SQUARES_N) + across, part);
        }
      }
      __syncthreads();
      finish<T, PART, BN, PITCH, THREADS, wide_c ? V : 1, has_bias, has_residual, activation>(g, tile, buffers, i * PART);
    }
    __syncthreads();  // the next tile begins with the first buffers
  }
}
