// What the recurrences of this folder have in common: which sequences and units a block has, how blocks show each other
// their numbers, and the product with the recurrent weights, which stay in registers for all steps.
//
//   grid     heads x tiles of sequences x blocks of units; those of one head and tile work together, no others
//   block    8 UG units with all their gates, 8 NT sequences; its warps split k, the inner length of the product
//            with MANY: several tiles by turns, so that what one waits for comes while the others are computed
//   step     look for the numbers of the step before  ->  product, a part a warp  ->  parts added up, activations
//            ->  show the own numbers                                            (one barrier of the block a step)
//
// No barrier crosses blocks, and there is no flag. What a block computes in a step goes to words that were zero before
// the launch, in a place that is used once; a number that is +0 is shown as -0, so that a word is there when it is not
// zero (16-bit numbers go two to a word). Who needs a word looks until it is there: from the store of one block to the
// registers of another is one way through the L2 cache. The words are data and flag in one, so no order among different
// words is asked for, and relaxed operations are enough: each aligned word of 32 bits is read as a whole.
#pragma once

// --- numbers as they are shown -------------------------------------------------------------------------------------

KW_DEVICE u32 bits_of(float x) { return bits_of_float(x); }
KW_DEVICE u32 bits_of(bf16 x) { return x.bits; }
KW_DEVICE u32 bits_of(f16 x) { return x.bits; }

// x as T, -0 for +0.
template <class T>
KW_DEVICE u32 shown_bits(float x) {
  T y;
  round_to(y, x);
  u32 bits = bits_of(y);
  return bits ? bits : sizeof(T) == 2 ? 0x8000u : 0x80000000u;
}
template <class T>
KW_DEVICE u32 minus_zeros() {
  return sizeof(T) == 2 ? 0x80008000u : 0x80000000u;
}

// Shows what the lanes of a warp have for neighbouring units (those of lane / 4) in one row; `there`: whether this
// lane's number is one. Called by the whole warp. With 16 bits, the lane of an even unit writes that of its neighbour.
template <class T>
KW_DEVICE void show_unit(T* to, u32 bits, int unit, bool there, bool write) {
  if (sizeof(T) == 2) {
    if (!there) bits = 0x8000u;
    u32 other = across(bits, 4);
    if (there && write && unit % 2 == 0) show(reinterpret_cast<u32*>(to), bits | other << 16);
  } else if (there && write) {
    show(reinterpret_cast<u32*>(to), bits);
  }
}

KW_DEVICE bool missing(const u32 (&w)[4]) { return !w[0] || !w[1] || !w[2] || !w[3]; }

// Vectors of four words, `apart` elements one from the next in each of ROWS rows; those of rows that are null, and from
// `count` on, are minus zeros. All lanes of the warp call it, and none goes on before all words are there.
template <class T, int COUNT, int ROWS>
KW_DEVICE void collect(u32 (&v)[COUNT][ROWS][4], const T* const (&rows)[ROWS], int first, int count, int apart) {
#pragma unroll
  for (int i = 0; i < COUNT; i++)
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      if (rows[r] && first + i < count) {
        look(v[i][r], rows[r] + (first + i) * apart);
      } else {
        v[i][r][0] = v[i][r][1] = v[i][r][2] = v[i][r][3] = minus_zeros<T>();
      }
    }
  for (;;) {
    bool there = true;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
      for (int r = 0; r < ROWS; r++) there = there && !missing(v[i][r]);
    if (all_lanes(there)) break;
    not_yet();
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        if (missing(v[i][r])) look(v[i][r], rows[r] + (first + i) * apart);
  }
}

// --- who does what -------------------------------------------------------------------------------------------------

struct Share {
  int head, group, first_unit, tiles;
  int first_tile;
};

template <class Call>
KW_DEVICE Share share_of(const Call& g, int units) {
  i64 id = blockIdx.x, team = g.first_team + id / g.unit_blocks;
  i64 group = team % g.groups, first = group * g.turns, left = g.tiles - first;
  return {int(team / g.groups), int(group), int(id % g.unit_blocks) * units, within(left, int(g.turns)), int(first)};
}

