// SPDX-License-Identifier: Apache-2.0
// What stands between a program and a backend that was compiled elsewhere, with other flags or by another
// compiler driver: a table of operations, one function for each operation of the concept `backend`. An
// operation is coarse, so one indirect call for each costs nothing that can be measured.
//
// Program and backend share no symbols, so no exception crosses: a function says in `failure` what went
// wrong, and linked_backend throws it. What does cross are views, numbers, and the standard library's string
// and shared_ptr; so both sides are compiled against the same standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/executor.hpp"

namespace corematching::linked {

/// How a call ended.
struct failure {
  enum class kind : std::uint8_t { none, refused, out_of_memory, other };
  kind what = kind::none;
  std::string text;

  /// Throws what the other side threw: `error`, std::bad_alloc, or std::runtime_error for whatever else.
  void raise() const {
    switch (what) {
      case kind::none: return;
      case kind::refused: throw error(text);
      case kind::out_of_memory: throw std::bad_alloc();
      case kind::other: throw std::runtime_error(text);
    }
  }
};

/// What a backend computes with.
struct description {
  std::string device;           // "CPU", "Eigen" on one, or the name of the device
  std::string instruction_set;  // of a CPU, as config.hpp names it; otherwise empty
  int threads = 0;              // of a CPU
};

/// Memory of a backend, or an object of its: `owner` goes to the table's function that gives it back. Null
/// where there is nothing.
struct owned {
  std::byte* data = nullptr;
  void* owner = nullptr;
};

/// Operations to be captured; false where one of them threw, which ends the capture.
struct captured_operations {
  bool (*run)(void* context) = nullptr;
  void* context = nullptr;
};

namespace detail {

template <class Signature>
struct entry_of;
template <class Result, class... Arguments>
struct entry_of<Result(Arguments...)> {
  using type = Result (*)(void* self, failure&, Arguments...);
};

}  // namespace detail

/// A function of the table: what it is given, behind the backend and the place for its failure.
template <class Signature>
using entry = typename detail::entry_of<Signature>::type;

/// The table of a backend in `Space`. Formulas and shapes of the operations stand beside their names in
/// backend.hpp. Operations that a backend lacks are made of others (fusing_backend,
/// batching_backend), run at once (graph_backend) or are refused when called (selecting_backend,
/// choosing_backend).
template <class Space>
struct operations {
  using out = matrix_view<float, Space>;
  using in = matrix_view<const float, Space>;
  using vec = vector_view<const float, Space>;
  using sums = vector_view<float, Space>;
  using ids = index_view<Space>;
  using stored = stored_view<Space>;
  using cached = mutable_stored_view<Space>;
  using neurons = const neuron_selection<Space>&;
  using shape = const attention_shape&;
  using words = matrix_view<std::uint64_t, Space>;
  using const_words = matrix_view<const std::uint64_t, Space>;
  using word_set = vector_view<const std::uint64_t, Space>;
  using counts = vector_view<std::int32_t, Space>;
  using const_counts = vector_view<const std::int32_t, Space>;
  using host_weight = const weight<host_space>&;
  using neurons_of_rows = std::span<const neuron_selection<Space>>;
  using projections = std::span<const projection<Space>>;
  using some_rows = const std::optional<ids>&;

  void (*destroy)(void* backend);
  entry<description()> describe;
  entry<work_counters()> counters;

  entry<owned(index bytes)> allocate;
  void (*release)(void* owner);
  entry<owned(vector_view<const float> values)> place_vector;
  void (*release_vector)(void* owner);
  entry<std::shared_ptr<std::byte>(std::size_t bytes)> weight_memory;
  entry<weight<Space>(host_weight)> place_weight;
  entry<weight<Space>(const stored_view<>&, dtype target, bool transposed)> convert_weight;
  entry<void(std::byte* to, const std::byte* from, index bytes)> upload;
  entry<void(std::byte* to, const std::byte* from, index bytes)> download;
  entry<maximum(vec)> argmax;

  entry<void(out, stored, ids)> embed;
  entry<void(out, in, vec, float)> rms_norm;
  entry<void(out, in, vec, vec, float)> layer_norm;
  entry<void(out, in, stored, vec)> matmul;
  entry<void(out, in, stored, stored, activation, neurons)> gated_up;
  entry<void(out, in, stored, neurons)> weighted_rows;
  entry<void(out, ids, vec, index)> rotary;
  entry<void(out, in, stored, stored, shape)> attention;
  entry<void(out, in, stored, shape)> attention_probabilities;
  entry<void(out, activation)> activate;
  entry<void(out, in)> add;
  entry<void(out, in)> copy;
  entry<void(out, in, ids)> gather_rows;

  entry<void(cached, in)> store_rows;
  entry<void(out, stored)> load_rows;
  entry<void(cached, stored)> copy_rows;
  entry<void(cached, stored, ids)> gather_cached_rows;
  entry<void(cached, ids)> zero_rows;

  entry<void(words, counts, in)> activated_neurons;
  entry<void(counts, in, const_counts, double, core_count, some_rows)> count_core_neurons;
  entry<std::shared_ptr<const void>(const_counts, double)> core_neurons;
  entry<ids(const void* set)> indices_of_set;
  entry<word_set(const void* set)> bits_of_set;
  entry<void(counts, const_words, word_set)> overlap;

  entry<void(out, in)> multiply;
  entry<void(sums, in, some_rows)> add_magnitudes;
  entry<void(counts, vec, vec)> top_k;
  entry<void(sums, ids)> zero_others;
  entry<void(out, in, stored, vec, ids)> scaled_matmul;
  entry<void(out, in, stored)> coarse_matmul;
  entry<void(out, in, stored, stored, vec, vec, activation, ids)> finish_gated_up;

  entry<void(projections, in)> project;
  entry<void(out, in, stored, vec, out)> add_matmul;
  entry<void(out, in, stored, neurons, out)> add_weighted_rows;
  entry<void(out, out, ids, vec)> rotary_of_two;
  entry<void(cached, cached, in, in)> store_rows_of_two;

  entry<void(out, in, stored, stored, activation, neurons_of_rows)> gated_up_each;
  entry<void(out, in, stored, neurons_of_rows, out)> add_weighted_rows_each;
  entry<void(out, in, stored, in, neurons_of_rows)> scaled_matmul_each;
  entry<void(out, in, stored, stored, in, in, activation, neurons_of_rows)> finish_gated_up_each;

  entry<void*()> make_graph;
  void (*release_graph)(void* graph);
  entry<void(void* graph, ids, std::int32_t, captured_operations)> capture;
  entry<bool(const void* graph, std::int32_t)> launch;
  entry<void(bool)> set_capturing;
  entry<graph_counts()> graphs;
  entry<bool(bool)> set_overlapping;
};

/// A backend that a program can be linked with: how one is made, and its table. `make` takes a number of
/// threads (0: as many as the system grants) or the number of a device; `make_on`, null where a backend has
/// no threads, those of the program.
template <class Space>
struct body {
  const char* name;  // of the instruction set, or of the kind of device
  entry<void*(int)> make;
  const operations<Space>* table;
  entry<void*(const executor&)> make_on = nullptr;
};

}  // namespace corematching::linked
