// SPDX-License-Identifier: Apache-2.0
// The CPU backend's operations at the sizes of a 7B model: products of one token (decode) with all or a
// random 40% of the neurons, products of a prompt (prefill), attention, pointwise operations and selection.
// Rates are bytes of weights or cache read per second, and operations per second. Copies of the weights,
// together larger than any cache, take turns, as layers do. The second argument is the number of threads. On
// a machine that is not quiet:
//   ops_bench --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
//
// ops_bench computes with linked kernels, those that COREMATCHING_ISA names; ops_bench_included with the same
// kernels included and compiled for this machine. compare_ops_bench.py runs one beside the other.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/backend/linked/cpu.hpp"
#if defined(COREMATCHING_BENCH_INCLUDED)
#include "corematching/backend/cpu/backend.hpp"
#endif
#include "corematching/select/bitset.hpp"
#include "random_weights.hpp"

namespace corematching::bench {
namespace {

#if defined(COREMATCHING_BENCH_INCLUDED)
using B = cpu::backend;
B make_backend(int threads) {
  return B(threads);
}
#else
using B = linked_backend<host_space>;
B make_backend(int threads) {
  return cpu::make_linked_backend(threads);
}
#endif

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
matrix<B> random_rows(B& be, index rows, index cols) {
  matrix<B> made(be, rows, cols);
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

  stored_view<> next() {
    at_ = (at_ + 1) % copies_.size();
    return copies_[at_].view;
  }

 private:
  std::vector<weight<host_space>> copies_;
  std::size_t at_ = 0;
};

/// A random share of the neurons, ascending, as core neurons are.
std::vector<std::int32_t> core_of(double share, unsigned seed = 1) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(neurons)), chosen;
  std::iota(all.begin(), all.end(), 0);
  std::sample(all.begin(), all.end(), std::back_inserter(chosen), static_cast<index>(share * neurons),
              std::mt19937(seed));
  return chosen;
}

/// Such sets of several tokens, independent of each other.
class cores_of_tokens {
 public:
  cores_of_tokens(index tokens, double share) {
    for (index t = 0; t < tokens; ++t) cores_.push_back(core_of(share, static_cast<unsigned>(t)));
    for (const auto& core : cores_) views_.emplace_back(index_view<>{core.data(), std::ssize(core)});
  }
  std::span<const neuron_selection<host_space>> views() const { return views_; }
  index size() const { return std::ssize(cores_.front()); }

 private:
  std::vector<std::vector<std::int32_t>> cores_;
  std::vector<neuron_selection<host_space>> views_;
};

/// Nothing selects all neurons.
neuron_selection<host_space> selection_of(const std::vector<std::int32_t>& core) {
  if (std::ssize(core) == neurons) return {};
  return index_view<>{core.data(), std::ssize(core)};
}

/// Runs `step` and reports the rates that the backend's own counters give.
template <class Step>
void measure(benchmark::State& state, B& be, Step&& step) {
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
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), hidden, hidden);
  const auto x = random_rows(be, tokens, hidden);
  matrix<B> y(be, tokens, hidden);
  measure(state, be, [&] { be.matmul(y.view(), x.view(), weights.next()); });
}

void gated_up(benchmark::State& state, index tokens, double share) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const std::vector<std::int32_t> core = core_of(share);
  const auto x = random_rows(be, tokens, hidden);
  matrix<B> y(be, tokens, std::ssize(core));
  measure(state, be, [&] {
    const stored_view<> gate = weights.next(), up = weights.next();
    be.gated_up(y.view(), x.view(), gate, up, activation::silu, selection_of(core));
  });
}

// What is foretold of all neurons, and what of it the chosen ones are finished from; of weights in two
// planes.
void coarse_matmul(benchmark::State& state) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const auto x = random_rows(be, 1, hidden);
  matrix<B> y(be, 1, neurons);
  measure(state, be, [&] { be.coarse_matmul(y.view(), x.view(), weights.next()); });
}