// The sequences of a tile, the longest first: so those that are still going on are always the first ones.
template <int BT>
struct Rows {
  int row[BT];      // which sequence; -1 beyond the batch
  int length[BT];   // how many steps
  int skip[2][BT];  // by turns: whether the states before the step are zeros
  i64 origin[BT];   // where its numbers of step 0 would lie among those that are shown, in elements
};

template <class Call>
KW_DEVICE int length_of(const Call& g, i64 row) {
  i64 length = g.lengths[row * g.lengths_step];
  return int(length < 0 ? 0 : length > g.steps ? g.steps : length);
}

template <int BT, int THREADS, class Call>
KW_DEVICE void find_rows(Rows<BT>& rows, const Call& g, int tile) {
  int thread = threadIdx.x;
  if (thread < BT) {
    i64 row = i64(tile) * BT + thread;
    bool there = row < g.batch && !g.lengths;
    rows.row[thread] = there ? int(row) : -1;
    rows.length[thread] = there ? int(g.steps) : 0;
    rows.skip[0][thread] = rows.skip[1][thread] = 0;
  }
  __syncthreads();
  if (g.lengths) {
    for (i64 row = thread; row < g.batch; row += THREADS) {
      int mine = length_of(g, row);
      i64 before = 0;
      for (i64 other = 0; other < g.batch; other++) {
        int its = length_of(g, other);
        before += its > mine || (its == mine && other < row);
      }
      if (before / BT == tile) {
        rows.row[before % BT] = int(row);
        rows.length[before % BT] = mine;
      }
    }
    __syncthreads();
  }
}

template <class Call>
KW_DEVICE i64 time_of(const Call& g, int length, i64 s) {
  return g.reverse ? length - 1 - s : s;
}

// As it is in memory: where it is not looked at before it is needed, nothing waits for it.
template <class Call>
KW_DEVICE u32 reset_at(const Call& g, int row, i64 time) {
  return g.resets && row >= 0 ? g.resets[time * g.resets_t + row * g.resets_b] : 0;
}

// A unit of a sequence: pair p of a block. Pairs lie so that lanes whose numbers differ by 4 have neighbouring units.
template <int NT>
struct Pair {
  int unit, row;
  KW_DEVICE explicit Pair(int p) {
    unit = p / (64 * NT) * 8 + p / 4 % 8;
    row = p / 64 % NT * 8 + p % 4 * 2 + p / 32 % 2;
  }
};
template <int NT>
KW_DEVICE int pair_of(int unit, int row) {
  return ((unit / 8 * NT + row / 8) * 2 + row % 2) * 32 + unit % 8 * 4 + row % 8 / 2;
}

// The parts that the warps have computed of a pair's sums, added up in their order.
template <int PARTS, int PAIRS, int GATES>
KW_DEVICE void add_parts(float (&sum)[GATES], const float* parts, int p) {
#pragma unroll
  for (int gate = 0; gate < GATES; gate++) sum[gate] = 0;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    Pack<float, GATES == 3 ? 1 : GATES> pack;
#pragma unroll
    for (int gate = 0; gate < GATES; gate += GATES == 3 ? 1 : GATES) {
      pack = load<Pack<float, GATES == 3 ? 1 : GATES>>(parts + (i64(part) * PAIRS + p) * GATES + gate);
#pragma unroll
      for (int i = 0; i < (GATES == 3 ? 1 : GATES); i++) sum[gate + i] += pack.e[i];
    }
  }
}
template <int GATES>
KW_DEVICE void keep_part(float* to, const float (&sum)[GATES]) {
  if (GATES == 4) {
    Pack<float, 4> pack;
#pragma unroll
    for (int gate = 0; gate < 4; gate++) pack.e[gate] = sum[gate % GATES];
    store_shared(to, pack);
  } else {
#pragma unroll
    for (int gate = 0; gate < GATES; gate++) to[gate] = sum[gate];
  }
}

// --- products ------------------------------------------------------------------------------------------------------
// sums[unit, gate][row] = w[gate, unit, :] . shown[row, :] for the units of a block, k split among its warps. The first
// KEPT of a warp's blocks of k have their weights in registers; if there are MORE, the next `shared_blocks` have them in
// shared memory, and those after come from the L2 cache in each step. Weights lie along k, each row at a multiple of 16
// bytes, zeros at its end.

