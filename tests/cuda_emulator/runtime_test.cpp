// SPDX-License-Identifier: Apache-2.0
// Memory, copies, streams and graphs of the emulator, and failures on demand.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <ostream>
#include <string>
#include <utility>

#include "on_device.hpp"
#include "support/error_text.hpp"

namespace {

using namespace corematching;
using namespace corematching::cuda_emulator_test;
using std::vector;

class cuda_runtime : public testing::Test {
 protected:
  void SetUp() override { cuda_emulator::reset(); }
  void TearDown() override {
    EXPECT_EQ(cuda_emulator::live_allocations(), 0u);
    EXPECT_EQ(cuda_emulator::wrong_frees(), 0u);
    cuda_emulator::reset();
  }
};

TEST_F(cuda_runtime, poisons_memory_and_counts_allocations) {
  const cuda::buffer<float> first(nullptr, 3), second(nullptr, 5);
  EXPECT_EQ(cuda_emulator::live_allocations(), 2u);
  EXPECT_EQ(cuda_emulator::live_bytes(), 32u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.data()) % 256, 0u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(first.data()[i]));
}

TEST_F(cuda_runtime, runs_out_of_memory) {
  cuda_emulator::set_device_memory(1000);
  const cuda::buffer<std::byte> half(nullptr, 600);
  support::expect_parts(support::error_text([] { cuda::buffer<std::byte>(nullptr, 401); }),
                        "out of device memory");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  std::size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 400u);
  EXPECT_EQ(total, 1000u);
  const cuda::buffer<std::byte> rest(nullptr, 400);
}

TEST_F(cuda_runtime, fails_where_a_test_wants_it) {
  cuda_emulator::fail_next("cudaMallocAsync", cudaErrorMemoryAllocation, 1);
  const cuda::buffer<float> first(nullptr, 1);
  support::expect_parts(support::error_text([] { cuda::buffer<float>(nullptr, 1); }), "out of device memory");
  const cuda::buffer<float> third(nullptr, 1);
  cuda_emulator::set_device_count(0);
  EXPECT_EQ(cuda::device_count(), 0);
  support::expect_parts(support::error_text([] { cuda::use_device(0); }), "no CUDA device");
  cuda_emulator::set_device_count(2);
  EXPECT_EQ(cuda::use_device(1).name, "CUDA emulator");
}

TEST_F(cuda_runtime, notices_memory_given_back_twice) {
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 8), cudaSuccess);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
  EXPECT_EQ(cuda_emulator::wrong_frees(), 1u);
  cuda_emulator::reset();
}

