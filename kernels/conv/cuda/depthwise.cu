// Depthwise convolutions, one filter a channel: bound by memory, so each element of x should come from it once.
//
// depthwise_channels   channels contiguous: a thread has V channels of RH x RW neighbouring outputs, and reads the
//                      pixels under them row by row; the taps of the block's channels lie in shared memory
// depthwise_planes     pixels contiguous: a block brings the pixels under a tile of TH x TW outputs of PLANES planes
//                      into shared memory; a thread has RH outputs one above the other, and each number that it
//                      reads serves all of them that it is under

template <class T, class F, int V, int LANES, int RH, int RW, int THREADS, bool has_bias, bool has_residual, int activation>
KW_DEVICE void depthwise_channels(const Window& g, unsigned char* shared) {
  constexpr int CHANNELS = LANES * V, COLUMNS = F::wide(RW);
  static_assert(COLUMNS <= 32, "a bit for each column");
  float* taps = reinterpret_cast<float*>(shared);
  i64 first = blockIdx.x % g.blocks * CHANNELS;
  for (int e = int(threadIdx.x); e < F::kh * F::kw * CHANNELS; e += THREADS) {
    int tap = e / CHANNELS;
    i64 c = first + e % CHANNELS;
    taps[e] = c < g.c ? to_float(static_cast<const T*>(g.w)[c * g.w_o + tap / F::kw * g.w_h + tap % F::kw * g.w_w]) : 0.f;
  }
  __syncthreads();
  int lane = int(threadIdx.x) % LANES * V;
  i64 c = first + lane;
  if (c >= g.c) return;

  float bias[V];
#pragma unroll
  for (int v = 0; v < V; v++) bias[v] = has_bias ? to_sum(static_cast<const T*>(g.b)[(c + v) * g.b_o]) : 0.f;

  i64 step = gridDim.x / g.blocks * (THREADS / LANES);
  for (i64 id = blockIdx.x / g.blocks * (THREADS / LANES) + threadIdx.x / LANES; id < g.tiles; id += step) {
    i64 n = id / (g.tiles_h * g.tiles_w), place = id % (g.tiles_h * g.tiles_w);
    i64 p = place / g.tiles_w * RH, q = place % g.tiles_w * RW;
    i64 top = p * F::sh - g.lo_h, left = q * F::sw - g.lo_w;
    const T* x = static_cast<const T*>(g.x) + at(g.x_step, n, top, left, c);
    float sums[RH][RW][V];
#pragma unroll
    for (int i = 0; i < RH * RW * V; i++) sums[i / (RW * V)][i / V % RW][i % V] = 0.f;
    u32 across = 0;  // which of the columns exist
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
      if (left + column >= 0 && left + column < g.wide) across |= 1u << column;
// A small filter row by row, each with the taps that meet it; a large one as a loop, for the registers' sake.
#pragma unroll(F::kh * F::kw <= 9 ? F::high(RH) : 1)
    for (int row = 0; row < F::high(RH); row++) {
      Pack<T, V> pixels[COLUMNS];
      u32 there = top + row >= 0 && top + row < g.h ? across : 0;
      const T* from = x + row * g.x_step.h;
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        const Pack<T, V> none = {};
        pixels[column] = none;
        if (there >> column & 1) pixels[column] = load<Pack<T, V>>(from);
        from += g.x_step.w;
      }
#pragma unroll
      for (int r = 0; r < RH; r++) {
        const int down = row - r * F::sh;
        if (down < 0 || down % F::dh || down / F::dh >= F::kh) continue;
#pragma unroll
        for (int j = 0; j < F::kw; j++) {
          Pack<float, V> tap = load<Pack<float, V>>(taps + (down / F::dh * F::kw + j) * CHANNELS + lane);
#pragma unroll
          for (int i = 0; i < RW * V; i++)
            sums[r][i / V][i % V] += to_float(pixels[i / V * F::sw + j * F::dw].e[i % V]) * tap.e[i % V];
        }
      }
    }
    T* to = static_cast<T*>(g.y) + at(g.y_step, n, p, q, c);
    const T* residual = has_residual ? static_cast<const T*>(g.residual) + at(g.r_step, n, p, q, c) : nullptr;
    int rows = within(g.p - p, RH), columns = within(g.q - q, RW);
#pragma unroll
    for (int i = 0; i < RH * RW; i++) {
      if (i / RW < rows && i % RW < columns) {
        Pack<T, V> result;
#pragma unroll
        for (int v = 0; v < V; v++) {
          float sum = sums[i / RW][i % RW][v];
          if (has_bias) sum += bias[v];
          if (has_residual) sum += to_sum(residual[v * g.r_step.c]);
          round_to(result.e[v], activated<activation>(sum));
        }
        store_global(to, result);
      }
      const bool down = i % RW == RW - 1;  // the next place is the first of the row below
      to += down ? g.y_step.h - (RW - 1) * g.y_step.w : g.y_step.w;
      if (has_residual) residual += down ? g.r_step.h - (RW - 1) * g.r_step.w : g.r_step.w;
    }
  }
}