// Of so many blocks, in each of which a lane takes in so many vectors, how many are on their way at one time: at most 12
// vectors, 48 registers, in rounds as even as can be.
KW_DEVICE constexpr int at_once(int blocks, int vectors) {
  int most = vectors >= 12 ? 1 : 12 / vectors, rounds = (blocks + most - 1) / most;
  return (blocks + rounds - 1) / rounds;
}

struct Inner {  // which part of k a warp has, in blocks
  int first, count;
  KW_DEVICE Inner(i64 k, int block, int warps) {
    int all = int(k / block), each = (all + warps - 1) / warps, warp = threadIdx.x / 32;
    first = warp * each < all ? warp * each : all;
    count = all - first < each ? all - first : each;
  }
};

// By mma.sync, 16 rows of weights by 8 sequences by 16 of k. Eight units of a gate are half such a tile; the halves of
// 8 units follow each other gate by gate, so that one thread gets all gates of a unit. A block of k is 32: lane t of four
// has numbers 8 t to 8 t + 7 of it, 16 bytes, which are its part of two mma; k is permuted so in both operands.
template <class Type, int GATES_, int UG_, int NT_, int KEPT, bool MORE, int WARPS_>
struct TensorProduct {
  typedef Type T;
  static constexpr int GATES = GATES_, UG = UG_, NT = NT_, WARPS = WARPS_, BLOCK = 32;
  static constexpr int HALVES = UG * GATES, TILES = (HALVES + 1) / 2, PAIRS = 64 * UG * NT;
  static constexpr int AT_ONCE = at_once(KEPT, NT);  // blocks that are on their way
  static constexpr int AGAIN = NT >= 4 ? 1 : 4 / NT;                               // of those whose weights are not kept
  static constexpr int VECTORS = 2 * TILES * 32;                                   // of 16 bytes: weights of a block of k

  u32 kept[KEPT][TILES][2][4];
  Inner part;
  const T* w;
  Pack<u32, 4>* in_shared;
  i64 w_row;
  int units, first_unit, shared_blocks;

  template <class Call>
  KW_DEVICE TensorProduct(const Call& g, const Share& share, unsigned char* shared)
      : part(g.k, BLOCK, WARPS), w_row(g.w_row), units(int(g.units)), first_unit(share.first_unit) {
    int lane = threadIdx.x % 32;
    w = static_cast<const T*>(g.w) + share.head * g.w_head + lane % 4 * 8 + part.first * BLOCK;
    shared_blocks = int(g.shared_blocks);
    in_shared = reinterpret_cast<Pack<u32, 4>*>(shared) + i64(threadIdx.x / 32) * shared_blocks * VECTORS + lane;
#pragma unroll
    for (int i = 0; i < KEPT; i++) fetch(kept[i], i);
    for (int i = 0; MORE && i < shared_blocks && KEPT + i < part.count; i++) {
      u32 weights[TILES][2][4];
      fetch(weights, KEPT + i);
#pragma unroll
      for (int half = 0; half < 2 * TILES; half++) {
        const u32(&words)[4] = weights[half / 2][half % 2];
        in_shared[i * VECTORS + half * 32] = {words[0], words[1], words[2], words[3]};
      }
    }
  }

