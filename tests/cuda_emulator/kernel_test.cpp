// SPDX-License-Identifier: Apache-2.0
// Barriers, collectives of warps, orders of threads, and kernels that a device would not survive.
#include <gtest/gtest.h>
#include <mma.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>
#include <string>

#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/core/elements.cuh"
#include "corematching/core/warp.cuh"
#include "on_device.hpp"
#include "support/error_text.hpp"

namespace {

using namespace corematching;
using namespace corematching::cuda_emulator_test;
using cuda_emulator::thread_order;
using std::vector;

class cuda_kernel : public testing::Test {
 protected:
  void SetUp() override { cuda_emulator::reset(); }
  void TearDown() override { cuda_emulator::reset(); }
};

template <class... Arguments>
std::string error_of(unsigned threads, Arguments... kernel_and_arguments) {
  try {
    launch(nullptr, dim3(1), dim3(threads), kernel_and_arguments...);
  } catch (const cuda_emulator::kernel_error& error) {
    return error.what();
  }
  return "none";
}

__global__ void number_threads(int* to, int* calls) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  to[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
  atomicAdd(calls, 1);
}

TEST_F(cuda_kernel, runs_every_thread_of_every_block_once) {
  on_device<int> numbers(2 * 3 * 4 * 3 * 5 * 7, 0), calls(1, 0);
  launch(nullptr, dim3(2, 3, 4), dim3(3, 5, 7), number_threads, numbers.data(), calls.data());
  const vector<int> found = numbers.values();
  EXPECT_EQ(calls.values()[0], static_cast<int>(found.size()));
  for (int i = 0; i < static_cast<int>(found.size()); ++i) EXPECT_EQ(found[i], i / 105 * 1000 + i % 105);
}

TEST_F(cuda_kernel, refuses_grids_that_a_device_refuses) {
  int *to = nullptr, *calls = nullptr;
  const auto refused = [&](dim3 grid, dim3 block) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    return cudaLaunchKernelEx(&config, number_threads, to, calls);
  };
  for (const dim3& block : {dim3(1025), dim3(0), dim3(1, 1, 65), dim3(32, 33)})
    EXPECT_EQ(refused(dim3(1), block), cudaErrorInvalidConfiguration);
  for (const dim3& grid : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536), dim3(0x80000000u)})
    EXPECT_EQ(refused(grid, dim3(1)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

template <bool Waits>
__global__ void wait_or_not(int* to) {
  if (Waits || threadIdx.x != 3) cudaGridDependencySynchronize();
  to[threadIdx.x] = 1;
}

TEST_F(cuda_kernel, that_may_start_early_has_to_wait_in_every_thread) {
  on_device<int> done(32, 0);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  const auto start = [&](bool allowed, auto kernel) {
    early.val.programmaticStreamSerializationAllowed = allowed ? 1 : 0;
    cuda::detail::launch_with({&early, 1}, nullptr, dim3(1), dim3(32), kernel, done.data());
  };
  start(true, wait_or_not<true>);
  start(false, wait_or_not<false>);
  try {
    start(true, wait_or_not<false>);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const cuda_emulator::kernel_error& error) {
    support::expect_parts(error.what(), "thread (3, 0, 0)", "has returned without waiting");
  }
}

TEST_F(cuda_kernel, started_by_the_library_may_start_early_where_kernels_overlap) {
  on_device<int> done(32, 0);
  const auto start = [&](bool overlaps) {
    cuda::context on;
    on.overlaps = overlaps;
    cuda::detail::launch_early(on, dim3(1), dim3(32), wait_or_not<false>, done.data());
  };
  EXPECT_NO_THROW(start(false));
  EXPECT_THROW(start(true), cuda_emulator::kernel_error);
  EXPECT_TRUE(cuda::detail::can_launch_early(90));
  EXPECT_FALSE(cuda::detail::can_launch_early(89));
}

template <bool Waits>
__global__ void reverse(const int* from, int* to) {
  __shared__ int kept[100];
  kept[threadIdx.x] = from[threadIdx.x];
  if (Waits) __syncthreads();
  to[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

TEST_F(cuda_kernel, shows_a_missing_barrier_in_every_order) {
  vector<int> numbers(100);
  std::iota(numbers.begin(), numbers.end(), 1);
  const vector<int> reversed(numbers.rbegin(), numbers.rend());
  on_device<int> from(numbers), to(100, 0);
  for (const thread_order order : {thread_order::ascending, thread_order::descending, thread_order::shuffled,
                                   thread_order::alternating}) {
    cuda_emulator::set_thread_order(order);
    launch(nullptr, dim3(1), dim3(100), reverse<true>, from.data(), to.data());
    EXPECT_EQ(to.values(), reversed);
    launch(nullptr, dim3(1), dim3(100), reverse<false>, from.data(), to.data());
    EXPECT_NE(to.values(), reversed);
  }
}

__global__ void take_numbers(int* next, int* order) {
  order[threadIdx.x] = atomicAdd(next, 1);
}

TEST_F(cuda_kernel, alternates_the_order_of_threads) {
  std::set<vector<int>> orders;
  for (int i = 0; i < 6; ++i) {
    on_device<int> next(1, 0), order(64, -1);
    launch(nullptr, dim3(1), dim3(64), take_numbers, next.data(), order.data());
    orders.insert(order.values());
  }
  EXPECT_EQ(orders.size(), 4u);  // ascending, descending, two shuffles
}

__global__ void last_two_values(int* to) {
  __shared__ int kept[2];
  if (threadIdx.x == 0) to[blockIdx.x] = kept[1];
  __syncthreads();
  if (threadIdx.x == 0) kept[1] = static_cast<int>(blockIdx.x);
}

TEST_F(cuda_kernel, poisons_shared_memory_before_every_block) {
  on_device<int> found(5, 7);
  for (int i = 0; i < 3; ++i) {
    launch(nullptr, dim3(5), dim3(32), last_two_values, found.data());
    EXPECT_EQ(found.values(), vector<int>(5, -1));
  }
}

__global__ void votes(int* to) {
  const int thread = static_cast<int>(threadIdx.x);
  to[3 * thread] = __syncthreads_count(thread % 3 == 0);
  to[3 * thread + 1] = __syncthreads_or(thread == 70);
  to[3 * thread + 2] = __syncthreads_and(thread != 70);
}

TEST_F(cuda_kernel, counts_votes_of_a_block) {
  for (const unsigned threads : {70u, 71u}) {
    on_device<int> found(3 * threads, -1);
    launch(nullptr, dim3(1), dim3(threads), votes, found.data());
    const vector<int> values = found.values();
    for (unsigned i = 0; i < threads; ++i) {
      EXPECT_EQ(values[3 * i], 24);
      EXPECT_EQ(values[3 * i + 1], threads == 71);
      EXPECT_EQ(values[3 * i + 2], threads != 71);
    }
  }
}

__global__ void shuffle_kinds(int* to) {
  const int lane = static_cast<int>(threadIdx.x);
  const int value = 100 + lane;
  to[lane] = __shfl_sync(cuda::detail::all_lanes, value, 5);
  to[32 + lane] = __shfl_xor_sync(cuda::detail::all_lanes, value, 8);
  to[64 + lane] = __shfl_up_sync(cuda::detail::all_lanes, value, 3);
  to[96 + lane] = __shfl_down_sync(cuda::detail::all_lanes, value, 3);
  to[128 + lane] = __shfl_sync(cuda::detail::all_lanes, value, 1, 8);
  to[160 + lane] = __shfl_down_sync(cuda::detail::all_lanes, value, 3, 8);
}

TEST_F(cuda_kernel, shuffles_as_the_programming_guide_says) {
  on_device<int> found(6 * 32, 0);
  launch(nullptr, dim3(1), dim3(32), shuffle_kinds, found.data());
  const vector<int> values = found.values();
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(values[lane], 105);
    EXPECT_EQ(values[32 + lane], 100 + (lane ^ 8));
    EXPECT_EQ(values[64 + lane], 100 + (lane < 3 ? lane : lane - 3));
    EXPECT_EQ(values[96 + lane], 100 + (lane + 3 > 31 ? lane : lane + 3));
    EXPECT_EQ(values[128 + lane], 101 + lane / 8 * 8);
    EXPECT_EQ(values[160 + lane], 100 + (lane % 8 + 3 > 7 ? lane : lane + 3));
  }
}

__global__ void shuffle_halves(double* to, unsigned* ballots) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  double value = lane;
  if (lane < 16)
    value = __shfl_sync(mask, value, 3);
  else
    value = __shfl_sync(mask, value, 3);  // lane 3 takes no part
  ballots[threadIdx.x] = __ballot_sync(mask, threadIdx.x % 2 == 1);
  to[threadIdx.x] = value;
}

TEST_F(cuda_kernel, lets_the_halves_of_a_warp_go_apart) {
  on_device<double> found(64, 0);
  on_device<unsigned> ballots(64, 0);
  launch(nullptr, dim3(1), dim3(64), shuffle_halves, found.data(), ballots.data());
  for (unsigned i = 0; i < 64; ++i) {
    EXPECT_EQ(ballots.values()[i], i % 32 < 16 ? 0x0000aaaau : 0xaaaa0000u);
    if (i % 32 < 16)
      EXPECT_EQ(found.values()[i], 3);
    else
      EXPECT_TRUE(std::isnan(found.values()[i]));
  }
}

__global__ void any_and_all(int* to) {
  const int thread = static_cast<int>(threadIdx.x);
  to[2 * thread] = __any_sync(cuda::detail::all_lanes, thread == 40);
  to[2 * thread + 1] = __all_sync(cuda::detail::all_lanes, thread != 40);
}

TEST_F(cuda_kernel, votes_within_warps_and_leaves_out_lanes_past_the_end) {
  on_device<int> found(2 * 48, -1);
  launch(nullptr, dim3(1), dim3(48), any_and_all, found.data());
  for (int i = 0; i < 48; ++i) {
    EXPECT_EQ(found.values()[2 * i], i >= 32);
    EXPECT_EQ(found.values()[2 * i + 1], i < 32);
  }
}

__global__ void returns_before_barrier() {
  if (threadIdx.x == 9) return;
  __syncthreads();
}
__global__ void waits_in_two_places() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void returns_before_shuffle() {
  if (threadIdx.x != 9) __syncwarp();
}
__global__ void differs_in_masks() {
  __syncwarp(threadIdx.x == 0 ? 0x1u : 0x3u);
}
__global__ void lacks_its_own_lane() {
  __syncwarp(0x1u);
}
__global__ void goes_on_after_errors(int* to) {
  __syncthreads();
  to[threadIdx.x] = 1;
}

TEST_F(cuda_kernel, ends_when_its_threads_wait_forever) {
  for (int i = 0; i < 3; ++i) {  // in each order
    support::expect_parts(error_of(64, returns_before_barrier), "has returned");
    support::expect_parts(error_of(64, waits_in_two_places), "waits in __syncthreads at");
    support::expect_parts(error_of(32, returns_before_shuffle),
                          "waits in __syncwarp of the lanes 0xffffffff");
    support::expect_parts(error_of(2, differs_in_masks), "lanes 0x3");
    support::expect_parts(error_of(2, lacks_its_own_lane), "lacks its own lane");
    support::expect_parts(error_of(2, lacks_its_own_lane), "thread (1, 0, 0) of block (0, 0, 0)");
  }
  on_device<int> found(64, 0);
  launch(nullptr, dim3(1), dim3(64), goes_on_after_errors, found.data());
  EXPECT_EQ(found.values(), vector<int>(64, 1));
}

__global__ void atomics(int* signed_ones, unsigned long long* wide, unsigned* bits) {
  const int thread = static_cast<int>(threadIdx.x);
  atomicAdd(&signed_ones[0], thread);
  atomicMax(&signed_ones[1], thread);
  atomicMin(&signed_ones[2], -thread);
  atomicAdd(&wide[0], 1ull << 40);
  atomicMax(&wide[1], static_cast<unsigned long long>(thread) << 33);
  atomicOr(&bits[threadIdx.x / 32], 1u << threadIdx.x % 32);
  if (atomicCAS(&signed_ones[3], 0, thread + 1) == 0) atomicAdd(&signed_ones[4], 1);
}

TEST_F(cuda_kernel, updates_integers_atomically) {
  on_device<int> ones(5, 0);
  on_device<unsigned long long> wide(2, 0);
  on_device<unsigned> bits(2, 0);
  launch(nullptr, dim3(1), dim3(64), atomics, ones.data(), wide.data(), bits.data());
  const vector<int> found = ones.values();
  EXPECT_EQ(found[0], 63 * 32);
  EXPECT_EQ(found[1], 63);
  EXPECT_EQ(found[2], -63);
  EXPECT_EQ(found[4], 1);
  EXPECT_EQ(wide.values(), (vector<unsigned long long>{1ull << 46, 63ull << 33}));
  EXPECT_EQ(bits.values(), vector<unsigned>(2, 0xffffffffu));
}

template <int Threads>
__global__ void sum_of_block(const float* from, float* to) {
  const unsigned i = blockIdx.x * Threads + threadIdx.x;
  to[i] = cuda::detail::block_sum<Threads>(from[i]);
}

template <int Threads>
void check_block_sum() {
  vector<float> values(3 * Threads);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 37 % 101);
  on_device<float> from(values), to(3 * Threads, 0);
  launch(nullptr, dim3(3), dim3(Threads), sum_of_block<Threads>, from.data(), to.data());
  const vector<float> found = to.values();
  for (int block = 0; block < 3; ++block) {
    const float sum =
        std::accumulate(values.begin() + block * Threads, values.begin() + (block + 1) * Threads, 0.f);
    for (int i = 0; i < Threads; ++i) EXPECT_EQ(found[block * Threads + i], sum) << Threads;
  }
}

TEST_F(cuda_kernel, sums_over_a_block) {
  check_block_sum<32>();
  check_block_sum<96>();
  check_block_sum<256>();
  check_block_sum<1024>();
}

template <class T>
__global__ void widen_and_narrow(float* wide, std::uint16_t* bits) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  wide[i] = cuda::detail::widened(T{static_cast<std::uint16_t>(i)});
  // Values between two neighbours, ties among them.
  const float value = std::bit_cast<float>((i << 16) + i % 7 * 0x1000u);
  bits[i] = cuda::detail::narrowed<T>(value).bits;
}

