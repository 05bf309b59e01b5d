// A batch of matrix products as the CUDA C++ kernels of this folder take it, and what they have in common: the order of
// the tiles, the steps along k through shared memory, and how a tile ends.
//
//   C[p] = activation(A[p] B[p] + bias + residual[p])       C: [m, n], A: [m, k], B: [k, n]
#pragma once

constexpr int BATCH_AXES = 4;
constexpr int GROUP = 8;  // rows of tiles that share columns of B while those are in the L2 cache

// Eight bytes a field, in the order that matmul/cuda_cupy.py packs. Strides and steps are in elements.
struct Product {
  const void *a, *b, *bias, *residual;
  void* c;
  i64 m, n, k;
  i64 a_rs, a_cs, b_rs, b_cs, c_rs, c_cs, bias_rs, bias_cs, r_rs, r_cs;
  i64 tiles_m, tiles_n, tiles;  // tiles of all matrices
  i64 length[BATCH_AXES], a_step[BATCH_AXES], b_step[BATCH_AXES], c_step[BATCH_AXES], r_step[BATCH_AXES];
};

// One tile of the result: where it begins, and its matrices.
template <class T>
struct Tile {
  i64 row, column;
  const T *a, *b, *residual;
  T* c;
};

template <class T>
KW_DEVICE Tile<T> tile_of(const Product& g, i64 id, int height, int width) {
  Tile<T> tile;
  i64 each = g.tiles_m * g.tiles_n, matrix = id / each, place = id % each;
  i64 band = place / (GROUP * g.tiles_n), first = band * GROUP;
  i64 rows = g.tiles_m - first < GROUP ? g.tiles_m - first : GROUP;
  place -= band * GROUP * g.tiles_n;
  tile.row = (first + place % rows) * height;
  tile.column = place / rows * width;
  i64 a = 0, b = 0, c = 0, r = 0;
#pragma unroll
  for (int axis = BATCH_AXES - 1; axis >= 0; axis--) {
    i64 at = matrix % g.length[axis];
    matrix /= g.length[axis];
    a += at * g.a_step[axis];
    b += at * g.b_step[axis];
    c += at * g.c_step[axis];
    r += at * g.r_step[axis];
  }
  tile.a = static_cast<const T*>(g.a) + a;
  tile.b = static_cast<const T*>(g.b) + b;
  tile.c = static_cast<T*>(g.c) + c;
  tile.residual = static_cast<const T*>(g.residual) + r;
  return tile;
}

// The end of a tile: sums [ROWS][PITCH] in shared memory become elements of C, from row `first` of the tile on, V at a
// time in a row where C is contiguous and aligned.
template <class T, int ROWS, int COLUMNS, int PITCH, int THREADS, int V, bool has_bias, bool has_residual, int activation, class S>
KW_DEVICE void finish(const Product& g, const Tile<T>& tile, const S* sums, int first) {
  static_assert(COLUMNS % V == 0, "whole vectors in a row");
  int rows = within(g.m - tile.row - first, ROWS), columns = within(g.n - tile.column, COLUMNS);
#pragma unroll 1
  for (int e = int(threadIdx.x); e < ROWS * COLUMNS / V; e += THREADS) {
    int row = e / (COLUMNS / V), column = e % (COLUMNS / V) * V;
    if (row >= rows || column >= columns) continue;
    i64 r = tile.row + first + row, c = tile.column + column;
    T* to = tile.c + r * g.c_rs + c * g.c_cs;
    Pack<T, V> results;
#pragma unroll
    for (int v = 0; v < V; v++) {
      if (column + v >= columns) break;
      S sum = sums[row * PITCH + column + v];
      if (has_bias) sum += to_sum(static_cast<const T*>(g.bias)[r * g.bias_rs + (c + v) * g.bias_cs]);
      if (has_residual) sum += to_sum(tile.residual[r * g.r_rs + (c + v) * g.r_cs]);
      round_to(results.e[v], activated<activation>(sum));
    }
    if (column + V <= columns) {
      store_global(to, results);
    } else {
      for (int v = 0; v < V; v++)
        if (column + v < columns) to[v * g.c_cs] = results.e[v];
    }
  }
}

// Tiles of C, one after the other. Of each, the operands come DEPTH of k at a time through STAGES buffers of shared
// memory, copied while earlier ones are computed with. What multiplies, and how, is a Way:
//
//   Element, Sum, Sums        of the operands; of the sums when they leave; those that a thread has
//   BM, BN, DEPTH, THREADS    the tile, the k of a step, the threads of a block
//   HELD, B_AT                elements of a buffer, and where those of B begin in it
//   PARTS, PITCH, V           the sums leave in so many parts, in rows of PITCH, V at a time
//   bring_a, bring_b          copy a step of an operand into a buffer
//   multiply                  adds the products of a step to the thread's sums
//   put                       the thread's sums in one part, to shared memory
template <class Way, int STAGES, bool wide_c, bool has_bias, bool has_residual, int activation>
KW_DEVICE void by_tiles(const Product& g, unsigned char* shared) {
  typedef typename Way::Element T;
  constexpr int BM = Way::BM, BN = Way::BN, DEPTH = Way::DEPTH;
  T* buffers = reinterpret_cast<T*>(shared);
  const Way way;

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
      T* to = buffers + buffer * Way::HELD;
      int depth = within(left, DEPTH);
      way.bring_a(to, a, g.a_rs, g.a_cs, rows, depth);
      way.bring_b(to + Way::B_AT, b, g.b_cs, g.b_rs, columns, depth);
      a += DEPTH * g.a_cs;
      b += DEPTH * g.b_rs;
    };
    typename Way::Sums sums = {};

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
      const T* at = buffers + used * Way::HELD;
      used = used + 1 == STAGES ? 0 : used + 1;
      way.multiply(sums, at);
    }

    forget(id);
    Tile<T> tile = tile_of<T>(g, id, BM, BN);
    // The sums go through shared memory, so that neighbouring threads write neighbouring elements of C.
    typedef typename Way::Sum S;
    constexpr int ROWS = BM / Way::PARTS;
    static_assert(ROWS * Way::PITCH * sizeof(S) <= STAGES * Way::HELD * sizeof(T), "sums fit where the operands were");
    S* parts = reinterpret_cast<S*>(shared);
#pragma unroll
    for (int part = 0; part < Way::PARTS; part++) {
      __syncthreads();  // nobody reads operands, or the part before, any more
      way.put(sums, part, parts);
      __syncthreads();
      finish<T, ROWS, BN, Way::PITCH, Way::THREADS, wide_c ? Way::V : 1, has_bias, has_residual, activation>(
          g, tile, parts, part * ROWS);
    }
    __syncthreads();  // the next tile begins with the first buffers
  }
}
