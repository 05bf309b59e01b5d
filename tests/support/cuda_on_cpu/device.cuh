// CUDA C++ on the CPU: what kernels/cuda/device.cuh says in PTX, and the language around it, in plain C++.
//
// A block is run by one fiber a thread. A thread runs until it waits: at a barrier, in an operation of its whole warp,
// at its end; then a schedule says who goes on. Blocks run one after the other; those of a cooperative launch by turns,
// until each waits for another. What they show each other is seen late, and in any order, where copies are late.
// Shared memory is filled with NaN before each block, and is exactly as long as the launch said, so that the address
// sanitizer sees what goes beyond it.
// Asynchronous copies are made at once or not before somebody waits for them, as the schedule says: code that is right
// under both uses neither too early what it copies, nor overwrites too early what is still read.
//
// Reported: barriers that some threads of a block never reach, or where they wait at different ones; operations of a
// warp that not all of its lanes take part in; a misaligned vector; an asynchronous copy that is never waited for; blocks
// that wait for each other for ever; a word shown twice.
#pragma once
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "fibers.hpp"

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace on_cpu {

// FORWARD and REVERSE: a warp as far as it can go, then the next one. LANES: the first lanes of all warps, then the
// second ones, and so on.
enum Order { FORWARD, REVERSE, SHUFFLED, LANES };
enum State { READY, AT_BARRIER, IN_WARP, WAITING, DONE };

struct Copy {
  void* to;
  const void* from;
  int there, all;
};

struct Thread {
  fibers::Fiber fiber;
  dim3 index;
  State state = READY;
  int line = 0;  // of the barrier, or of the operation of the warp
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;  // the first of them is the one committed first
};

// What the lanes of a warp show each other; two of them, since a fast lane may be one operation ahead.
struct Lane {
  u32 words[8];
  const void* address;
};

struct Warp {
  Lane lanes[2][32];
  int waiting = 0;
  unsigned char turn[32] = {};
};

// A word on its way to where other blocks look for it.
struct Word {
  u32* to;
  u32 word;
};

struct Block {
  dim3 index, size, grid;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned char* shared = nullptr;
  fibers::Fiber scheduler;
  void (*kernel)(const void*) = nullptr;
  const void* arguments = nullptr;
  bool late = false, together = false, ended = false;
};

inline Block* block = nullptr;
inline Thread* current = nullptr;
inline std::vector<Word> shown;  // by blocks that run together, and not to be seen yet
inline u64 progress = 0;         // of all blocks: barriers passed, words shown, threads that ended

[[noreturn]] inline void fail(const char* format, ...) {
  fprintf(stderr, "cuda on cpu: block %u, %u, %u", block->index.x, block->index.y, block->index.z);
  if (current) fprintf(stderr, ", thread %u, %u, %u", current->index.x, current->index.y, current->index.z);
  fprintf(stderr, ": ");
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n");
  _Exit(3);
}

inline int number() { return int(current - block->threads.data()); }
inline void wait(State state, int line) {
  current->state = state;
  current->line = line;
  Thread* me = current;
  fibers::go(me->fiber, block->scheduler);
  current = me;
}
inline void barrier(int line) { wait(AT_BARRIER, line); }

// All lanes show something and go on when all have; the result is what they showed.
inline const Lane* meet(const Lane& mine, int operation) {
  Warp& warp = block->warps[number() / 32];
  int lane = number() % 32, turn = warp.turn[lane];
  warp.turn[lane] ^= 1;
  warp.lanes[turn][lane] = mine;
  warp.waiting++;
  wait(IN_WARP, operation);
  return warp.lanes[turn];
}

inline void perform(const Copy& copy) {
  memcpy(copy.to, copy.from, copy.there);
  memset(static_cast<char*>(copy.to) + copy.there, 0, copy.all - copy.there);
}
inline void start_copy(void* to, const void* from, int there, int all) {
  if (reinterpret_cast<uintptr_t>(to) % all || (there && reinterpret_cast<uintptr_t>(from) % all))
    fail("an asynchronous copy of %d bytes with a misaligned address", all);
  Copy copy{to, from, there, all};
  if (block->late)
    current->open.push_back(copy);
  else
    perform(copy);
}
inline void commit() {
  current->groups.push_back(current->open);
  current->open.clear();
}
inline void finish(size_t left) {
  while (current->groups.size() > left) {
    for (const Copy& copy : current->groups.front()) perform(copy);
    current->groups.erase(current->groups.begin());
  }
}

inline void body() {
  fibers::arrive(current->fiber);
  block->kernel(block->arguments);
  size_t pending = current->open.size();
  for (const auto& group : current->groups) pending += group.size();
  if (pending) fail("ends with %zu asynchronous copies that nobody waited for", pending);
  current->state = DONE;
  progress++;
  fibers::go(current->fiber, block->scheduler);
  fail("a thread that ended goes on");
}

// Lets the lanes of a warp go on when all of them wait in the same operation of the warp, and nobody can go on else.
inline bool release_warp(size_t number) {
  Warp& warp = block->warps[number];
  if (!warp.waiting) return false;
  Thread* first = &block->threads[number * 32];
  for (int lane = 0; lane < 32; lane++) {
    if (first[lane].state != IN_WARP || first[lane].line != first[0].line) {
      current = &first[lane];
      fail("%d lanes of its warp wait in an operation of the whole warp, this one %s", warp.waiting,
           first[lane].state == DONE ? "has ended" : "is elsewhere");
    }
  }
  for (int lane = 0; lane < 32; lane++) first[lane].state = READY;
  warp.waiting = 0;
  return true;
}

// Lets the threads of the block go on when all of them wait at one barrier. False when all have ended.
inline bool release_block() {
  size_t done = 0;
  Thread* first = nullptr;
  for (Thread& thread : block->threads) {
    done += thread.state == DONE;
    if (thread.state == AT_BARRIER && !first) first = &thread;
  }
  if (!first) return false;
  for (Thread& thread : block->threads)
    if (thread.state == WAITING) return false;
  for (Thread& thread : block->threads) {
    if (thread.state == AT_BARRIER && thread.line != first->line) {
      current = &thread;
      fail("waits at the barrier in line %d while another thread waits at that in line %d", thread.line, first->line);
    }
  }
  if (done) {
    current = first;
    fail("waits at the barrier in line %d, which %zu threads of the block will never reach", first->line, done);
  }
  for (Thread& thread : block->threads) thread.state = READY;
  progress++;
  return true;
}

inline void go_on(size_t number) {
  if (block->threads[number].state != READY) return;
  current = &block->threads[number];
  fibers::go(block->scheduler, current->fiber);
  current = nullptr;
}

// Numbers without a pattern that matters here (Marsaglia, "Xorshift RNGs", 2003).
struct Random {
  u64 state;
  u64 below(u64 end) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % end;
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; i--) {
      size_t j = below(i);
      T item = items[j];
      items[j] = items[i - 1];
      items[i - 1] = item;
    }
  }
};

