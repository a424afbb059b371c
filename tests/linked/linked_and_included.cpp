// SPDX-License-Identifier: Apache-2.0
// One program with many bodies and kernels of its own flags: each that this CPU can run computes, and all
// agree.
#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "corematching/backend/cpu/backend.hpp"
#include "corematching/backend/linked/cpu.hpp"

namespace corematching {
namespace {

constexpr index tokens = 9, hidden = 64, neurons = 96;

struct layer_data {
  std::vector<float> x, gate, up, down;
};

std::vector<float> random_numbers(std::mt19937& random, index count) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

stored_view<> matrix_of(const std::vector<float>& values, index rows, index cols) {
  return {reinterpret_cast<const std::byte*>(values.data()), dtype::f32, rows, cols,
          cols * index{sizeof(float)}};
}

// A feed-forward block with weights in q8_0, and the core neurons of its activation.
template <backend B>
std::pair<std::vector<float>, std::vector<std::int32_t>> computed(B& be, const layer_data& data) {
  const auto quantised = [&](const std::vector<float>& values, index rows, index cols) {
    return be.convert_weight(matrix_of(values, rows, cols), dtype::q8_0, false);
  };
  const auto gate = quantised(data.gate, neurons, hidden), up = quantised(data.up, neurons, hidden);
  const auto down = quantised(data.down, neurons, hidden);
  matrix<B> activation(be, tokens, neurons), y(be, tokens, hidden);
  be.gated_up(activation.view(), {data.x.data(), tokens, hidden, hidden}, gate.view, up.view,
              activation::silu);
  be.weighted_rows(y.view(), activation.view(), down.view);

  matrix<B, std::uint64_t> bits(be, tokens, 2);
  std::vector<std::int32_t> counts(tokens), frequency(neurons);
  be.activated_neurons(bits.view(), {counts.data(), tokens}, activation.view());
  be.count_core_neurons({frequency.data(), neurons}, activation.view(), {counts.data(), tokens}, 0.3,
                        core_count::per_token);
  const auto set = be.core_neurons({frequency.data(), neurons}, 0.4);
  const auto core = set.indices();
  const auto sums = y.view();
  return {std::vector<float>(sums.data, sums.data + tokens * hidden), {core.begin(), core.end()}};
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - double{b[i]}, 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

bool all_agree() {
  std::mt19937 random(4);
  const layer_data data{random_numbers(random, tokens * hidden), random_numbers(random, neurons * hidden),
                        random_numbers(random, neurons * hidden), random_numbers(random, neurons * hidden)};
  cpu::backend own(2);
  const auto [expected, expected_core] = computed(own, data);
  std::cout << "own flags: " << name_of(cpu::backend::compiled_for) << '\n';
  bool agree = true;
  for (const cpu::linked_body* body : cpu::linked_bodies()) {
    const auto set = instruction_set_named(body->name);  // of all but eigen
    if (set && !is_granted(this_cpu(), *set)) continue;
    linked_backend<host_space> be(*body, 2);
    const auto [sums, core] = computed(be, data);
    // Tokens are rounded to 8 bits (VNNI) where they are not rounded to 16: off by 1 / (127 sqrt(12)) of a
    // block's largest, which is about 2 times its root mean square, so by 0.005 of the token; for AMX tokens
    // and weights to bfloat16, less. Both products pass it on; the bound is about four times as much.
    const double off = distance(sums, expected);
    std::cout << body->name << ": " << core.size() << " core neurons, sums off by " << off << '\n';
    agree &= off < 2e-2 && core.size() == expected_core.size();
    try {
      be.weight_memory(std::size_t{1} << 62);
      agree = false;
    } catch (const error& problem) {
      agree &= std::string(problem.what()).starts_with("out of memory");
    }
  }
  return agree;
}

}  // namespace
}  // namespace corematching

int main() {
  return corematching::all_agree() ? 0 : 1;
}
