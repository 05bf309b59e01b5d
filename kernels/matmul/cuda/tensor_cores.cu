// Matrix products of bfloat16 or float16 on the tensor cores by mma.sync; sums in float32.
//
//   block    a tile of C, BM x BN (`by_tiles` in product.cuh)
//   warp     BM / WARPS_M x BN / WARPS_N of it, in 16 x 8 pieces; ldmatrix loads 16 x 16 of an operand at once,
//            turned where the operand is contiguous the other way
//
// An operand keeps the order in which it lies in memory: lines of k for each row of A (column of B), or lines of rows
// for each k. In a line, the 16-byte chunks are permuted by the line's number, so that the eight chunks that ldmatrix
// reads for one matrix, and those that a quarter of a warp writes, lie in different banks.

// By what the chunks of a line are permuted.
template <int WIDTH>
KW_DEVICE int turn_of(int line) {
  constexpr int CHUNKS = WIDTH / 8;
  static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "lines of 64 bytes, or of whole 128 bytes");
  return CHUNKS == 4 ? line / 2 % 4 : line % 8;
}

// Copy [rows, k] into lines along k, or along the rows; zeros where there are no rows or no k left.
template <class T, int ROWS, int DEPTH, int THREADS, bool along_k, bool vectors>
KW_DEVICE void bring_lines(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) {
  constexpr int WIDTH = along_k ? DEPTH : ROWS, V = vectors ? 8 : 1, LINE = WIDTH / V;
  constexpr int TIMES = ROWS * DEPTH / (V * THREADS), LINES = THREADS / LINE;
  static_assert(THREADS % LINE == 0 && ROWS * DEPTH % (V * THREADS) == 0, "threads side by side in whole lines");
  int lines = along_k ? rows : depth, width = along_k ? depth : rows;
  i64 line_step = along_k ? rs : cs, step = along_k ? cs : rs;
  int line = int(threadIdx.x) / LINE, element = int(threadIdx.x) % LINE * V;
  const T* at = from + line * line_step + (vectors ? element : element * step);
#pragma unroll(vectors ? TIMES : 8)
  for (int i = 0; i < TIMES; i++) {
    bool there = line < lines && element < width;
    T* place = to + line * WIDTH + ((element / 8) ^ turn_of<WIDTH>(line)) * 8 + element % 8;
    if (vectors) {
      copy_vector(place, there ? at : from, there ? within(width - element, V) * int(sizeof(T)) : 0);
    } else {
      T value = {0};
      if (there) value = *at;
      *place = value;
    }
    line += LINES;
    at += LINES * line_step;
  }
}

// For `by_tiles`.
template <class T, int BM_, int BN_, int DEPTH_, int WARPS_M, int WARPS_N, bool a_along_k, bool a_vectors,
          bool b_along_k, bool b_vectors>
struct TensorCores {
  typedef T Element;
  typedef float Sum;
  static constexpr int BM = BM_, BN = BN_, DEPTH = DEPTH_, THREADS = 32 * WARPS_M * WARPS_N;
  static constexpr int B_AT = DEPTH * BM, HELD = DEPTH * (BM + BN), PARTS = 1, PITCH = BN + 8, V = 8;
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, PIECES_M = WM / 16, PIECES_N = WN / 8;
  static_assert(WM % 16 == 0 && WN % 16 == 0 && DEPTH % 16 == 0, "whole matrices for ldmatrix");
  static_assert((PIECES_M & (PIECES_M - 1)) == 0 && (PIECES_N & (PIECES_N - 1)) == 0, "pieces are counted by exclusive or");
  struct Sums {
    float of[PIECES_M][PIECES_N][4];
  };

  int down, across;  // where the warp's rows and columns begin
  // Where the lane's line begins, and its chunk there. Neither 16 lines further nor 16 of k change the permutation,
  // so that the chunk of another piece, or of another k, is one exclusive or away.
  int a_line, a_chunk, b_line, b_chunk;

  KW_DEVICE TensorCores() {
    int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    down = warp / WARPS_N * WM, across = warp % WARPS_N * WN;
    // The row of a 16 x 16 piece whose address this lane gives to ldmatrix, and the half of that row.
    int low = lane % 8, middle = lane / 8 % 2 * 8, high = lane / 16 * 8;
    a_line = a_along_k ? (down + low + middle) * DEPTH : (low + high) * BM;
    a_chunk = a_along_k ? high / 8 ^ turn_of<DEPTH>(down + low + middle) : (down + middle) / 8 ^ turn_of<BM>(low + high);
    b_line = b_along_k ? (across + low + high) * DEPTH : (low + middle) * BN;
    b_chunk = b_along_k ? middle / 8 ^ turn_of<DEPTH>(across + low + high) : (across + high) / 8 ^ turn_of<BN>(low + middle);
  }
  KW_DEVICE void bring_a(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) const {
    bring_lines<T, BM, DEPTH, THREADS, a_along_k, a_vectors>(to, from, rs, cs, rows, depth);
  }
  KW_DEVICE void bring_b(T* to, const T* from, i64 rs, i64 cs, int rows, int depth) const {
    bring_lines<T, BN, DEPTH, THREADS, b_along_k, b_vectors>(to, from, rs, cs, rows, depth);
  }
  KW_DEVICE void multiply(Sums& sums, const T* at) const {
    const T* at_a = at + a_line;
    const T* at_b = at + B_AT + b_line;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
      u32 from_a[PIECES_M][4], from_b[PIECES_N / 2][4];
#pragma unroll
      for (int i = 0; i < PIECES_M; i++) {
        if (a_along_k)
          load_matrices(from_a[i], at_a + i * 16 * DEPTH + (a_chunk ^ k / 8) * 8);
        else
          load_matrices_turned(from_a[i], at_a + k * BM + (a_chunk ^ 2 * i) * 8);
      }
#pragma unroll
      for (int j = 0; j < PIECES_N / 2; j++) {
        if (b_along_k)
          load_matrices(from_b[j], at_b + j * 16 * DEPTH + (b_chunk ^ k / 8) * 8);
        else
          load_matrices_turned(from_b[j], at_b + k * BN + (b_chunk ^ 2 * j) * 8);
      }
#pragma unroll
      for (int i = 0; i < PIECES_M; i++)
#pragma unroll
        for (int j = 0; j < PIECES_N; j++)
          multiply_add(sums.of[i][j], from_a[i], from_b[j / 2][j % 2 * 2], from_b[j / 2][j % 2 * 2 + 1], T());
    }
  }
  KW_DEVICE void put(const Sums& sums, int, float* to) const {
    int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < PIECES_M; i++)
#pragma unroll
      for (int j = 0; j < PIECES_N; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          Pack<float, 2> both = {{sums.of[i][j][half * 2], sums.of[i][j][half * 2 + 1]}};
          int row = down + i * 16 + half * 8 + lane / 4, column = across + j * 8 + lane % 4 * 2;
          store_shared(to + row * PITCH + column, both);
        }
  }
};

template <class T, int BM, int BN, int DEPTH, int WARPS_M, int WARPS_N, int STAGES, bool a_along_k, bool a_vectors,
          bool b_along_k, bool b_vectors, bool wide_c, bool has_bias, bool has_residual, int activation>
KW_DEVICE void tensor_core_matmul(const Product& g, unsigned char* shared) {
  typedef TensorCores<T, BM, BN, DEPTH, WARPS_M, WARPS_N, a_along_k, a_vectors, b_along_k, b_vectors> Way;
  by_tiles<Way, STAGES, wide_c, has_bias, has_residual, activation>(g, shared);
}
