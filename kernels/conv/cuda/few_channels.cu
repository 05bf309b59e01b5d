// Direct convolutions of images with a few channels, such as the first layer of a network (7 x 7 x 3 -> 64).
//
//   block    TH x TW places of an image and OUTPUTS output channels. The filters of those lie in shared memory as
//            [c][i][j][o] while the block goes from tile to tile; the pixels under a tile as [c][row][column]
//   thread   8 neighbouring places by 8 output channels: 64 sums
//
// For each channel and row of the filter a thread reads the pixels under its 8 places once, into registers; each tap
// is then two loads of 16 bytes for 64 multiply-adds. Eight threads of a warp share places, four share channels.

template <class T, class F, int C, int OUTPUTS, int TH, int TW, bool pixels_first, int V, bool has_bias, bool has_residual, int activation>
KW_DEVICE void few_channels(const Window& g, unsigned char* shared) {
  constexpr int PLACES = 8, MINE = 8, ACROSS = OUTPUTS / MINE, THREADS = ACROSS * TH * (TW / PLACES);
  constexpr int SPAN = (F::wide(PLACES) + 3) / 4 * 4;  // pixels that a thread reads of a row, in squares of 16 bytes
  constexpr int PITCH = (TW / PLACES - 1) * PLACES * F::sw + SPAN, ROWS = F::high(TH), TAPS = F::kh * F::kw;
  float* filters = reinterpret_cast<float*>(shared);  // [C][TAPS][OUTPUTS]
  float* pixels = filters + C * TAPS * OUTPUTS;       // [C][ROWS][PITCH]
  int me = int(threadIdx.x);
  int lane = me % ACROSS * MINE, across = me / ACROSS % (TW / PLACES) * PLACES, down = me / ACROSS / (TW / PLACES);
  i64 first = blockIdx.x % g.blocks * OUTPUTS;

  for (int e = me; e < C * TAPS * OUTPUTS; e += THREADS) {
    i64 o = first + e % OUTPUTS;
    int tap = e / OUTPUTS % TAPS, c = e / OUTPUTS / TAPS;
    const T* from = static_cast<const T*>(g.w) + c * g.w_c + tap / F::kw * g.w_h + tap % F::kw * g.w_w;
    filters[e] = o < g.o ? to_float(from[o * g.w_o]) : 0.f;
  }
  for (i64 id = blockIdx.x / g.blocks; id < g.tiles; id += gridDim.x / g.blocks) {
    i64 n = id / (g.tiles_h * g.tiles_w), place = id % (g.tiles_h * g.tiles_w);
    i64 p = place / g.tiles_w * TH, q = place % g.tiles_w * TW;
    i64 top = p * F::sh - g.lo_h, left = q * F::sw - g.lo_w;
    // Neighbouring threads along whichever of channels and pixels is contiguous.
    bool channels_first = g.x_step.c == 1;
    for (int e = me; e < C * ROWS * PITCH; e += THREADS) {
      int c = channels_first ? e % C : e / (ROWS * PITCH), spot = channels_first ? e / C : e % (ROWS * PITCH);
      i64 h = top + spot / PITCH, w = left + spot % PITCH;
      bool inside = h >= 0 && h < g.h && w >= 0 && w < g.wide;
      pixels[c * (ROWS * PITCH) + spot] = inside ? to_float(static_cast<const T*>(g.x)[at(g.x_step, n, h, w, c)]) : 0.f;
    }
    __syncthreads();
    float sums[PLACES][MINE];
#pragma unroll
    for (int i = 0; i < PLACES * MINE; i++) sums[i / MINE][i % MINE] = 0.f;
#pragma unroll 1
    for (int c = 0; c < C; c++) {
#pragma unroll 1
      for (int i = 0; i < F::kh; i++) {
        const float* row = pixels + (c * ROWS + down * F::sh + i * F::dh) * PITCH + across * F::sw;
        const float* taps = filters + (c * F::kh + i) * F::kw * OUTPUTS + lane;
        Pack<float, 4> x[SPAN / 4];
#pragma unroll
        for (int e = 0; e < SPAN / 4; e++) x[e] = load<Pack<float, 4>>(row + 4 * e);
#pragma unroll
        for (int j = 0; j < F::kw; j++) {
          Pack<float, 4> low = load<Pack<float, 4>>(taps + j * OUTPUTS);
          Pack<float, 4> high = load<Pack<float, 4>>(taps + j * OUTPUTS + 4);
#pragma unroll
          for (int s = 0; s < PLACES; s++) {
            const int column = s * F::sw + j * F::dw;
            float value = x[column / 4].e[column % 4];
#pragma unroll
            for (int o = 0; o < 4; o++) {
              sums[s][o] += value * low.e[o];
              sums[s][o + 4] += value * high.e[o];
            }
          }
        }
      }
    }
    __syncthreads();  // the next tile takes the place of this one

    // Worked out again: during the products every register holds sums, pixels or taps.
    forget(id);
    n = id / (g.tiles_h * g.tiles_w), place = id % (g.tiles_h * g.tiles_w);
    p = place / g.tiles_w * TH, q = place % g.tiles_w * TW;
    i64 row = p + down;
    if (row >= g.p) continue;
    // V results at a time along the places or along the channels, whichever are contiguous in y.
    constexpr int OUTER = pixels_first ? MINE : PLACES, INNER = pixels_first ? PLACES : MINE;
    i64 o = first + lane, column = q + across;
    int places = within(g.q - column, PLACES), channels = within(g.o - o, MINE);
    int outer = pixels_first ? channels : places, inner = pixels_first ? places : channels;
    i64 outer_step = pixels_first ? g.y_step.c : g.y_step.w, inner_step = pixels_first ? g.y_step.w : g.y_step.c;
    i64 r_outer = pixels_first ? g.r_step.c : g.r_step.w, r_inner = pixels_first ? g.r_step.w : g.r_step.c;
    T* to = static_cast<T*>(g.y) + at(g.y_step, n, row, column, o);
    const T* residual = has_residual ? static_cast<const T*>(g.residual) + at(g.r_step, n, row, column, o) : nullptr;
    float bias[MINE];
    const T* from = static_cast<const T*>(g.b) + (has_bias ? o * g.b_o : 0);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      bias[i] = has_bias && i < channels ? to_sum(*from) : 0.f;
      from += g.b_o;
    }
#pragma unroll
    for (int i = 0; i < OUTER; i++) {
      if (i >= outer) break;
      const T* other = residual;
#pragma unroll
      for (int j = 0; j < INNER; j += V) {
        Pack<T, V> some;
#pragma unroll
        for (int v = 0; v < V; v++) {
          if (j + v >= inner) break;
          float sum = pixels_first ? sums[j + v][i] : sums[i][j + v];
          if (has_bias) sum += bias[pixels_first ? i : j + v];
          if (has_residual) sum += to_sum(*other);
          other += has_residual ? r_inner : 0;
          round_to(some.e[v], activated<activation>(sum));
        }
        if (j + V <= inner) {
          store_global(to + j * inner_step, some);
        } else {
#pragma unroll
          for (int v = 0; v < V; v++)
            if (j + v < inner) to[(j + v) * inner_step] = some.e[v];
        }
      }
      to += outer_step;
      residual += has_residual ? r_outer : 0;
    }
  }
}
