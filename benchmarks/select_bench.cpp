// SPDX-License-Identifier: Apache-2.0
// Cost of selection for one layer of a 7B model: 640 tokens (576 of an image) x 11008 neurons. Rates are
// bytes of activations per second; `read` is the memory's own limit on one thread. On a machine that is not
// quiet:
//   select_bench --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "corematching/select.hpp"

namespace corematching::select {
namespace {

constexpr index tokens = 640, image_tokens = 576, neurons = 11008, words = words_for(neurons);
constexpr double rho = 0.2, beta = 0.4;

/// SiLU(g)·u of normal g and u: half of the activations are positive.
template <class T>
const std::vector<T>& activations() {
  static const std::vector<T> made = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<T> values(tokens * neurons);
    for (T& a : values) {
      const float gate = normal(random);
      const float value = gate / (1.0f + std::exp(-gate)) * normal(random);
      if constexpr (std::is_same_v<T, f16>) a = to_f16(value);
      if constexpr (std::is_same_v<T, bf16>) a = to_bf16(value);
      if constexpr (std::is_same_v<T, float>) a = value;
    }
    return values;
  }();
  return made;
}

template <class T>
const T* row(index x) {
  return activations<T>().data() + x * neurons;
}

/// |Γ(x)| of each token and all sets.
struct activated_sets {
  std::vector<word> bits = std::vector<word>(tokens * words);
  std::vector<std::int32_t> counts = std::vector<std::int32_t>(tokens);

  activated_sets() {
    activated_neurons(row<float>(0), tokens, neurons, neurons, bits.data(), words, counts.data());
  }
};

const activated_sets& sets() {
  static const activated_sets made;
  return made;
}

index core_size_of(index x) {
  return core_size(rho, sets().counts[static_cast<std::size_t>(x)]);
}

template <class T>
void report(benchmark::State& state, index rows = tokens) {
  state.SetBytesProcessed(state.iterations() * rows * neurons * static_cast<index>(sizeof(T)));
}

void read(benchmark::State& state) {
  const auto* data = reinterpret_cast<const std::uint64_t*>(row<float>(0));
  constexpr index size = tokens * neurons / 2;
  for (auto _ : state) {
    std::uint64_t sums[16] = {};  // enough chains for the compiler to keep in vector registers
    for (index i = 0; i < size; i += 16) {
      for (index lane = 0; lane < 16; ++lane) sums[lane] += data[i + lane];
    }
    benchmark::DoNotOptimize(sums);
  }
  report<float>(state);
}

template <class T>
void activated(benchmark::State& state) {
  activated_sets into;
  for (auto _ : state) {
    activated_neurons(row<T>(0), tokens, neurons, neurons, into.bits.data(), words, into.counts.data());
    benchmark::ClobberMemory();
  }
  report<T>(state);
}

void activated_scalar(benchmark::State& state) {
  std::vector<word> bits(words);
  for (auto _ : state) {
    for (index x = 0; x < tokens; ++x) {
      benchmark::DoNotOptimize(detail::pack_positive_scalar(row<float>(x), neurons, bits.data()));
    }
  }
  report<float>(state);
}

template <class T>
void count_core(benchmark::State& state) {
  core_scratch scratch;
  std::vector<std::int32_t> frequency(neurons);
  for (auto _ : state) {
    for (index x = 0; x < tokens; ++x) {
      count_core_neurons(row<T>(x), neurons, core_size_of(x), scratch, frequency.data());
    }
    benchmark::ClobberMemory();
  }
  report<T>(state);
}

/// What one would write first: order the positive neurons by activation, ties to the lower, and take k.
template <class Order>
void count_core_by(benchmark::State& state, Order order) {
  std::vector<std::int32_t> positive, frequency(neurons);
  for (auto _ : state) {
    for (index x = 0; x < tokens; ++x) {
      const float* a = row<float>(x);
      positive.clear();
      for (std::int32_t n = 0; n < neurons; ++n) {
        if (a[n] > 0.0f) positive.push_back(n);
      }
      const auto end = positive.begin() + core_size_of(x);
      order(positive.begin(), end, positive.end(),
            [a](std::int32_t l, std::int32_t r) { return a[l] != a[r] ? a[l] > a[r] : l < r; });
      for (auto n = positive.begin(); n != end; ++n) ++frequency[static_cast<std::size_t>(*n)];
    }
    benchmark::ClobberMemory();
  }
  report<float>(state);
}

constexpr auto by_sort = [](auto first, auto, auto last, auto less) { std::sort(first, last, less); };
constexpr auto by_nth_element = [](auto first, auto nth, auto last, auto less) {
  std::nth_element(first, nth, last, less);
};

/// Both passes over each token while it is in cache, then the neurons: all that finding C costs.
template <class T>
void core_neurons_of_layer(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(core_neurons(row<T>(0), tokens, neurons, neurons, rho, beta));
  }
  report<T>(state);
}