template <class T, class Narrow>
void check_conversions(Narrow narrow) {
  on_device<float> wide(65536, 0);
  on_device<std::uint16_t> bits(65536, std::uint16_t{0});
  launch(nullptr, dim3(64), dim3(1024), widen_and_narrow<T>, wide.data(), bits.data());
  const vector<float> widened = wide.values();
  const vector<std::uint16_t> narrowed = bits.values();
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const float expected = to_float(T{static_cast<std::uint16_t>(i)});
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(widened[i])) << i;
    else
      EXPECT_EQ(std::bit_cast<std::uint32_t>(widened[i]), std::bit_cast<std::uint32_t>(expected)) << i;
    const float value = std::bit_cast<float>((i << 16) + i % 7 * 0x1000u);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(to_float(T{narrowed[i]}))) << i;
    else
      EXPECT_EQ(narrowed[i], narrow(value).bits) << i;
  }
}

TEST_F(cuda_kernel, converts_elements_as_the_host_does) {
  check_conversions<f16>([](float value) { return to_f16(value); });
  check_conversions<bf16>([](float value) { return to_bf16(value); });
}

using nvcuda::wmma::col_major;
using nvcuda::wmma::row_major;

template <class T, class LayoutA, class LayoutB>
__global__ void tile_product(const T* a, const T* b, float* c, nvcuda::wmma::layout_t layout) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, T, LayoutA> left;
  fragment<matrix_b, 16, 16, 16, T, LayoutB> right;
  fragment<accumulator, 16, 16, 16, float> sums;
  fill_fragment(sums, 1.0f);
  load_matrix_sync(left, a, 24);
  load_matrix_sync(right, b, 16);
  mma_sync(sums, left, right, sums);
  for (int i = 0; i < sums.num_elements; ++i) sums.x[i] *= 2;
  store_matrix_sync(c, sums, 20, layout);
}