void finish_gated_up(benchmark::State& state, double share) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const std::vector<std::int32_t> core = core_of(share);
  const auto x = random_rows(be, 1, hidden), coarse = random_rows(be, 1, neurons);
  matrix<B> y(be, 1, std::ssize(core));
  measure(state, be, [&] {
    const stored_view<> gate = weights.next(), up = weights.next();
    be.finish_gated_up(y.view(), x.view(), gate, up, coarse.view().row(0), coarse.view().row(0),
                       activation::silu, {core.data(), std::ssize(core)});
  });
}

void top_k(benchmark::State& state, double share) {
  B be = make_backend(static_cast<int>(state.range(0)));
  const auto x = random_rows(be, 1, neurons);
  std::vector<std::int32_t> places(static_cast<std::size_t>(share * neurons));
  for (auto _ : state) be.top_k({places.data(), std::ssize(places)}, x.view().row(0));
}

void weighted_rows(benchmark::State& state, index tokens, double share) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const std::vector<std::int32_t> core = core_of(share);
  const auto x = random_rows(be, tokens, std::ssize(core));
  matrix<B> y(be, tokens, hidden);
  measure(state, be, [&] { be.weighted_rows(y.view(), x.view(), weights.next(), selection_of(core)); });
}

// Of sequences that decode together, each with core neurons of its own.
void gated_up_each(benchmark::State& state, index tokens, double share) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const cores_of_tokens cores(tokens, share);
  const auto x = random_rows(be, tokens, hidden);
  matrix<B> y(be, tokens, cores.size());
  measure(state, be, [&] {
    const stored_view<> gate = weights.next(), up = weights.next();
    be.gated_up_each(y.view(), x.view(), gate, up, activation::silu, cores.views());
  });
}

void weighted_rows_each(benchmark::State& state, index tokens, double share) {
  B be = make_backend(threads_of(state));
  weight_ring weights(threads_of(state), type_of(state), neurons, hidden);
  const cores_of_tokens cores(tokens, share);
  const auto x = random_rows(be, tokens, cores.size());
  matrix<B> y(be, tokens, hidden), room(be, tokens, hidden);
  measure(state, be,
          [&] { be.add_weighted_rows_each(y.view(), x.view(), weights.next(), cores.views(), room.view()); });
}

/// Keys or values of `rows` tokens as a cache stores them; nothing but the values differs from a layer's.
class cached_rows {
 public:
  cached_rows(B& be, dtype type, index rows, index cols)
      : storage_(be.allocate<std::byte>(static_cast<index>(stored_bytes(type, rows, cols)))),
        view_{storage_.data(), type, rows, cols, static_cast<index>(stored_bytes(type, 1, cols))} {
    be.store_rows(view_, random_rows(be, rows, cols).view());
  }
  stored_view<> view() const { return {view_.data, view_.type, view_.rows, view_.cols, view_.row_bytes}; }

 private:
  B::buffer<std::byte> storage_;
  mutable_stored_view<> view_;
};

/// The last `queries` of `keys` tokens; caches take turns as well.
void attention(benchmark::State& state, attention_shape shape, index queries, index keys) {
  B be = make_backend(threads_of(state));
  const dtype type = type_of(state);
  std::vector<cached_rows> caches;
  const std::uint64_t bytes = stored_bytes(type, keys, shape.kv_size());
  for (std::uint64_t i = 0; i < 2 * (beyond_caches / (2 * bytes) + 2); ++i)
    caches.emplace_back(be, type, keys, shape.kv_size());
  const auto q = random_rows(be, queries, shape.query_size());
  matrix<B> y(be, queries, shape.query_size());
  std::size_t at = 0;
  measure(state, be, [&] {
    at = (at + 2) % caches.size();
    be.attention(y.view(), q.view(), caches[at].view(), caches[at + 1].view(), shape);
  });
}