inline void start_block(size_t shared) {
  memset(block->shared, 0xFF, shared);
  for (Thread& thread : block->threads) {
    thread.state = READY;
    thread.open.clear();
    thread.groups.clear();
    fibers::prepare(thread.fiber, body);
  }
  for (Warp& warp : block->warps) warp.waiting = 0;
}

// Until all threads have ended, or some wait for what another block shows.
inline void advance_block(int order, Random& random) {
  size_t count = block->threads.size(), warps = block->warps.size();
  std::vector<size_t> sequence(count);
  for (size_t i = 0; i < count; i++) sequence[i] = count % 32 ? i : i % warps * 32 + i / warps;
  do {
    if (order == FORWARD || order == REVERSE) {
      // One warp after the other, each as far as it can go without the rest of the block.
      for (size_t w = 0; w < warps; w++) {
        size_t warp = order == REVERSE ? warps - 1 - w : w, first = warp * 32;
        do {
          for (size_t i = 0; i < 32; i++) {
            size_t number = first + (order == REVERSE ? 31 - i : i);
            if (number < count) go_on(number);
          }
        } while (release_warp(warp));
      }
    } else {
      // All warps side by side.
      for (bool moved = true; moved;) {
        if (order == SHUFFLED) random.shuffle(sequence);
        for (size_t number : sequence) go_on(number);
        moved = false;
        for (size_t warp = 0; warp < warps; warp++) moved |= release_warp(warp);
      }
    }
  } while (release_block());
}

inline void set_block(Block& to, dim3 grid, dim3 size, u64 number) {
  block = &to;
  to.grid = grid;
  to.size = size;
  unsigned count = size.x * size.y * size.z;
  if (to.threads.size() < count) to.threads.resize(1024);
  to.threads.resize(count);
  to.warps.assign((count + 31) / 32, Warp());
  for (unsigned i = 0; i < count; i++) to.threads[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  to.index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
}

inline unsigned char* shared_memory(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 1024, bytes ? bytes : 1)) fail("no memory");
  return static_cast<unsigned char*>(memory);
}

// Makes some of the words that were shown visible, in any order; all of them unless they come late.
inline void deliver(bool late, Random& random) {
  random.shuffle(shown);
  size_t kept = late && shown.size() > 1 ? random.below(shown.size()) : 0;
  while (shown.size() > kept) {
    *shown.back().to = shown.back().word;
    shown.pop_back();
    progress++;
  }
}

