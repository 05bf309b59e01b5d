// A two-dimensional convolution as the CUDA C++ kernels of this folder take it:
//
//   y[n, o, p, q] = activation(sum over c, i, j of x[n, c, p sh - lo_h + i dh, q sw - lo_w + j dw] w[o, c, i, j]
//                              + b[o] + residual[n, o, p, q])
//
// Filter, stride and dilation are constants of the code; where channels and pixels lie, only the strides tell.
#pragma once

// Of an array of images, in elements.
struct Steps {
  i64 n, h, w, c;
};

// Eight bytes a field, in the order that conv/cuda_cupy.py packs.
struct Window {
  const void *x, *w, *b, *residual;
  void* y;
  i64 n, c, o, h, wide, p, q, lo_h, lo_w;
  Steps x_step, y_step, r_step;
  i64 w_o, w_c, w_h, w_w, b_o;
  i64 blocks, tiles_h, tiles_w, tiles;  // blocks of channels; tiles of an image, and of all images
};

template <int KH, int KW, int SH, int SW, int DH, int DW>
struct Filter {
  static constexpr int kh = KH, kw = KW, sh = SH, sw = SW, dh = DH, dw = DW;
  // Elements of the input under that many places in a row.
  static KW_DEVICE constexpr int high(int places) { return (places - 1) * SH + (KH - 1) * DH + 1; }
  static KW_DEVICE constexpr int wide(int places) { return (places - 1) * SW + (KW - 1) * DW + 1; }
};

KW_DEVICE i64 at(const Steps& step, i64 n, i64 h, i64 w, i64 c) {
  return n * step.n + h * step.h + w * step.w + c * step.c;
}

// What becomes of one sum.
template <class T, bool has_bias, bool has_residual, int activation>
KW_DEVICE T ended(const Window& g, i64 n, i64 p, i64 q, i64 o, float sum) {
  if (has_bias) sum += to_sum(static_cast<const T*>(g.b)[o * g.b_o]);
  if (has_residual) sum += to_sum(static_cast<const T*>(g.residual)[at(g.r_step, n, p, q, o)]);
  T result;
  round_to(result, activated<activation>(sum));
  return result;
}