template <class T, class LayoutA, class LayoutB>
void check_tile_product(nvcuda::wmma::layout_t layout) {
  const auto number = [](int i) { return static_cast<float>(i * 7 % 11 - 5); };
  vector<T> a(16 * 24), b(16 * 16);
  for (int i = 0; i < 16 * 24; ++i) a[i] = T(number(i));
  for (int i = 0; i < 16 * 16; ++i) b[i] = T(number(3 * i + 1));
  on_device<T> left(a), right(b);
  on_device<float> sums(16 * 20, 0);
  launch(nullptr, dim3(1), dim3(32), tile_product<T, LayoutA, LayoutB>, left.data(), right.data(),
         sums.data(), layout);
  const vector<float> found = sums.values();
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 16; ++column) {
      float sum = 1;
      for (int k = 0; k < 16; ++k)
        sum += static_cast<float>(a[std::is_same_v<LayoutA, row_major> ? row * 24 + k : k * 24 + row]) *
               static_cast<float>(b[std::is_same_v<LayoutB, row_major> ? k * 16 + column : column * 16 + k]);
      const bool by_rows = layout == nvcuda::wmma::mem_row_major;
      EXPECT_EQ(found[by_rows ? row * 20 + column : column * 20 + row], 2 * sum);
    }
}

TEST_F(cuda_kernel, multiplies_tiles_in_every_layout) {
  for (const auto layout : {nvcuda::wmma::mem_row_major, nvcuda::wmma::mem_col_major}) {
    check_tile_product<__half, row_major, row_major>(layout);
    check_tile_product<__half, row_major, col_major>(layout);
    check_tile_product<__nv_bfloat16, col_major, row_major>(layout);
    check_tile_product<__nv_bfloat16, col_major, col_major>(layout);
  }
}

}  // namespace
