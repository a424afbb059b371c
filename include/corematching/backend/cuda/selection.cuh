// SPDX-License-Identifier: Apache-2.0
// The selectors of select/ on a backend's stream. None of them waits for the device: what the host must know
// of a set of core neurons, its size and whether an activation was NaN or infinite, is copied behind them and
// read when the host first asks for the set; without a set, the next call that waits looks for itself.
#pragma once

#include <cuda_runtime.h>

#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

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

namespace detail {

/// What the kernels write down for the host, and for each other.
struct selection_notes {
  unsigned long long first_not_finite = select::device::activation_place::none;
  std::int32_t set_size = 0;
  std::int32_t shared_core_size = 0;
};

/// Throws where an activation was NaN or infinite.
inline void require_finite(const selection_notes& notes) {
  const select::device::activation_place place{notes.first_not_finite};
  if (place.found())
    fail("activation of token ", place.token(), ", neuron ", place.neuron(), " is ",
         place.is_nan() ? "NaN" : "infinite");
}

/// Page-locked places for notes on their way to the host, used again when their owner is gone: whatever is
/// still under way to a place arrives before what its next owner waits for.
class notes_on_host {
 public:
  std::shared_ptr<const selection_notes> place() {
    if (all_->unused.empty()) add_block();
    selection_notes* const taken = all_->unused.back();
    all_->unused.pop_back();
    return {taken, [all = all_](selection_notes* place) { all->unused.push_back(place); }};
  }

 private:
  struct places {
    std::vector<std::shared_ptr<std::byte>> blocks;
    std::vector<selection_notes*> unused;
  };
  static constexpr std::size_t places_of_block = 128;

  void add_block() {
    auto& [blocks, unused] = *all_;
    blocks.push_back(page_locked(places_of_block * sizeof(selection_notes)));
    unused.reserve(blocks.size() * places_of_block);  // giving one back takes no memory
    for (std::size_t i = 0; i < places_of_block; ++i)
      unused.push_back(new (blocks.back().get() + i * sizeof(selection_notes)) selection_notes);
  }

  std::shared_ptr<places> all_ = std::make_shared<places>();
};

}  // namespace detail

/// A set of neurons in device memory, as ascending numbers and as bits. Its size is on its way to the host.
class neuron_set {
 public:
  neuron_set() = default;
  /// As many of `indices` as `notes` say, once `stream` has done what is queued now.
  neuron_set(cudaStream_t stream, buffer<std::int32_t> indices, buffer<std::uint64_t> bits,
             std::shared_ptr<const detail::selection_notes> notes)
      : stream_(stream), indices_(std::move(indices)), bits_(std::move(bits)), notes_(std::move(notes)) {}

  /// Waits for the stream, the first time. Throws where one of the activations that were observed for this
  /// set, after the one before it, was NaN or infinite.
  index_view<device_space> indices() const {
    if (notes_) {
      COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(stream_));
      detail::require_finite(*notes_);
      size_ = notes_->set_size;
      notes_ = nullptr;
    }
    return {indices_.data(), size_};
  }
  vector_view<const std::uint64_t, device_space> bits() const { return bits_.view(); }

 private:
  cudaStream_t stream_ = nullptr;
  buffer<std::int32_t> indices_;
  buffer<std::uint64_t> bits_;
  mutable std::shared_ptr<const detail::selection_notes> notes_;  // until they were read
  mutable index size_ = 0;
};

namespace detail {

/// A backend's notes in device memory, none until they are needed, and places for copies of them.
struct selection_state {
  buffer<selection_notes> notes;
  bool observed = false;  // since first_not_finite was last looked at or copied
  notes_on_host copies;
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

/// Throws where activated_neurons met an activation that is NaN or infinite, after waiting for the stream.
/// Does nothing where it was not called since the last check, or the last set that was chosen.
inline void check_finite(const context& on, selection_state& state) {
  if (!state.observed) return;
  selection_notes read;
  COREMATCHING_CUDA_CHECK(
      cudaMemcpyAsync(&read, notes_of(on, state), sizeof(read), cudaMemcpyDeviceToHost, on.stream));
  COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(on.stream));
  forget_notes(on, state);
  require_finite(read);
}

/// Γ(x) of each row of x [T, N]: bits [T, words], counts [T]. NaN and infinity are reported by the next call
/// of check_finite, or by the set that is chosen before.
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

/// C_ρ^β of the sentence whose frequencies these are. Throws where beta lies outside (0, 1].
inline neuron_set core_neurons(const context& on, selection_state& state,
                               vector_view<const std::int32_t, device_space> frequency, double beta) {
  select::detail::require_fraction(beta, "beta");
  require(frequency.size <= std::numeric_limits<std::int32_t>::max(), "too many neurons: ", frequency.size);
  const auto wanted = static_cast<index>(std::floor(beta * static_cast<double>(frequency.size)));
  buffer<std::int32_t> indices(on.stream, wanted);
  buffer<std::uint64_t> bits(on.stream, select::words_for(frequency.size));
  selection_notes* const notes = notes_of(on, state);
  select::device::core_neurons(on.stream, frequency.data, frequency.size, wanted, indices.data(), bits.data(),
                               &notes->set_size);
  auto copy = state.copies.place();
  COREMATCHING_CUDA_CHECK(cudaMemcpyAsync(const_cast<selection_notes*>(copy.get()), notes, sizeof(*notes),
                                          cudaMemcpyDeviceToHost, on.stream));
  if (state.observed) forget_notes(on, state);
  return {on.stream, std::move(indices), std::move(bits), std::move(copy)};
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