TEST_F(cuda_runtime, copies_only_between_the_sides_that_a_copy_names) {
  cuda::buffer<int> there(nullptr, 4);
  vector<int> here(4);
  const auto copy = [](void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  };
  EXPECT_EQ(copy(there.data(), here.data(), 16, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(copy(there.data() + 1, here.data(), 12, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(copy(here.data(), there.data(), 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(there.data(), here.data(), 16, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(there.data() + 1, here.data(), 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
}

TEST_F(cuda_runtime, copies_rows_between_pitches) {
  on_device<unsigned char> wide(20, 9);
  const vector<unsigned char> narrow{1, 2, 3, 4, 5, 6};
  EXPECT_EQ(cudaMemcpy2DAsync(wide.data(), 7, narrow.data(), 2, 2, 3, cudaMemcpyHostToDevice, nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaMemcpy2DAsync(wide.data(), 1, narrow.data(), 2, 2, 3, cudaMemcpyHostToDevice, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(wide.data() + 18, 8, 2, nullptr), cudaSuccess);
  EXPECT_EQ(wide.values(),
            (vector<unsigned char>{1, 2, 9, 9, 9, 9, 9, 3, 4, 9, 9, 9, 9, 9, 5, 6, 9, 9, 8, 8}));
}

TEST_F(cuda_runtime, measures_between_events) {
  const cuda::event_handle start = cuda::make_event(), end = cuda::make_event();
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start.get(), end.get()), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(start.get()), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(end.get()), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(end.get()), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start.get(), end.get()), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
}

__global__ void add(int* to, int value) {
  to[threadIdx.x] += value;
}

#ifdef __SANITIZE_ADDRESS__
/// Whether a text contains another. A regular expression would be compiled by Oniguruma, which tokenizers
/// link and which has functions of the names of POSIX, and matched by the C library, whose functions
/// AddressSanitizer calls.
class contains_text : public testing::MatcherInterface<const std::string&> {
 public:
  explicit contains_text(std::string part) : part_(std::move(part)) {}
  bool MatchAndExplain(const std::string& text, testing::MatchResultListener*) const override {
    return text.find(part_) != text.npos;
  }
  void DescribeTo(std::ostream* to) const override { *to << "contains " << part_; }

 private:
  std::string part_;
};

TEST_F(cuda_runtime, lets_the_sanitizer_see_kernels_leave_their_memory) {
  on_device<int> sums(3, 1);
  EXPECT_DEATH(launch(nullptr, dim3(1), dim3(4), add, sums.data(), 1),
               testing::MakeMatcher(new contains_text("heap-buffer-overflow")));
}
#endif

cudaGraph_t capture_additions(cudaStream_t stream, int* to, int value, int times) {
  cudaGraph_t graph = nullptr;
  COREMATCHING_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < times; ++i) launch(stream, dim3(1), dim3(4), add, to, value);
  COREMATCHING_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  return graph;
}

TEST_F(cuda_runtime, replays_captured_work) {
  const cuda::stream_handle stream = cuda::make_stream();
  on_device<int> sums(4, 1);
  cudaGraph_t one = capture_additions(stream.get(), sums.data(), 10, 2);
  cudaGraph_t other = capture_additions(stream.get(), sums.data(), 100, 2);
  cudaGraph_t longer = capture_additions(stream.get(), sums.data(), 100, 3);
  EXPECT_EQ(sums.values(), vector<int>(4, 1));  // nothing has run
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, one), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, stream.get()), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, stream.get()), cudaSuccess);
  EXPECT_EQ(sums.values(), vector<int>(4, 41));
  cudaGraphExecUpdateResultInfo result{};
  EXPECT_EQ(cudaGraphExecUpdate(exec, other, &result), cudaSuccess);
  EXPECT_EQ(cudaGraphExecUpdate(exec, longer, &result), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(result.result, cudaGraphExecUpdateErrorTopologyChanged);
  EXPECT_EQ(cudaGraphLaunch(exec, stream.get()), cudaSuccess);
  EXPECT_EQ(sums.values(), vector<int>(4, 241));
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  for (cudaGraph_t graph : {one, other, longer}) EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

TEST_F(cuda_runtime, refuses_to_wait_or_allocate_during_a_capture) {
  const cuda::stream_handle stream = cuda::make_stream();
  const auto during_capture = [&](auto call) {
    EXPECT_EQ(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal), cudaSuccess);
    EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream.get(), &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
  };
  during_capture([&] { return cudaStreamSynchronize(stream.get()); });
  during_capture([] { return cudaDeviceSynchronize(); });
  void* memory = nullptr;
  during_capture([&] { return cudaMalloc(&memory, 8); });
}

TEST_F(cuda_runtime, captures_a_second_stream_through_events) {
  const cuda::stream_handle first = cuda::make_stream(), second = cuda::make_stream();
  const cuda::event_handle fork = cuda::make_event(), join = cuda::make_event();
  on_device<int> sums(4, 0);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(first.get(), cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(fork.get(), first.get()), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(second.get(), fork.get()), cudaSuccess);
  launch(second.get(), dim3(1), dim3(4), add, sums.data(), 5);
  EXPECT_EQ(cudaEventRecord(join.get(), second.get()), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(first.get(), join.get()), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(first.get(), &graph), cudaSuccess);
  EXPECT_EQ(sums.values(), vector<int>(4, 0));
  launch(second.get(), dim3(1), dim3(4), add, sums.data(), 1);  // no longer captured
  EXPECT_EQ(sums.values(), vector<int>(4, 1));
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

}  // namespace
