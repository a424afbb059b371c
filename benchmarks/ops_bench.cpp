// SPDX-License-Identifier: Apache-2.0
// The backend's operations at the sizes of a 7B model, for each storage type of weights: products of one
// token (decode) with all or a random 40% of the neurons, products of a prompt (prefill), and attention.
// Rates are bytes of weights or cache read per second, and operations per second. Copies of the weights,
// together larger than any cache, take turns, as layers do. The second argument is the number of threads. On
// a machine that is not quiet:
//   ops_bench --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <random>
#include <vector>

#include "corematching/backend/cpu/backend.hpp"
#include "random_weights.hpp"

namespace corematching::bench {
namespace {

constexpr index hidden = 4096, neurons = 11008, prompt = 640;
constexpr attention_shape heads{32, 32, 128, 0.088f, true};
// Of a model whose query heads share key/value heads, and of a vision tower.
constexpr attention_shape shared_heads{32, 8, 128, 0.088f, true}, vision_heads{16, 16, 64, 0.125f, false};
constexpr index patches = 577, long_prompt = 4000;
constexpr double core_share = 0.4;
constexpr std::uint64_t beyond_caches = std::uint64_t{256} << 20;

dtype type_of(const benchmark::State& state) {
  return static_cast<dtype>(state.range(0));
}
int threads_of(const benchmark::State& state) {
  return static_cast<int>(state.range(1));
}

/// Normal values of unit variance.
matrix<cpu::backend> random_rows(cpu::backend& be, index rows, index cols) {
  matrix<cpu::backend> made(be, rows, cols);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate_n(made.view().data, rows * cols, [&] { return normal(random); });
  return made;
}

/// Copies of one weight matrix [rows, cols] that take turns.
class weight_ring {
 public:
  weight_ring(int threads, dtype type, index rows, index cols) {
    cpu::thread_pool pool(threads);
    const std::uint64_t copies = beyond_caches / stored_bytes(type, rows, cols) + 2;
    const double rms = 1 / std::sqrt(static_cast<double>(cols));
    for (std::uint64_t i = 0; i < copies; ++i)
      copies_.push_back(random_weight(pool, type, rows, cols, rms, i));
  }

  weight_view<> next() {
    at_ = (at_ + 1) % copies_.size();
    return copies_[at_].view;
  }

 private:
  std::vector<weight<host_space>> copies_;
  std::size_t at_ = 0;
};

/// A random share of the neurons, ascending, as core neurons are.
std::vector<std::int32_t> core_of(double share) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(neurons)), chosen;
  std::iota(all.begin(), all.end(), 0);
  std::sample(all.begin(), all.end(), std::back_inserter(chosen), static_cast<index>(share * neurons),
              std::mt19937(1));
  return chosen;
}

/// Nothing selects all neurons.
neuron_selection<host_space> selection_of(const std::vector<std::int32_t>& core) {
  if (std::ssize(core) == neurons) return {};
  return index_view<>{core.data(), std::ssize(core)};
}

/// Runs `step` and reports the rates that the backend's own counters give.
template <class Step>
void measure(benchmark::State& state, cpu::backend& be, Step&& step) {
  step();
  const work_counters before = be.counters();
  for (auto _ : state) {
    step();
    benchmark::ClobberMemory();
  }
  const work_counters done = be.counters() - before;
  state.SetBytesProcessed(static_cast<index>(done.weight_bytes + done.kv_bytes));
  state.counters["FLOP/s"] = benchmark::Counter(static_cast<double>(done.flops), benchmark::Counter::kIsRate);
  state.SetLabel(name_of(type_of(state)));
}

void matmul(benchmark::State& state, index tokens) {
  cpu::backend be(threads_of(state));
  weight_ring weights(be.threads(), type_of(state), hidden, hidden);
  const auto x = random_rows(be, tokens, hidden);
  matrix<cpu::backend> y(be, tokens, hidden);
  measure(state, be, [&] { be.matmul(y.view(), x.view(), weights.next()); });
}

