// A batch of matrix products as the CUDA C++ kernels of this folder take it, and how each of them ends:
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
  i64 a_rs, a_cs, b_rs, b_cs, c_rs, c_cs, bias_cs, r_rs, r_cs;
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
      if (has_bias) sum += to_sum(static_cast<const T*>(g.bias)[(c + v) * g.bias_cs]);
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