// All blocks of a launch that is cooperative, by turns: each goes as far as it can without the others.
inline void run_together(const std::vector<u64>& numbers, dim3 grid, dim3 size, size_t shared, int order, Random& random,
                         void (*kernel)(const void*), const void* arguments, bool late) {
  static std::vector<Block> all;  // their stacks are used again by the next launch
  if (all.size() < numbers.size()) all.resize(numbers.size());
  for (size_t i = 0; i < numbers.size(); i++) {
    set_block(all[i], grid, size, numbers[i]);
    all[i].kernel = kernel;
    all[i].arguments = arguments;
    all[i].late = late;
    all[i].together = true;
    all[i].ended = false;
    all[i].shared = shared_memory(shared);
    start_block(shared);
  }
  shown.clear();
  for (size_t left = numbers.size(); left;) {
    u64 before = progress;
    for (size_t i = 0; i < numbers.size(); i++) {
      block = &all[i];
      if (block->ended) continue;
      for (Thread& thread : block->threads)
        if (thread.state == WAITING) thread.state = READY;
      advance_block(order, random);
      block->ended = true;
      for (Thread& thread : block->threads) block->ended &= thread.state == DONE;
      left -= block->ended;
      if (!late) deliver(false, random);
    }
    deliver(late, random);
    if (left && progress == before) {
      for (size_t i = 0; i < numbers.size(); i++)
        if (!all[i].ended) block = &all[i];
      for (Thread& thread : block->threads)
        if (thread.state == WAITING) current = &thread;
      fail("waits for words that no block shows");
    }
  }
  deliver(false, random);
  for (size_t i = 0; i < numbers.size(); i++) free(all[i].shared);
}

inline void run(void (*kernel)(const void*), const void* arguments, dim3 grid, dim3 size, size_t shared, int order,
                unsigned seed, bool late, bool together) {
  static Block only;  // its stacks are used again by the next launch
  set_block(only, grid, size, 0);
  only.kernel = kernel;
  only.arguments = arguments;
  only.late = late;
  unsigned count = size.x * size.y * size.z;
  if (!count || count > 1024) fail("a block of %u threads", count);
  if (shared > 232448) fail("%zu bytes of shared memory; no chip has more than 232448", shared);
  Random random{0x9E3779B97F4A7C15ull * (seed + 1)};
  std::vector<u64> blocks(u64(grid.x) * grid.y * grid.z);
  for (u64 i = 0; i < blocks.size(); i++) blocks[i] = order == REVERSE ? blocks.size() - 1 - i : i;
  if (order == SHUFFLED) random.shuffle(blocks);
  if (together) {
    run_together(blocks, grid, size, shared, order, random, kernel, arguments, late);
    return;
  }
  only.shared = shared_memory(shared);
  for (u64 i : blocks) {
    only.index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    start_block(shared);
    advance_block(order, random);
  }
  free(only.shared);
}

}  // namespace on_cpu

// --- the language --------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define threadIdx (on_cpu::current->index)
#define blockIdx (on_cpu::block->index)
#define blockDim (on_cpu::block->size)
#define gridDim (on_cpu::block->grid)
#define __syncthreads() on_cpu::barrier(__LINE__)

template <class T>
T atomicAdd(T* to, T value) {
  T old = *to;
  *to = old + value;
  return old;
}

// --- kernels/cuda/device.cuh ---------------------------------------------------------------------------------------

#define KW_DEVICE inline
#define KW_PARAMETER const
#define KW_SHARED(name) unsigned char* name = on_cpu::block->shared

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

