// Kernels with one fault each, which the runs on the CPU must find (test_cuda_c_controls.py).

struct Numbers {
  const float* x;
  float* y;
  i64 n;
};

#define KERNEL(name) KW_DEVICE void name(const Numbers& g, unsigned char* memory)
#define SHARED float* shared = reinterpret_cast<float*>(memory)

KERNEL(reversed) {  // nothing is wrong with this one
  SHARED;
  int t = threadIdx.x;
  shared[t] = g.x[t];
  __syncthreads();
  g.y[t] = shared[g.n - 1 - t];
}

KERNEL(missing_barrier) {
  SHARED;
  int t = threadIdx.x;
  shared[t] = g.x[t];
  g.y[t] = shared[g.n - 1 - t];
}

KERNEL(missing_barrier_inside_a_warp) {
  SHARED;
  int t = threadIdx.x;
  shared[t] = g.x[t];
  g.y[t ^ 1] = shared[t ^ 1];
  __syncthreads();
  g.y[t] = shared[g.n - 1 - t] + 0 * g.y[t];
}

KERNEL(missing_barrier_before_the_next_round) {
  SHARED;
  int t = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    shared[t] = g.x[t] * round;
    __syncthreads();
    sum += shared[g.n - 1 - t];
  }
  g.y[t] = sum;
}

KERNEL(read_past_the_end) {
  int t = threadIdx.x;
  float beside = g.x[t + 1];
  g.y[t] = g.x[g.n - 1 - t] + (beside == 12345.f);
}

KERNEL(read_before_the_start) {
  int t = threadIdx.x;
  float beside = g.x[t - 1];
  g.y[t] = g.x[g.n - 1 - t] + (beside == 12345.f);
}

KERNEL(write_past_the_end) {
  int t = threadIdx.x;
  g.y[t + 1] = 0;
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(shared_memory_past_the_end) {
  SHARED;
  int t = threadIdx.x;
  shared[t + 1] = 0;
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(uninitialised_shared_memory) {
  SHARED;
  int t = threadIdx.x;
  if (t % 2) shared[t] = 0;
  __syncthreads();
  g.y[t] = g.x[g.n - 1 - t] + shared[t];
}

KERNEL(some_threads_at_a_barrier) {
  int t = threadIdx.x;
  if (t < 16) __syncthreads();
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(threads_at_two_barriers) {
  int t = threadIdx.x;
  if (t < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(copy_used_before_it_is_waited_for) {
  SHARED;
  int t = threadIdx.x;
  copy_element(shared + t, g.x + t, true);
  commit_copies();
  __syncthreads();
  g.y[t] = shared[g.n - 1 - t];
  wait_copies<0>();
}

KERNEL(copy_waited_for_one_group_too_late) {
  SHARED;
  int t = threadIdx.x;
  copy_element(shared + t, g.x + t, true);
  commit_copies();
  wait_copies<1>();
  __syncthreads();
  g.y[t] = shared[g.n - 1 - t];
  wait_copies<0>();
}

KERNEL(copy_never_waited_for) {
  SHARED;
  int t = threadIdx.x;
  copy_element(shared + t, g.x + t, true);
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(copy_into_a_buffer_that_is_still_read) {
  SHARED;
  int t = threadIdx.x;
  shared[t] = g.x[t];
  __syncthreads();
  copy_element(shared + t, g.x, true);
  commit_copies();
  g.y[t] = shared[g.n - 1 - t];
  wait_copies<0>();
}

KERNEL(misaligned_vector) {
  SHARED;
  int t = threadIdx.x;
  if (t == 0) copy_vector(shared, g.x + 1, 16);
  commit_copies();
  wait_copies<0>();
  g.y[t] = g.x[g.n - 1 - t];
}

KERNEL(half_a_warp_on_the_tensor_cores) {
  int t = threadIdx.x;
  float sums[4] = {};
  u32 a[4] = {};
  if (t < 16) multiply_add(sums, a, 0, 0, bf16());
  g.y[t] = g.x[g.n - 1 - t] + sums[0];
}

KERNEL(blocks_that_write_the_same) {
  int t = threadIdx.x;
  g.y[t] = blockIdx.x ? g.x[g.n - 1 - t] : 0;
}
