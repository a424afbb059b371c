// SPDX-License-Identifier: Apache-2.0
// An engine with its own activations: it has neither Eigen nor a JSON library.
#include <corematching/select.hpp>

#include <cstdint>
#include <iostream>
#include <vector>

#if __has_include(<Eigen/Core>)
#error "this project must not see Eigen"
#endif

int main() {
  // Three image tokens, four neurons; rho = beta = 0.5 leaves the two neurons that fire most often.
  const std::vector<float> activation = {3, 2, 0, 0,  //
                                         4, 1, 0, 0,  //
                                         0, 0, 0, 5};
  const auto neurons = corematching::select::core_neurons(activation.data(), 3, 4, 4, 0.5, 0.5);
  corematching::select::keep_options options;
  options.rule = corematching::select::keep_rule::top_k;
  options.count = 2;
  const auto tokens = corematching::select::core_tokens(
      activation.data(), 3, 4, 4, {neurons.data(), static_cast<corematching::index>(neurons.size())},
      options);
  std::cout << neurons.size() << " neurons, " << tokens.size() << " tokens\n";
  const bool right = neurons == std::vector<std::int32_t>{0, 3} && tokens == std::vector<std::int32_t>{0, 1};
  return right ? 0 : 1;
}
