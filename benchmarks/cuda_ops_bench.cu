// SPDX-License-Identifier: Apache-2.0
// The operations of a decoding step on a CUDA device one by one, at the shape of LLaVA-1.5-7B in bf16, for 1
// to 8 tokens: bytes of weights and of the cache that they read per second, beside the rate of a kernel that
// only reads. Times are those of CUDA events around a graph of some calls. No weight is read twice in a row: copies
// take turns, which together no cache holds.
//   cuda_ops_bench [DEVICE]
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "corematching/backend/cuda/backend.cuh"
#include "cuda_probe.cuh"

namespace corematching::bench {
namespace {

using B = cuda::backend;
constexpr index hidden = 4096, neurons = 11008, cached_tokens = 640;
constexpr attention_shape heads{32, 32, 128, 0.088f, true};
constexpr double core_share = 0.4;

/// Copies of a matrix [rows, cols] that take turns.
class turns {
 public:
  turns(B& be, index rows, index cols) : rows_(rows), cols_(cols) {
    constexpr index beyond_caches = index{256} << 20;
    const index bytes = rows * cols * 2;
    for (index i = 0; i < beyond_caches / bytes + 2; ++i) {
      copies_.push_back(be.allocate<uint4>(bytes / 16));
      fill_with_numbers(be.stream(), be.device().processors, copies_.back());
    }
  }
  stored_view<device_space> next() {
    at_ = (at_ + 1) % copies_.size();
    return {reinterpret_cast<const std::byte*>(copies_[at_].data()), dtype::bf16, rows_, cols_, cols_ * 2};
  }

 private:
  index rows_, cols_;
  std::vector<cuda::buffer<uint4>> copies_;
  std::size_t at_ = 0;
};

/// Ones: what is multiplied takes no part in the time.
matrix<B> ones(B& be, index rows, index cols) {
  matrix<B> made(be, rows, cols);
  const std::vector<float> values(static_cast<std::size_t>(rows * cols), 1.0f);
  be.upload(vector_view<float, device_space>{made.view().data, rows * cols}, {values.data(), rows * cols});
  return made;
}

/// A random share of the neurons, ascending, as core neurons are.
cuda::buffer<std::int32_t> core_of(B& be) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(neurons)), chosen;
  std::iota(all.begin(), all.end(), 0);
  std::sample(all.begin(), all.end(), std::back_inserter(chosen), static_cast<index>(core_share * neurons),
              std::mt19937(1));
  auto placed = be.allocate<std::int32_t>(std::ssize(chosen));
  be.upload(placed.view(), {chosen.data(), std::ssize(chosen)});
  return placed;
}

class decode_operations {
 public:
  explicit decode_operations(B& be) : be_(be), probe_(be.stream(), be.device().processors), limit_(probe_.read_bytes_per_second()) {}

  void run() {
    std::cout << be_.device().name << ", " << std::fixed << std::setprecision(1) << limit_ / 1e9
              << " GB/s read by a kernel that only reads\n";
    for (const index tokens : {1, 2, 4, 8}) {
      projection(tokens);
      for (const bool sparse : {false, true}) feed_forward(tokens, sparse);
    }
    attention();
  }

 private:
  template <class Call>
  void measure(const std::string& what, Call&& call) {
    constexpr int calls = 20;
    const work_counters before = be_.counters();
    call();
    const work_counters done = be_.counters() - before;
    const auto bytes = static_cast<double>(done.weight_bytes + done.kv_bytes);
    // As in a decoding step: the host would take longer to start some of these than they run.
    const auto graph = cuda::detail::instantiated(cuda::detail::captured(be_.stream(), [&] {
      for (int i = 0; i < calls; ++i) call();
    }));
    const double rate = probe_.median_rate(calls * bytes, [&] {
      COREMATCHING_CUDA_CHECK(cudaGraphLaunch(graph.get(), be_.stream()));
    });
    std::cout << std::left << std::setw(48) << what << std::right << std::setw(9) << rate / 1e9 << " GB/s "
              << std::setw(6) << 100 * rate / limit_ << " %\n";
  }

  static std::string of_tokens(const std::string& what, index tokens) {
    return what + ", " + std::to_string(tokens) + (tokens == 1 ? " token" : " tokens");
  }

  void projection(index tokens) {
    turns weights(be_, hidden, hidden);
    const auto x = ones(be_, tokens, hidden);
    matrix<B> y(be_, tokens, hidden);
    measure(of_tokens("projection", tokens), [&] { be_.matmul(y.view(), x.view(), weights.next()); });
  }

  void feed_forward(index tokens, bool sparse) {
    turns weights(be_, neurons, hidden);
    const auto core = core_of(be_);
    neuron_selection<device_space> chosen;
    if (sparse) chosen = core.view();
    const index count = sparse ? core.size() : neurons;
    const auto x = ones(be_, tokens, hidden), inner = ones(be_, tokens, count);
    matrix<B> raised(be_, tokens, count), y(be_, tokens, hidden);
    const std::string rows = sparse ? " of 40% of the neurons" : "";
    measure(of_tokens("gate and up" + rows, tokens), [&] {
      const auto gate = weights.next(), up = weights.next();
      be_.gated_up(raised.view(), x.view(), gate, up, activation::silu, chosen);
    });
    measure(of_tokens("down" + rows, tokens),
            [&] { be_.weighted_rows(y.view(), inner.view(), weights.next(), chosen); });
  }

  void attention() {
    turns cache(be_, cached_tokens, heads.kv_size());
    const auto q = ones(be_, 1, heads.query_size());
    matrix<B> y(be_, 1, heads.query_size());
    measure("attention to " + std::to_string(cached_tokens) + " tokens", [&] {
      const auto keys = cache.next(), values = cache.next();
      be_.attention(y.view(), q.view(), keys, values, heads);
    });
  }

  B& be_;
  cuda_probe probe_;
  double limit_;
};

}  // namespace
}  // namespace corematching::bench

int main(int argc, char** argv) {
  try {
    corematching::cuda::backend be(argc > 1 ? std::atoi(argv[1]) : 0);
    corematching::bench::decode_operations(be).run();
  } catch (const std::exception& problem) {
    std::cerr << "cuda_ops_bench: " << problem.what() << '\n';
    return 1;
  }
}