void gated_up(benchmark::State& state, index tokens, double share) {
  cpu::backend be(threads_of(state));
  weight_ring weights(be.threads(), type_of(state), neurons, hidden);
  const std::vector<std::int32_t> core = core_of(share);
  const auto x = random_rows(be, tokens, hidden);
  matrix<cpu::backend> y(be, tokens, std::ssize(core));
  measure(state, be, [&] {
    const weight_view<> gate = weights.next(), up = weights.next();
    be.gated_up(y.view(), x.view(), gate, up, activation::silu, selection_of(core));
  });
}

void weighted_rows(benchmark::State& state, index tokens, double share) {
  cpu::backend be(threads_of(state));
  weight_ring weights(be.threads(), type_of(state), neurons, hidden);
  const std::vector<std::int32_t> core = core_of(share);
  const auto x = random_rows(be, tokens, std::ssize(core));
  matrix<cpu::backend> y(be, tokens, hidden);
  measure(state, be, [&] { be.weighted_rows(y.view(), x.view(), weights.next(), selection_of(core)); });
}

/// Keys or values of `rows` tokens as a cache stores them; nothing but the values differs from a layer's.
class cached_rows {
 public:
  cached_rows(cpu::backend& be, dtype type, index rows, index cols)
      : storage_(be.allocate<std::byte>(static_cast<index>(stored_bytes(type, rows, cols)))),
        view_{storage_.data(), type, rows, cols, static_cast<index>(stored_bytes(type, 1, cols))} {
    be.store_rows(view_, random_rows(be, rows, cols).view());
  }
  weight_view<> view() const { return {view_.data, view_.type, view_.rows, view_.cols, view_.row_bytes}; }

 private:
  cpu::buffer<std::byte> storage_;
  cache_view<> view_;
};

/// The last `queries` of `keys` tokens; caches take turns as well.
void attention(benchmark::State& state, attention_shape shape, index queries, index keys) {
  cpu::backend be(threads_of(state));
  const dtype type = type_of(state);
  std::vector<cached_rows> caches;
  const std::uint64_t bytes = stored_bytes(type, keys, shape.kv_size());
  for (std::uint64_t i = 0; i < 2 * (beyond_caches / (2 * bytes) + 2); ++i)
    caches.emplace_back(be, type, keys, shape.kv_size());
  const auto q = random_rows(be, queries, shape.query_size());
  matrix<cpu::backend> y(be, queries, shape.query_size());
  std::size_t at = 0;
  measure(state, be, [&] {
    at = (at + 2) % caches.size();
    be.attention(y.view(), q.view(), caches[at].view(), caches[at + 1].view(), shape);
  });
}

void for_types_and_threads(benchmark::internal::Benchmark* bench) {
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_0})
    for (const int threads : {1, 2}) bench->Args({static_cast<int>(type), threads});
  bench->ArgNames({"type", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

void for_caches_and_threads(benchmark::internal::Benchmark* bench) {
  for (const dtype type : {dtype::f32, dtype::f16})
    for (const int threads : {1, 2}) bench->Args({static_cast<int>(type), threads});
  bench->ArgNames({"type", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_CAPTURE(matmul, decode, 1)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, decode, 1, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, decode_core, 1, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, decode, 1, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, decode_core, 1, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(attention, decode, heads, 1, prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(attention, decode_long, heads, 1, long_prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(attention, decode_shared, shared_heads, 1, long_prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(matmul, prefill, prompt)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, prefill, prompt, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, prefill, prompt, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(attention, prefill, heads, prompt, prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(attention, prefill_shared, shared_heads, prompt, prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(attention, second_turn, heads, 64, long_prompt)->Apply(for_caches_and_threads);
BENCHMARK_CAPTURE(attention, vision, vision_heads, patches, patches)->Apply(for_caches_and_threads);

}  // namespace
}  // namespace corematching::bench