void choose_neurons(benchmark::State& state) {
  std::mt19937 random(2);
  std::vector<std::int32_t> frequency(neurons);
  for (auto& f : frequency) f = static_cast<std::int32_t>(random() % tokens);
  for (auto _ : state) {
    benchmark::DoNotOptimize(core_neurons(vector_view<const std::int32_t>{frequency.data(), neurons}, beta));
  }
}

/// m(x) of the image tokens from sets already there, and the tokens that stay.
void choose_tokens(benchmark::State& state) {
  const std::vector<std::int32_t> core = core_neurons(row<float>(0), tokens, neurons, neurons, rho, beta);
  std::vector<word> core_bits(words);
  std::vector<std::int32_t> scores(image_tokens);
  for (auto _ : state) {
    indices_to_bits({core.data(), std::ssize(core)}, core_bits.data(), words);
    overlap(sets().bits.data(), image_tokens, words, core_bits.data(), words, scores.data());
    benchmark::DoNotOptimize(core_tokens(vector_view<const std::int32_t>{scores.data(), image_tokens}));
  }
}

/// The same by rarity, with a question of 20 tokens.
void choose_rare_tokens(benchmark::State& state) {
  const std::vector<std::int32_t> reference = firing_tokens(row<float>(image_tokens), 20, neurons, neurons);
  std::vector<std::int64_t> scores(image_tokens);
  for (auto _ : state) {
    rarity_scores(sets().bits.data(), image_tokens, words, {reference.data(), neurons}, scores.data());
    benchmark::DoNotOptimize(core_tokens(vector_view<const std::int64_t>{scores.data(), image_tokens}));
  }
}

BENCHMARK(read)->Unit(benchmark::kMillisecond);
BENCHMARK(activated<float>)->Unit(benchmark::kMillisecond);
BENCHMARK(activated<f16>)->Unit(benchmark::kMillisecond);
BENCHMARK(activated<bf16>)->Unit(benchmark::kMillisecond);
BENCHMARK(activated_scalar)->Unit(benchmark::kMillisecond);
BENCHMARK(count_core<float>)->Unit(benchmark::kMillisecond);
BENCHMARK(count_core<f16>)->Unit(benchmark::kMillisecond);
BENCHMARK(count_core<bf16>)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(count_core_by, nth_element, by_nth_element)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(count_core_by, sort, by_sort)->Unit(benchmark::kMillisecond);
BENCHMARK(core_neurons_of_layer<float>)->Unit(benchmark::kMillisecond);
BENCHMARK(core_neurons_of_layer<f16>)->Unit(benchmark::kMillisecond);
BENCHMARK(choose_neurons)->Unit(benchmark::kMillisecond);
BENCHMARK(choose_tokens)->Unit(benchmark::kMillisecond);
BENCHMARK(choose_rare_tokens)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace corematching::select