/// An operation on the rows of a prompt, or on one row.
template <class Operation>
void pointwise(benchmark::State& state, index tokens, index cols, Operation operation) {
  B be = make_backend(static_cast<int>(state.range(0)));
  const auto x = random_rows(be, tokens, cols);
  matrix<B> y(be, tokens, cols);
  be.copy(y.view(), x.view());
  for (auto _ : state) {
    operation(be, y.view(), x.view());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * tokens * cols * index{sizeof(float)});
}

void rms_norm(benchmark::State& state, index tokens) {
  const std::vector<float> weight(hidden, 1.0f);
  pointwise(state, tokens, hidden, [&](B& be, matrix_view<float> y, matrix_view<const float> x) {
    be.rms_norm(y, x, {weight.data(), hidden}, 1e-5f);
  });
}

void layer_norm(benchmark::State& state, index tokens) {
  const std::vector<float> weight(hidden, 1.0f), bias(hidden, 0.1f);
  pointwise(state, tokens, hidden, [&](B& be, matrix_view<float> y, matrix_view<const float> x) {
    be.layer_norm(y, x, {weight.data(), hidden}, {bias.data(), hidden}, 1e-5f);
  });
}

void rotary(benchmark::State& state, index tokens) {
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> frequencies(static_cast<std::size_t>(heads.head_dim / 2), 0.01f);
  pointwise(state, tokens, hidden, [&](B& be, matrix_view<float> y, matrix_view<const float>) {
    be.rotary(y, {positions.data(), tokens}, {frequencies.data(), std::ssize(frequencies)}, heads.heads);
  });
}

void add(benchmark::State& state, index tokens) {
  pointwise(state, tokens, hidden,
            [](B& be, matrix_view<float> y, matrix_view<const float> x) { be.add(y, x); });
}

void activate(benchmark::State& state, index tokens, activation act) {
  B be = make_backend(static_cast<int>(state.range(0)));
  const auto x = random_rows(be, tokens, hidden);
  matrix<B> y(be, tokens, hidden);
  for (auto _ : state) {
    // Applied to its own results it would soon compute with subnormal numbers.
    state.PauseTiming();
    be.copy(y.view(), x.view());
    state.ResumeTiming();
    be.activate(y.view(), act);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * tokens * hidden * index{sizeof(float)});
}

void store_rows(benchmark::State& state, index tokens) {
  std::vector<std::uint16_t> stored(static_cast<std::size_t>(tokens * hidden));
  const mutable_stored_view<> cache{reinterpret_cast<std::byte*>(stored.data()), dtype::f16, tokens, hidden,
                                    2 * hidden};
  pointwise(state, tokens, hidden,
            [&](B& be, matrix_view<float>, matrix_view<const float> x) { be.store_rows(cache, x); });
}

/// Core neurons of a layer's prompt: what fires, how often it is among a token's strongest, what is chosen.
struct prompt_activation {
  explicit prompt_activation(B& be)
      : x(random_rows(be, prompt, neurons)),
        bits(be, prompt, select::words_for(neurons)),
        counts(static_cast<std::size_t>(prompt)),
        frequency(static_cast<std::size_t>(neurons)) {
    be.activated_neurons(bits.view(), {counts.data(), prompt}, std::as_const(x).view());
    count(be);
  }
  void count(B& be) {
    be.count_core_neurons({frequency.data(), neurons}, std::as_const(x).view(), {counts.data(), prompt}, 0.2,
                          core_count::per_token);
  }

  matrix<B> x;
  matrix<B, std::uint64_t> bits;
  std::vector<std::int32_t> counts, frequency;
};

template <class Operation>
void selection(benchmark::State& state, Operation operation) {
  B be = make_backend(static_cast<int>(state.range(0)));
  prompt_activation seen(be);
  for (auto _ : state) {
    operation(be, seen);
    benchmark::ClobberMemory();
  }
}