  // From memory.
  KW_DEVICE void fetch(u32 (&to)[TILES][2][4], int i) const {
#pragma unroll
    for (int half = 0; half < 2 * TILES; half++) {
      int unit = first_unit + half / GATES * 8 + threadIdx.x % 32 / 4;
      Pack<u32, 4> words = {};
      if (half < HALVES && unit < units && i < part.count)
        words = load<Pack<u32, 4>>(w + (i64(half % GATES) * units + unit) * w_row + i * BLOCK);
#pragma unroll
      for (int word = 0; word < 4; word++) to[half / 2][half % 2][word] = words.e[word];
    }
  }
  KW_DEVICE void fetch_again(u32 (&to)[TILES][2][4], int i) const {
    if (i - KEPT >= shared_blocks) {
      fetch(to, i);
      return;
    }
#pragma unroll
    for (int half = 0; half < 2 * TILES; half++) {
      Pack<u32, 4> words = in_shared[(i - KEPT) * VECTORS + half * 32];
#pragma unroll
      for (int word = 0; word < 4; word++) to[half / 2][half % 2][word] = words.e[word];
    }
  }
  static KW_DEVICE void add(float (&sums)[TILES][NT][4], const u32 (&a)[TILES][2][4], const u32 (&b)[NT][4]) {
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        u32 rows[4] = {a[tile][0][2 * j], a[tile][1][2 * j], a[tile][0][2 * j + 1], a[tile][1][2 * j + 1]};
#pragma unroll
        for (int n = 0; n < NT; n++) multiply_add(sums[tile][n], rows, b[n][2 * j], b[n][2 * j + 1], T());
      }
  }

  // parts: of the whole block. row(i): where the numbers of sequence i lie, null for zeros.
  template <class RowOf>
  KW_DEVICE void run(float* parts, int, const RowOf& row) const {
    int lane = threadIdx.x % 32;
    const T* from[NT];
#pragma unroll
    for (int n = 0; n < NT; n++) {
      from[n] = row(n * 8 + lane / 4);
      if (from[n]) from[n] += lane % 4 * 8 + part.first * BLOCK;
    }
    float sums[TILES][NT][4] = {};
#pragma unroll
    for (int i = 0; i < KEPT; i += AT_ONCE) {
      u32 b[AT_ONCE][NT][4];
      collect<T, AT_ONCE, NT>(b, from, i, part.count < KEPT ? part.count : KEPT, BLOCK);
#pragma unroll
      for (int j = 0; j < AT_ONCE; j++)
        if (i + j < KEPT) add(sums, kept[i + j < KEPT ? i + j : 0], b[j]);
    }
#pragma unroll 1
    for (int i = KEPT; MORE && i < part.count; i += AGAIN) {
      u32 b[AGAIN][NT][4];
      collect<T, AGAIN, NT>(b, from, i, part.count, BLOCK);
#pragma unroll
      for (int j = 0; j < AGAIN; j++) {
        if (i + j >= part.count) break;  // the same for a whole warp
        u32 a[TILES][2][4];
        fetch_again(a, i + j);
        add(sums, a, b[j]);
      }
    }
    float* to = parts + i64(threadIdx.x / 32) * PAIRS * GATES;
#pragma unroll
    for (int q = 0; q < UG * NT * 2; q++) {
      float pair[GATES];
#pragma unroll
      for (int gate = 0; gate < GATES; gate++) {
        int half = q / (2 * NT) * GATES + gate;
        pair[gate] = sums[half / 2][q / 2 % NT][half % 2 * 2 + q % 2];
      }
      keep_part<GATES>(to + (q * 32 + lane) * GATES, pair);
    }
  }
};

// Adds up what 2 HALF lanes have of as many sums: lane l ends with the whole of sum l, in sums[0]. In each exchange a lane
// gives away half of what it has.
template <int HALF, int COUNT, int GATES>
KW_DEVICE void add_across(float (&sums)[COUNT][GATES]) {
  const bool upper = threadIdx.x & HALF;
#pragma unroll
  for (int i = 0; i < HALF; i++)
#pragma unroll
    for (int gate = 0; gate < GATES; gate++) {
      float mine = upper ? sums[i + HALF][gate] : sums[i][gate], other = upper ? sums[i][gate] : sums[i + HALF][gate];
      sums[i][gate] = mine + across(other, HALF);
    }
  if constexpr (HALF > 1) add_across<HALF / 2>(sums);
}

// float32 by multiply-adds. KG lanes split a block of k, four numbers each; 32 / KG groups of lanes have LANE_UNITS units
// each. A few sequences at a time, so that LANE_UNITS x AT_A_TIME = KG: when the sums of these lanes are added up, each lane
// ends with one pair.
template <int GATES_, int UG_, int NT_, int KG, int KEPT, bool MORE, int WARPS_>
struct PlainProduct {
  typedef float T;
  static constexpr int GATES = GATES_, UG = UG_, NT = NT_, WARPS = WARPS_, BLOCK = 4 * KG;
  static constexpr int LANE_UNITS = 8 * UG * KG / 32, AT_A_TIME = KG / LANE_UNITS, PAIRS = 64 * UG * NT;
  static constexpr int AT_ONCE = at_once(KEPT, AT_A_TIME);
  static constexpr int VECTORS = LANE_UNITS * GATES * 32;