template <class T, class F, int TH, int TW, int RH, int PLANES, bool has_bias, bool has_residual, int activation>
KW_DEVICE void depthwise_planes(const Window& g, unsigned char* shared) {
  constexpr int ROWS = F::high(TH), COLUMNS = F::wide(TW), EACH = ROWS * COLUMNS, TAPS = F::kh * F::kw;
  constexpr int THREADS = PLANES * (TH / RH) * TW;
  float* pixels = reinterpret_cast<float*>(shared);  // [PLANES][ROWS][COLUMNS]
  float* taps = pixels + PLANES * EACH;              // [PLANES][TAPS]
  int me = int(threadIdx.x) / (TH / RH * TW), down = int(threadIdx.x) / TW % (TH / RH) * RH, across = int(threadIdx.x) % TW;
  i64 planes = g.n * g.c;

  for (i64 id = blockIdx.x; id < g.tiles; id += gridDim.x) {
    i64 group = id / (g.tiles_h * g.tiles_w) * PLANES, place = id % (g.tiles_h * g.tiles_w);
    i64 p = place / g.tiles_w * TH, q = place % g.tiles_w * TW;
    i64 top = p * F::sh - g.lo_h, left = q * F::sw - g.lo_w;
    // A warp brings whole rows, so that what belongs to a plane is worked out once for each of them.
    for (int line = int(threadIdx.x) / 32; line < PLANES * ROWS; line += THREADS / 32) {
      i64 plane = group + line / ROWS, h = top + line % ROWS;
      bool inside = plane < planes && h >= 0 && h < g.h;
      const T* from = static_cast<const T*>(g.x) + (inside ? at(g.x_step, plane / g.c, h, 0, plane % g.c) : 0);
      for (int column = int(threadIdx.x) % 32; column < COLUMNS; column += 32) {
        i64 w = left + column;
        pixels[line * COLUMNS + column] = inside && w >= 0 && w < g.wide ? to_float(from[w * g.x_step.w]) : 0.f;
      }
    }
    for (int e = int(threadIdx.x); e < PLANES * TAPS; e += THREADS) {
      i64 plane = group + e / TAPS;
      int tap = e % TAPS;
      taps[e] = plane < planes ? to_float(static_cast<const T*>(g.w)[plane % g.c * g.w_o + tap / F::kw * g.w_h + tap % F::kw * g.w_w]) : 0.f;
    }
    __syncthreads();
    float sums[RH], mine[TAPS];
#pragma unroll
    for (int r = 0; r < RH; r++) sums[r] = 0.f;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) mine[tap] = taps[me * TAPS + tap];
    const float* from = pixels + me * EACH + down * F::sh * COLUMNS + across * F::sw;
#pragma unroll
    for (int row = 0; row < F::high(RH); row++) {
#pragma unroll
      for (int j = 0; j < F::kw; j++) {
        float x = from[row * COLUMNS + j * F::dw];
#pragma unroll
        for (int r = 0; r < RH; r++) {
          const int above = row - r * F::sh;
          if (above >= 0 && above % F::dh == 0 && above / F::dh < F::kh) sums[r] += x * mine[above / F::dh * F::kw + j];
        }
      }
    }
    __syncthreads();  // the next tile takes the place of this one
    i64 plane = group + me, column = q + across;
    if (plane >= planes || column >= g.q) continue;
    i64 n = plane / g.c, c = plane % g.c;
#pragma unroll
    for (int r = 0; r < RH; r++)
      if (p + down + r < g.p)
        static_cast<T*>(g.y)[at(g.y_step, n, p + down + r, column, c)] =
            ended<T, has_bias, has_residual, activation>(g, n, p + down + r, column, c, sums[r]);
  }
}