void activated_neurons(benchmark::State& state) {
  selection(state, [](B& be, prompt_activation& seen) {
    be.activated_neurons(seen.bits.view(), {seen.counts.data(), prompt}, std::as_const(seen.x).view());
  });
}

void count_core_neurons(benchmark::State& state) {
  selection(state, [](B& be, prompt_activation& seen) { seen.count(be); });
}

void core_neurons(benchmark::State& state) {
  selection(state, [](B& be, prompt_activation& seen) {
    benchmark::DoNotOptimize(be.core_neurons({seen.frequency.data(), neurons}, 0.4));
  });
}

void overlap(benchmark::State& state) {
  std::vector<std::int32_t> scores(static_cast<std::size_t>(prompt));
  selection(state, [&](B& be, prompt_activation& seen) {
    be.overlap({scores.data(), prompt}, std::as_const(seen.bits).view(),
               std::as_const(seen.bits).view().row(0));
  });
}

void for_threads(benchmark::internal::Benchmark* bench) {
  for (const int threads : {1, 2}) bench->Arg(threads);
  bench->ArgName("threads")->UseRealTime()->Unit(benchmark::kMicrosecond);
}

void for_types_and_threads(benchmark::internal::Benchmark* bench) {
  for (const dtype type : weight_types)
    for (const int threads : {1, 2}) bench->Args({static_cast<int>(type), threads});
  bench->ArgNames({"type", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

void for_planes_and_threads(benchmark::internal::Benchmark* bench) {
  for (const dtype type : {dtype::q8_0_planes, dtype::q4_0_planes, dtype::f16_planes})
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
BENCHMARK(coarse_matmul)->Apply(for_planes_and_threads);
BENCHMARK_CAPTURE(finish_gated_up, decode_core, core_share)->Apply(for_planes_and_threads);
BENCHMARK_CAPTURE(top_k, neurons, core_share)->Apply(for_threads);
BENCHMARK_CAPTURE(weighted_rows, decode, 1, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, decode_core, 1, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, together_2, 2, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, together_4, 4, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up, together_8, 8, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up_each, together_2, 2, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up_each, together_4, 4, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(gated_up_each, together_8, 8, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, together_2, 2, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, together_4, 4, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows, together_8, 8, 1.0)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows_each, together_2, 2, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows_each, together_4, 4, core_share)->Apply(for_types_and_threads);
BENCHMARK_CAPTURE(weighted_rows_each, together_8, 8, core_share)->Apply(for_types_and_threads);
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
BENCHMARK_CAPTURE(rms_norm, decode, 1)->Apply(for_threads);
BENCHMARK_CAPTURE(rms_norm, prefill, prompt)->Apply(for_threads);
BENCHMARK_CAPTURE(layer_norm, prefill, prompt)->Apply(for_threads);
BENCHMARK_CAPTURE(rotary, decode, 1)->Apply(for_threads);
BENCHMARK_CAPTURE(rotary, prefill, prompt)->Apply(for_threads);
BENCHMARK_CAPTURE(add, decode, 1)->Apply(for_threads);
BENCHMARK_CAPTURE(add, prefill, prompt)->Apply(for_threads);
BENCHMARK_CAPTURE(activate, silu, prompt, activation::silu)->Apply(for_threads);
BENCHMARK_CAPTURE(activate, quick_gelu, prompt, activation::quick_gelu)->Apply(for_threads);
BENCHMARK_CAPTURE(store_rows, decode, 1)->Apply(for_threads);
BENCHMARK_CAPTURE(store_rows, prefill, prompt)->Apply(for_threads);
BENCHMARK(activated_neurons)->Apply(for_threads);
BENCHMARK(count_core_neurons)->Apply(for_threads);
BENCHMARK(core_neurons)->Apply(for_threads);
BENCHMARK(overlap)->Apply(for_threads);

}  // namespace
}  // namespace corematching::bench