inline float float_of_bits(u32 bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline u32 bits_of_float(float x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return float_of_bits(u32(x.bits) << 16); }
inline float to_float(f16 x) {
  int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                              : ldexpf(float(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
  return x.bits & 0x8000 ? -size : size;
}
inline void round_to(float& y, float x) { y = x; }
inline void round_to(double& y, double x) { y = x; }
inline void round_to(bf16& y, float x) {
  u32 bits = bits_of_float(x);
  y.bits = x != x ? 0x7FFF : u16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline void round_to(f16& y, float x) {
  u16 sign = bits_of_float(x) >> 31 ? 0x8000 : 0;
  float size = fabsf(x);
  if (x != x) {
    y.bits = 0x7FFF;
  } else if (size >= 65520.f) {
    y.bits = sign | 0x7C00;
  } else {
    // In units of the last place, which nearbyint rounds to even; a carry into the exponent is right as it is.
    int exponent = size > 0 && ilogbf(size) > -14 ? ilogbf(size) : -14;
    int units = int(nearbyintf(ldexpf(size, 10 - exponent)));
    y.bits = sign | u16(units + (exponent == -14 ? 0 : (exponent + 14) << 10));
  }
}

template <class P>
P load(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(P)) on_cpu::fail("a load of %zu bytes from a misaligned address", sizeof(P));
  return *static_cast<const P*>(from);
}
template <class P>
void store_shared(void* to, const P& pack) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(P)) on_cpu::fail("a store of %zu bytes to a misaligned address", sizeof(P));
  *static_cast<P*>(to) = pack;
}
template <class P>
void store_global(void* to, const P& pack) {
  store_shared(to, pack);
}

inline void copy_element(float* to, const float* from, bool there) { on_cpu::start_copy(to, from, there ? 4 : 0, 4); }
inline void copy_element(double* to, const double* from, bool there) { on_cpu::start_copy(to, from, there ? 8 : 0, 8); }
inline void copy_vector(void* to, const void* from, int bytes) { on_cpu::start_copy(to, from, bytes, 16); }
inline void commit_copies() { on_cpu::commit(); }
template <int left>
void wait_copies() {
  on_cpu::finish(left);
}

inline u16 half_at(const on_cpu::Lane& lane, int element) {
  if (reinterpret_cast<uintptr_t>(lane.address) % 16) on_cpu::fail("ldmatrix of a row that is not aligned to 16 bytes");
  u16 bits;
  memcpy(&bits, static_cast<const char*>(lane.address) + 2 * element, 2);
  return bits;
}
inline void load_matrices(u32 (&r)[4], const void* row) {
  const on_cpu::Lane* lanes = on_cpu::meet({{}, row}, __LINE__);
  int lane = on_cpu::number() % 32;
  for (int i = 0; i < 4; i++) {
    const on_cpu::Lane& from = lanes[8 * i + lane / 4];
    r[i] = half_at(from, lane % 4 * 2) | u32(half_at(from, lane % 4 * 2 + 1)) << 16;
  }
}
inline void load_matrices_turned(u32 (&r)[4], const void* row) {
  const on_cpu::Lane* lanes = on_cpu::meet({{}, row}, __LINE__);
  int lane = on_cpu::number() % 32;
  for (int i = 0; i < 4; i++) {
    const on_cpu::Lane* from = lanes + 8 * i + lane % 4 * 2;
    r[i] = half_at(from[0], lane / 4) | u32(half_at(from[1], lane / 4)) << 16;
  }
}

// Element `half` of the two in a register, as a float.
template <class T>
float element(u32 word, int half) {
  return to_float(T{u16(word >> 16 * half)});
}

// The PTX manual's tables of mma.m16n8k16, read from the side of a result: row g (+ 8) of a, column 2 t (+ 1) of b.
template <class T>
void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, T) {
  const on_cpu::Lane* lanes = on_cpu::meet({{a[0], a[1], a[2], a[3], b0, b1}, nullptr}, __LINE__);
  int g = on_cpu::number() % 32 / 4, t = on_cpu::number() % 4;
  for (int v = 0; v < 4; v++) {
    int low = v / 2, column = 2 * t + v % 2;
    float sum = 0;
    for (int k = 0; k < 16; k++)
      sum += element<T>(lanes[4 * g + k % 8 / 2].words[k / 8 * 2 + low], k % 2) *
             element<T>(lanes[4 * column + k % 8 / 2].words[4 + k / 8], k % 2);
    d[v] += sum;
  }
}

inline float quotient(float x, float y) { return x / y; }
inline double quotient(double x, double y) { return x / y; }

inline void forget(i64&) {}

inline bool all_lanes(bool x) {
  const on_cpu::Lane* lanes = on_cpu::meet({{u32(x)}, nullptr}, __LINE__);
  u32 all = 1;
  for (int lane = 0; lane < 32; lane++) all &= lanes[lane].words[0];
  return all;
}
inline u32 across(u32 x, int bits) {
  int from = on_cpu::number() % 32 ^ bits;
  return on_cpu::meet({{x}, nullptr}, __LINE__)[from].words[0];
}
inline float across(float x, int bits) {
  int from = on_cpu::number() % 32 ^ bits;
  return float_of_bits(on_cpu::meet({{bits_of_float(x)}, nullptr}, __LINE__)[from].words[0]);
}

// Words shown to other blocks: seen when the schedule says so. A slot serves once, so a word is shown over zero.
inline void show(u32* to, u32 word) {
  if (!on_cpu::block->together) on_cpu::fail("shows words to blocks that do not run together with it");
  if (reinterpret_cast<uintptr_t>(to) % 4) on_cpu::fail("shows a word at a misaligned address");
  if (*to) on_cpu::fail("shows a word where there was one before");
  if (!word) on_cpu::fail("shows a word that looks like none");
  on_cpu::shown.push_back({to, word});
  on_cpu::progress++;
}
inline void look(u32 (&w)[4], const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16) on_cpu::fail("a look at four words from a misaligned address");
  memcpy(w, from, 16);
}
inline void not_yet() {
  if (!on_cpu::block->together) on_cpu::fail("waits for blocks that do not run together with it");
  on_cpu::wait(on_cpu::WAITING, __LINE__);
}
