// SPDX-License-Identifier: Apache-2.0
// Neurons that were chosen, in both of the forms that are asked for: numbers for products, bits for overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "corematching/core/config.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/bitset.hpp"

namespace corematching::select {
inline namespace COREMATCHING_CPU_ISA {

/// A set of neurons, as ascending numbers and as bits.
class neuron_set {
 public:
  neuron_set() = default;
  neuron_set(std::vector<std::int32_t> indices, index neurons)
      : indices_(std::move(indices)), bits_(static_cast<std::size_t>(words_for(neurons))) {
    indices_to_bits(this->indices(), bits_.data(), std::ssize(bits_));
  }

  index_view<> indices() const { return {indices_.data(), std::ssize(indices_)}; }
  vector_view<const std::uint64_t> bits() const { return {bits_.data(), std::ssize(bits_)}; }

 private:
  std::vector<std::int32_t> indices_;
  std::vector<std::uint64_t> bits_;
};

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::select
