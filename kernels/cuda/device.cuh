// What CUDA C++ kernels ask of the device beyond plain C++: asynchronous copies, tensor-core instructions, 16-bit
// conversions. All inline PTX of this package is in this file and needs no header, so that NVRTC compiles a kernel
// without a toolkit; tests/support/cuda_on_cpu/device.cuh says in C++ what each of these does.
#pragma once

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define KW_DEVICE __device__ __forceinline__
#define KW_PARAMETER const __grid_constant__
// The dynamic shared memory of the block; a launch says how much there is.
#define KW_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

KW_DEVICE float float_of_bits(u32 bits) { return __uint_as_float(bits); }
KW_DEVICE u32 bits_of_float(float x) { return __float_as_uint(x); }
KW_DEVICE float to_float(float x) { return x; }
KW_DEVICE float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
KW_DEVICE float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
KW_DEVICE void round_to(float& y, float x) { y = x; }
KW_DEVICE void round_to(double& y, double x) { y = x; }
KW_DEVICE void round_to(bf16& y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
KW_DEVICE void round_to(f16& y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

// Vectors, at addresses that are multiples of their size. What goes to global memory is said in PTX: the compiler takes
// a vector to pieces that it cannot see the alignment of.
template <class P>
KW_DEVICE P load(const void* from) {
  return *static_cast<const P*>(from);
}
template <class P>
KW_DEVICE void store_shared(void* to, const P& pack) {
  *static_cast<P*>(to) = pack;
}
KW_DEVICE void store_words(void* to, const u32 (&w)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
}
KW_DEVICE void store_words(void* to, const u32 (&w)[2]) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
}
KW_DEVICE void store_words(void* to, const u32 (&w)[1]) { *static_cast<u32*>(to) = w[0]; }
template <class P>
KW_DEVICE void store_global(void* to, const P& pack) {
  union {
    P pack;
    u32 words[sizeof(P) < 4 ? 1 : sizeof(P) / 4];
  } both = {pack};
  if (sizeof(P) < 4)
    *static_cast<P*>(to) = pack;
  else
    store_words(to, both.words);
}

// --- asynchronous copies from global to shared memory (sm_80) ------------------------------------------------------
// What is not there is not read and becomes zeros. A copy may be used after wait_copies<left>() and a barrier,
// where `left` is how many of the groups committed last may still be on their way.

KW_DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

KW_DEVICE void copy_element(float* to, const float* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 4 : 0)
               : "memory");
}
KW_DEVICE void copy_element(double* to, const double* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 8 : 0)
               : "memory");
}
// 16 bytes, of which the first `bytes` are there; both addresses are multiples of 16.
KW_DEVICE void copy_vector(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
KW_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left>
KW_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// --- tensor cores (sm_80) ------------------------------------------------------------------------------------------
// Four 8x8 matrices of 16-bit elements from shared memory, by all lanes of a warp: lane 8 i + r gives the address of
// row r of matrix i; lane l gets elements 2 (l % 4) and the next of row l / 4, or of column l / 4 if turned.

KW_DEVICE void load_matrices(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
KW_DEVICE void load_matrices_turned(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b of a 16x16 and a 16x8 matrix, sums in float32. With g = lane / 4 and t = lane % 4:
//   a[0], a[1], a[2], a[3]: rows g, g + 8, g, g + 8, columns 2 t (+ 8 in the last two) and the next
//   b0, b1: column g, rows 2 t (+ 8 in b1) and the next       d: rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1, ...
KW_DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
KW_DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, f16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

KW_DEVICE float quotient(float x, float y) { return __fdividef(x, y); }
KW_DEVICE double quotient(double x, double y) { return x / y; }

// From here on the compiler no longer knows x: what is computed from it again need not be kept in registers.
KW_DEVICE void forget(i64& x) { asm volatile("" : "+l"(x)); }

// --- between the lanes of a warp, and between the blocks of a launch -----------------------------------------------

// Whether it holds in all lanes of the warp.
KW_DEVICE bool all_lanes(bool x) { return __all_sync(0xFFFFFFFFu, x); }
// What the lane shows whose number differs in these bits.
KW_DEVICE u32 across(u32 x, int bits) { return __shfl_xor_sync(0xFFFFFFFFu, x, bits); }
KW_DEVICE float across(float x, int bits) { return __shfl_xor_sync(0xFFFFFFFFu, x, bits); }

// Words that blocks of one launch show each other while they run. Memory model of PTX: both are strong operations
// (relaxed, of the scope of the GPU) on aligned words of 32 bits, each of which is read as a whole, as it was before or
// as it was written; a vector is read as four words in any order. Nothing is said about any other word.
KW_DEVICE void show(u32* to, u32 word) { asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(to), "r"(word) : "memory"); }
KW_DEVICE void look(u32 (&w)[4], const void* from) {
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "l"(from)
               : "memory");
}
// Called by all lanes of a warp that found words not there yet, before they look again.
KW_DEVICE void not_yet() {}
