// What kernels of every family share: elements in vectors, activations, batches of matrices, rounding up.
#pragma once

KW_DEVICE i64 ceil_div(i64 x, i64 y) { return (x + y - 1) / y; }
// What is left, but no more than that.
KW_DEVICE int within(i64 left, int most) { return left < most ? int(left) : most; }

// The type that sums of T are kept in.
template <class T>
struct SumOf {
  typedef float type;
};
template <>
struct SumOf<double> {
  typedef double type;
};

KW_DEVICE double to_sum(double x) { return x; }
KW_DEVICE float to_sum(float x) { return x; }
KW_DEVICE float to_sum(bf16 x) { return to_float(x); }
KW_DEVICE float to_sum(f16 x) { return to_float(x); }

// Elements that one load or store moves.
template <class T, int count>
struct __align__(sizeof(T) * count) Pack {
  T e[count];
};

// kernels/activations.py, by their place in its ACTIVATIONS; 0 is none.
enum Activation { NONE, RELU, GELU, GELU_TANH, SIGMOID, TANH, SILU };

KW_DEVICE float exp_of(float x) { return expf(x); }
KW_DEVICE double exp_of(double x) { return exp(x); }
KW_DEVICE float tanh_of(float x) { return tanhf(x); }
KW_DEVICE double tanh_of(double x) { return tanh(x); }
KW_DEVICE float erfc_of(float x) { return erfcf(x); }
KW_DEVICE double erfc_of(double x) { return erfc(x); }

// x times the logistic function of z; for z far below 0 the denominator is infinite and the quotient 0.
template <class S>
KW_DEVICE S times_sigmoid(S x, S z) {
  return quotient(x, S(1) + exp_of(-z));
}

template <int activation, class S>
KW_DEVICE S activated(S x) {
  switch (activation) {
    case RELU: return x < S(0) ? S(0) : x;  // NaN stays
    case GELU: return x * (S(0.5) * erfc_of(x * S(-0.70710678118654752)));
    case GELU_TANH: return times_sigmoid(x, S(1.5957691216057308) * (x + S(0.044715) * x * x * x));
    case SIGMOID: return times_sigmoid(S(1), x);
    case TANH: return tanh_of(x);
    case SILU: return times_sigmoid(x, x);
    default: return x;
  }
}
