// SPDX-License-Identifier: Apache-2.0
// The selectors of select/ on a backend's stream. What the host must know of their results comes back in one
// small copy: the size of a set of core neurons and, with it, whether an activation was NaN or infinite. An
// observation alone therefore does not wait for the device; what it has to report is thrown by the next call
// that waits.
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/core/core_count.hpp"
#include "corematching/core/cuda_error.cuh"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/activated_neurons.cuh"
#include "corematching/select/core_neurons.cuh"
#include "corematching/select/core_neurons.hpp"
#include "corematching/select/core_tokens.cuh"

namespace corematching::cuda {

/// A set of neurons in device memory, as ascending numbers and as bits.
class neuron_set {
 public:
  neuron_set() = default;
  /// The first `size` of `indices` are the set.
  neuron_set(buffer<std::int32_t> indices, index size, buffer<std::uint64_t> bits)
      : indices_(std::move(indices)), bits_(std::move(bits)), size_(size) {
    assert(size <= indices_.size());
  }

  index_view<device_space> indices() const { return {indices_.data(), size_}; }
  vector_view<const std::uint64_t, device_space> bits() const { return bits_.view(); }

 private:
  buffer<std::int32_t> indices_;
  buffer<std::uint64_t> bits_;
  index size_ = 0;
};

namespace detail {

/// What the kernels write down for the host, and for each other.
struct selection_notes {
  unsigned long long first_not_finite = select::device::activation_place::none;
  std::int32_t set_size = 0;
  std::int32_t shared_core_size = 0;
};

/// A backend's notes in device memory; none until they are needed.
struct selection_state {
  buffer<selection_notes> notes;
  bool observed = false;  // since the host last looked at first_not_finite
};

inline void forget_notes(const context& on, selection_state& state) {
  static_assert(select::device::activation_place::none == ~0ull);
  COREMATCHING_CUDA_CHECK(cudaMemsetAsync(state.notes.data(), 0xff, sizeof(selection_notes), on.stream));
  state.observed = false;
}

inline selection_notes* notes_of(const context& on, selection_state& state) {
  if (state.notes.size() == 0) {
    state.notes = buffer<selection_notes>(on.stream, 1);
    forget_notes(on, state);
  }
  return state.notes.data();
}

/// Waits for the stream; throws where an activation since the last call was NaN or infinite.
inline selection_notes read_notes(const context& on, selection_state& state) {
  selection_notes read;
  COREMATCHING_CUDA_CHECK(
      cudaMemcpyAsync(&read, notes_of(on, state), sizeof(read), cudaMemcpyDeviceToHost, on.stream));
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(on.stream));
  state.observed = false;
  const select::device::activation_place place{read.first_not_finite};
  if (place.found()) {
    forget_notes(on, state);
    fail("activation of token ", place.token(), ", neuron ", place.neuron(), " is ",
         place.is_nan() ? "NaN" : "infinite");
  }
  return read;
}

/// Throws where activated_neurons met an activation that is NaN or infinite, after waiting for the stream.
/// Does nothing where it was not called since the last check.
inline void check_finite(const context& on, selection_state& state) {
  if (state.observed) read_notes(on, state);
}

/// Γ(x) of each row of x [T, N]: bits [T, words], counts [T]. NaN and infinity are reported by the next call
/// of check_finite or core_neurons.
inline void activated_neurons(const context& on, selection_state& state,
                              matrix_view<std::uint64_t, device_space> bits,
                              vector_view<std::int32_t, device_space> counts,
                              matrix_view<const float, device_space> x) {
  assert(bits.rows == x.rows && counts.size == x.rows && bits.cols == select::words_for(x.cols));
  if (x.rows == 0) return;
  selection_notes* notes = notes_of(on, state);
  state.observed = true;
  select::device::activated_neurons(on.stream, x.data, x.rows, x.cols, x.stride, bits.data, bits.stride,
                                    counts.data, &notes->first_not_finite);
}

/// frequency[n] += the number of `rows` (all where there is no list) x with n in C_ρ(x); counts[x] = |Γ(x)|.
/// Throws where rho lies outside (0, 1].
inline void count_core_neurons(const context& on, selection_state& state,
                               vector_view<std::int32_t, device_space> frequency,
                               matrix_view<const float, device_space> x,
                               vector_view<const std::int32_t, device_space> counts, double rho,
                               core_count rule, const std::optional<index_view<device_space>>& rows = {}) {
  assert(frequency.size == x.cols && counts.size == x.rows);
  select::detail::require_fraction(rho, "rho");
  const index counted = rows ? rows->size : x.rows;
  if (counted == 0) return;
  const std::int32_t* listed = rows ? rows->data : nullptr;
  std::int32_t* shared_size = nullptr;
  if (rule == core_count::mean_count) {
    shared_size = &notes_of(on, state)->shared_core_size;
    select::device::mean_core_size(on.stream, counts.data, listed, counted, rho, shared_size);
  }
  select::device::count_core_neurons(on.stream, x.data, x.cols, x.stride, listed, counted, counts.data, rho,
                                     shared_size, frequency.data);
}

/// C_ρ^β of the sentence whose frequencies these are. Waits for the stream. Throws where beta lies outside
/// (0, 1], and what check_finite throws.
inline neuron_set core_neurons(const context& on, selection_state& state,
                               vector_view<const std::int32_t, device_space> frequency, double beta) {
  select::detail::require_fraction(beta, "beta");
  require(frequency.size <= std::numeric_limits<std::int32_t>::max(), "too many neurons: ", frequency.size);
  const auto wanted = static_cast<index>(std::floor(beta * static_cast<double>(frequency.size)));
  buffer<std::int32_t> indices(on.stream, wanted);
  buffer<std::uint64_t> bits(on.stream, select::words_for(frequency.size));
  select::device::core_neurons(on.stream, frequency.data, frequency.size, wanted, indices.data(), bits.data(),
                               &notes_of(on, state)->set_size);
  const index size = read_notes(on, state).set_size;
  return {std::move(indices), size, std::move(bits)};
}

/// scores[x] = |bits[x] ∩ set|
inline void overlap(const context& on, vector_view<std::int32_t, device_space> scores,
                    matrix_view<const std::uint64_t, device_space> bits,
                    vector_view<const std::uint64_t, device_space> set) {
  assert(scores.size == bits.rows && set.size <= bits.cols);
  select::device::overlap(on.stream, bits.data, bits.rows, bits.stride, set.data, set.size, scores.data);
}

}  // namespace detail
}  // namespace corematching::cuda