  float kept[KEPT][LANE_UNITS][GATES][4];
  Inner part;
  const float* w;
  Pack<float, 4>* in_shared;
  i64 w_row;
  int units, first_unit, shared_blocks;

  template <class Call>
  KW_DEVICE PlainProduct(const Call& g, const Share& share, unsigned char* shared)
      : part(g.k, BLOCK, WARPS), w_row(g.w_row), units(int(g.units)) {
    int lane = threadIdx.x % 32;
    first_unit = share.first_unit + lane / KG * LANE_UNITS;
    w = static_cast<const float*>(g.w) + share.head * g.w_head + lane % KG * 4 + part.first * BLOCK;
    shared_blocks = int(g.shared_blocks);
    in_shared = reinterpret_cast<Pack<float, 4>*>(shared) + i64(threadIdx.x / 32) * shared_blocks * VECTORS + lane;
#pragma unroll
    for (int i = 0; i < KEPT; i++)
#pragma unroll
      for (int unit = 0; unit < LANE_UNITS; unit++)
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          Pack<float, 4> four = fetch(i, unit, gate);
#pragma unroll
          for (int j = 0; j < 4; j++) kept[i][unit][gate][j] = four.e[j];
        }
    for (int i = 0; MORE && i < shared_blocks && KEPT + i < part.count; i++)
      for (int v = 0; v < LANE_UNITS * GATES; v++)
        in_shared[i * VECTORS + v * 32] = fetch(KEPT + i, v / GATES, v % GATES);
  }

  KW_DEVICE Pack<float, 4> fetch(int i, int unit, int gate) const {
    Pack<float, 4> four = {};
    if (first_unit + unit < units && i < part.count)
      four = load<Pack<float, 4>>(w + (i64(gate) * units + first_unit + unit) * w_row + i * BLOCK);
    return four;
  }
  static KW_DEVICE void add(float (&sums)[KG][GATES], int unit, int gate, const float (&four)[4],
                            const u32 (&b)[AT_A_TIME][4]) {
#pragma unroll
    for (int r = 0; r < AT_A_TIME; r++)
#pragma unroll
      for (int j = 0; j < 4; j++) sums[unit * AT_A_TIME + r][gate] += four[j] * float_of_bits(b[r][j]);
  }

  template <class RowOf>
  KW_DEVICE void run(float* parts, int rows, const RowOf& row) const {
    int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int first = 0; first < rows; first += AT_A_TIME) {
      const float* from[AT_A_TIME];
#pragma unroll
      for (int r = 0; r < AT_A_TIME; r++) {
        from[r] = row(first + r);
        if (from[r]) from[r] += lane % KG * 4 + part.first * BLOCK;
      }
      float sums[KG][GATES] = {};
#pragma unroll
      for (int i = 0; i < KEPT; i += AT_ONCE) {
        u32 b[AT_ONCE][AT_A_TIME][4];
        collect<float, AT_ONCE, AT_A_TIME>(b, from, i, part.count < KEPT ? part.count : KEPT, BLOCK);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
#pragma unroll
          for (int unit = 0; unit < LANE_UNITS; unit++)
#pragma unroll
            for (int gate = 0; gate < GATES; gate++)
              if (i + j < KEPT) add(sums, unit, gate, kept[i + j < KEPT ? i + j : 0][unit][gate], b[j]);
      }
      for (int i = KEPT; MORE && i < part.count; i++) {
        u32 b[1][AT_A_TIME][4];
        collect<float, 1, AT_A_TIME>(b, from, i, part.count, BLOCK);
#pragma unroll
        for (int unit = 0; unit < LANE_UNITS; unit++)
#pragma unroll
          for (int gate = 0; gate < GATES; gate++) {
            Pack<float, 4> four = i - KEPT < shared_blocks
                                      ? in_shared[(i - KEPT) * VECTORS + (unit * GATES + gate) * 32]
                                      : fetch(i, unit, gate);
            add(sums, unit, gate, four.e, b[0]);
          }
      }
      add_across<KG / 2>(sums);
      int q = lane % KG, unit = lane / KG * LANE_UNITS + q / AT_A_TIME;
      int p = pair_of<NT>(unit, first + q % AT_A_TIME);
      keep_part<GATES>(parts + (i64(threadIdx.x / 32) * PAIRS + p) * GATES, sums[0]);
    }
  }
};
