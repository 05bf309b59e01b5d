// Kernels whose blocks wait for each other, with one fault each (test_cuda_together.py).

struct Numbers {
  const float* x;
  float* y;
  u32* shown;  // 4 words a block, zeros
  i64 n;
};

#define KERNEL(name) KW_DEVICE void name(const Numbers& g, unsigned char*)

KW_DEVICE void show_mine(const Numbers& g, u32* to) {
  if (threadIdx.x < 4) show(to + 4 * blockIdx.x + threadIdx.x, bits_of_float(g.x[4 * blockIdx.x + threadIdx.x]));
}
// What the next block shows.
KW_DEVICE void wait_for_next(const Numbers& g, const u32* from) {
  u32 words[4];
  for (;;) {
    look(words, from + 4 * ((blockIdx.x + 1) % gridDim.x));
    if (all_lanes(words[0] && words[1] && words[2] && words[3])) break;
    not_yet();
  }
  if (threadIdx.x < 4) g.y[4 * blockIdx.x + threadIdx.x] = float_of_bits(words[threadIdx.x]);
}

KERNEL(right) {  // nothing is wrong with this one
  show_mine(g, g.shown);
  wait_for_next(g, g.shown);
}

KERNEL(looks_once) {
  show_mine(g, g.shown);
  u32 words[4];
  look(words, g.shown + 4 * ((blockIdx.x + 1) % gridDim.x));
  if (threadIdx.x < 4) g.y[4 * blockIdx.x + threadIdx.x] = float_of_bits(words[threadIdx.x]);
}

KERNEL(looks_at_one_word) {
  show_mine(g, g.shown);
  u32 words[4];
  do {
    look(words, g.shown + 4 * ((blockIdx.x + 1) % gridDim.x));
    if (!all_lanes(words[0])) not_yet();
  } while (!all_lanes(words[0]));
  if (threadIdx.x < 4) g.y[4 * blockIdx.x + threadIdx.x] = float_of_bits(words[threadIdx.x]);
}

KERNEL(waits_before_it_shows) {
  wait_for_next(g, g.shown);
  show_mine(g, g.shown);
}

KERNEL(shows_twice) {
  show_mine(g, g.shown);
  wait_for_next(g, g.shown);
  show_mine(g, g.shown);
}

KERNEL(shows_zero) {
  if (threadIdx.x < 4) show(g.shown + 4 * blockIdx.x + threadIdx.x, 0);
  wait_for_next(g, g.shown);
}

KERNEL(half_a_warp_waits) {
  show_mine(g, g.shown);
  if (threadIdx.x % 32 < 16) wait_for_next(g, g.shown);
}
