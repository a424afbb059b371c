// SPDX-License-Identifier: Apache-2.0
// The CPU backend: host memory, a thread pool, and kernels for products with few tokens and with many.
// Shapes and formulas of the operations stand beside their names in corematching/backend/backend.hpp.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cpu/decode/attention.hpp"
#include "corematching/backend/cpu/decode/each_token.hpp"
#include "corematching/backend/cpu/decode/row_products.hpp"
#include "corematching/backend/cpu/decode/shared_rows.hpp"
#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "corematching/backend/cpu/pointwise.hpp"
#include "corematching/backend/cpu/prefill/attention.hpp"
#include "corematching/backend/cpu/prefill/products.hpp"
#include "corematching/backend/cpu/selection.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/backend/cpu/weight_conversion.hpp"
#include "corematching/backend/host_buffer.hpp"
#include "corematching/core/executor.hpp"
#include "corematching/core/instruction_set.hpp"
#include "corematching/select/core_neurons.hpp"
#include "corematching/select/core_tokens.hpp"
#include "corematching/select/neuron_set.hpp"
#include "corematching/select/top_k.hpp"

#if defined(__x86_64__) && !COREMATCHING_HAS_AVX2 && !defined(COREMATCHING_NO_SIMD)
#pragma message(                                                                                                 \
    "CoreMatching: these flags leave the CPU backend without vector kernels, many times slower than with them. " \
    "Compile with -march=native or -march=x86-64-v3, or link corematching::cpu_linked, which chooses when the "  \
    "program runs. COREMATCHING_NO_SIMD says that it is meant so.")
#endif

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

class backend {
 public:
  using space = host_space;
  template <class T>
  using buffer = host_buffer<T>;
  using out = matrix_view<float>;
  using in = matrix_view<const float>;
  using vec = vector_view<const float>;
  using neurons = neuron_selection<space>;

  /// The instruction set whose kernels these are.
  static constexpr instruction_set compiled_for = instruction_set::COREMATCHING_CPU_ISA;

  /// `threads`: how many threads work on each operation, the caller's included; 0 takes the system's count.
  /// Results are the same in every run with the same number of threads and buffers aligned alike, to 64 bytes
  /// or not. A forked process has none of the threads: it needs a backend of its own.
  /// Throws `error` where this CPU lacks the instruction set.
  explicit backend(int threads = 0)
      : pool_((require_instruction_set(compiled_for), threads)),
        scratch_(per_thread()),
        prefill_(pool_.size()) {}
  /// On threads of the caller's; as above, with as many of them.
  explicit backend(const executor& threads)
      : pool_((require_instruction_set(compiled_for), threads)),
        scratch_(per_thread()),
        prefill_(pool_.size()) {}

  int threads() const { return pool_.size(); }
  const work_counters& counters() const { return counters_; }

  template <class T>
  buffer<T> allocate(index size) {
    return buffer<T>(size);
  }
  /// Weights stay where they are, in a file mapping as well as on the heap.
  weight<space> place_weight(weight<host_space> host) { return host; }
  buffer<float> place_vector(vector_view<const float> host) {
    buffer<float> placed(host.size);
    upload(placed.view(), host);
    return placed;
  }
  std::shared_ptr<std::byte> weight_memory(std::size_t bytes) { return cpu::weight_memory(bytes); }
  weight<space> convert_weight(stored_view<> source, dtype target, bool transposed) {
    return detail::convert_weight(pool_, scratch_, source, target, transposed);
  }
  template <class T>
  void upload(vector_view<T> to, std::type_identity_t<vector_view<const T>> from) {
    assert(to.size == from.size);
    if (from.size > 0) std::memcpy(to.data, from.data, static_cast<std::size_t>(from.size) * sizeof(T));
  }
  template <class T>
  void download(vector_view<T> to, std::type_identity_t<vector_view<const T>> from) {
    upload(to, from);
  }

  maximum argmax(vec values) { return corematching::argmax(values); }

  void embed(out y, stored_view<> table, index_view<> ids) {
    assert(y.rows == ids.size && y.cols == table.cols);
    visit_dtype(table.type, [&]<class T>() {
      for (index i = 0; i < ids.size; ++i) widen_row<T>(table, ids[i], 0, table.cols, y.row(i).data);
    });
  }

  void rms_norm(out y, in x, vec weight, float eps) {
    for_rows(x, [&](index i) { detail::rms_norm_row(y.row(i), x.row(i), weight, eps); });
  }

  void layer_norm(out y, in x, vec weight, vec bias, float eps) {
    for_rows(x, [&](index i) { detail::layer_norm_row(y.row(i), x.row(i), weight, bias, eps); });
  }

  void matmul(out y, in x, stored_view<> w, vec bias = {}) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    counters_.count_product(x.rows, w.rows, w);
    const index grain = column_grain(x.rows * w.cols);
    if (x.rows > detail::largest_decode_batch) return prefill_.matmul(pool_, grain, y, x, w, bias);
    visit_weights(w.type, [&]<class T>() {
      const auto tokens = decode_batch_.take<T>(x);
      pool_.for_ranges(w.rows, grain, [&](int, index first, index last) {
        detail::multiply_rows<T>(y, tokens, w, {}, bias, first, last);
      });
    });
  }

  void gated_up(out y, in x, stored_view<> gate, stored_view<> up, activation act, neurons selection = {}) {
    const index columns = detail::count_of(selection, gate.rows);
    assert(y.cols == columns && x.cols == gate.cols && gate.type == up.type);
    counters_.count_product(x.rows, columns, gate);
    counters_.count_product(x.rows, columns, up);
    const index grain = column_grain(2 * x.rows * gate.cols);
    if (x.rows > detail::largest_decode_batch)
      return prefill_.gated_up(pool_, grain, y, x, gate, up, act, selection);
    visit_weights(gate.type, [&]<class T>() {
      const auto tokens = decode_batch_.take<T>(x);
      pool_.for_ranges(columns, grain, [&](int, index first, index last) {
        detail::gated_rows<T>(y, tokens, 0, gate, up, act, selection, first, last);
      });
    });
  }

  void gated_up_each(out y, in x, stored_view<> gate, stored_view<> up, activation act,
                     std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && x.cols == gate.cols && gate.type == up.type);
    detail::count_each(counters_, united_, of_rows, gate, 2, [&](index rows, const neurons&) {
      counters_.count_product(1, rows, gate);
      counters_.count_product(1, rows, up);
    });
    wanted_.assign(of_rows, gate.rows);
    visit_weights(gate.type, [&]<class T>() {
      const auto tokens = decode_batch_.take<T>(x);
      if (wanted_.are_shared())
        return pool_.for_ranges(
            wanted_.rows().size, column_grain(2 * gate.cols), [&](int, index first, index last) {
              detail::gated_wanted_rows<T>(y, tokens, gate, up, act, wanted_, first, last);
            });
      walk_each(of_rows, gate, 2, [&](index t, const neurons& own, index first, index last, auto step) {
        detail::gated_rows<T>(y.middle_rows(t, 1), tokens, t, gate, up, act, own, first, last, step);
      });
    });
  }

  void weighted_rows(out y, in x, stored_view<> w, neurons selection = {}) {
    assert(x.cols == detail::count_of(selection, w.rows) && y.cols == w.cols && y.rows == x.rows);
    counters_.count_row_sum(x.rows, w, selection);
    if (x.rows > detail::largest_decode_batch)
      return prefill_.weighted_rows(pool_, column_grain(x.rows * x.cols), y, x, w, selection);
    visit_weights(w.type, [&]<class T>() {
      row_sums_.sum<T>(pool_, scratch_, column_grain(w.cols), y, x, w, selection);
    });
  }

  void add_weighted_rows_each(out y, in x, stored_view<> w, std::span<const neurons> of_rows, out room) {
    assert(std::ssize(of_rows) == x.rows && y.cols == w.cols && y.rows == x.rows && room.rows >= x.rows);
    detail::count_each(counters_, united_, of_rows, w, 1,
                       [&](index, const neurons& read) { counters_.count_row_sum(1, w, read); });
    visit_weights(w.type, [&]<class T>() {
      row_sums_.sum_each<T>(pool_, scratch_, column_grain(w.cols), room, x, w, of_rows);
    });
    add(y, room);
  }

  void rotary(out x, index_view<> positions, vec frequencies, [[maybe_unused]] index heads) {
    const index half = frequencies.size;
    assert(x.rows == positions.size && x.cols == 2 * half * heads);
    pool_.for_ranges(x.rows, grain_of(pointwise_grain, 16 * x.cols, 1),
                     [&](int thread, index first, index last) {
                       detail::rotate_rows(x, positions, frequencies, first, last,
                                           scratch_[index_of(thread)].at_least(2 * half));
                     });
  }

  void attention(out y, in q, stored_view<> k, stored_view<> v, attention_shape shape) {
    assert(k.rows == v.rows && k.type == v.type && (!shape.causal || k.rows >= q.rows));
    counters_.count_attention(shape, q.rows, k);
    if (q.rows <= detail::largest_attention_batch) return attend_few(y, q, k, v, shape);
    detail::attend_many(pool_, scratch_, y, q, k, v, shape);
  }

  /// The weights that one query row gives to every key, [heads, keys]; not counted as work of the model.
  void attention_probabilities(out probabilities, in q, stored_view<> k, attention_shape shape) {
    assert(q.rows == 1 && probabilities.rows == shape.heads && probabilities.cols == k.rows);
    visit_elements(k.type, [&]<class T>() {
      pool_.for_ranges(shape.kv_heads, 1, [&](int, index first, index last) {
        detail::attend_keys<T>(probabilities.row(first * (shape.heads / shape.kv_heads)).data,
                               probabilities.stride, q.data, {k, shape, first, last, k.rows});
      });
    });
  }

  void activate(out x, activation act) {
    for_rows(x, [&](index i) { detail::activate_row(act, x.row(i)); });
  }

  void add(out y, in x) {
    for_rows(x, [&](index i) { detail::add_rows(y.row(i), y.row(i).data, x.row(i).data); });
  }

  void copy(out y, in x) {
    assert(y.rows == x.rows && y.cols == x.cols);
    for (index i = 0; i < x.rows; ++i) std::copy_n(x.row(i).data, x.cols, y.row(i).data);
  }

  void gather_rows(out y, in x, index_view<> rows) {
    assert(y.rows == rows.size && y.cols == x.cols);
    // Ascending rows never overtake the place they are written to, so y may be x.
    for (index i = 0; i < rows.size; ++i)
      if (y.row(i).data != x.row(rows[i]).data) std::copy_n(x.row(rows[i]).data, x.cols, y.row(i).data);
  }

  void gather_rows(mutable_stored_view<> y, stored_view<> x, index_view<> rows) {
    assert(y.rows == rows.size && y.cols == x.cols && y.type == x.type);
    const auto bytes = static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols));
    for (index i = 0; i < rows.size; ++i)
      std::memmove(y.data + i * y.row_bytes, x.data + rows[i] * x.row_bytes, bytes);
  }

  void store_rows(mutable_stored_view<> y, in x) {
    assert(y.rows == x.rows && y.cols == x.cols);
    visit_elements(y.type, [&]<class T>() {
      for_rows(x, [&](index i) {
        detail::narrow(x.row(i).data, x.cols, reinterpret_cast<T*>(y.data + i * y.row_bytes));
      });
    });
  }

  void load_rows(out y, stored_view<> x) {
    assert(y.rows == x.rows && y.cols == x.cols);
    visit_dtype(x.type, [&]<class T>() {
      for_rows(y, [&](index i) { widen_row<T>(x, i, 0, x.cols, y.row(i).data); });
    });
  }

  void copy_rows(mutable_stored_view<> y, stored_view<> x) {
    assert(y.rows == x.rows && y.cols == x.cols && y.type == x.type);
    const auto bytes = static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols));
    for (index i = 0; i < x.rows; ++i) std::memcpy(y.data + i * y.row_bytes, x.data + i * x.row_bytes, bytes);
  }

  void zero_rows(mutable_stored_view<> x, index_view<> rows) {
    const auto bytes = static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols));
    for (const std::int32_t row : rows) std::memset(x.data + row * x.row_bytes, 0, bytes);
  }

  void activated_neurons(matrix_view<std::uint64_t> bits, vector_view<std::int32_t> counts, in x) {
    pool_.for_ranges(x.rows, 1, [&](int, index first, index last) {
      detail::mark_activated(bits, counts, x, first, last);
    });
  }

  void count_core_neurons(vector_view<std::int32_t> frequency, in x, vector_view<const std::int32_t> counts,
                          double rho, core_count rule, std::optional<index_view<>> rows = {}) {
    detail::count_core(pool_, tallies_, frequency, x, counts, rho, rule, rows);
  }

  select::neuron_set core_neurons(vector_view<const std::int32_t> frequency, double beta) {
    return select::neuron_set(select::core_neurons(frequency, beta), frequency.size);
  }

  void overlap(vector_view<std::int32_t> scores, matrix_view<const std::uint64_t> bits,
               vector_view<const std::uint64_t> set) {
    select::overlap(bits.data, bits.rows, bits.stride, set.data, set.size, scores.data);
  }

  void multiply(out y, in x) {
    for_rows(x, [&](index i) { detail::multiply_rows(y.row(i), y.row(i).data, x.row(i).data); });
  }

  // Every sum is formed by one thread, row after row.
  void add_magnitudes(vector_view<float> sums, in x, std::optional<index_view<>> rows = {}) {
    assert(sums.size == x.cols);
    const index counted = rows ? rows->size : x.rows;
    pool_.for_ranges(x.cols, grain_of(pointwise_grain, counted, lines_apart),
                     [&](int, index first, index last) {
                       for (index i = 0; i < counted; ++i)
                         detail::add_magnitudes({sums.data + first, last - first},
                                                x.row(rows ? index{(*rows)[i]} : i).data + first);
                     });
  }

  void top_k(vector_view<std::int32_t> places, vec x, vec weights = {}) {
    select::top_k(places, x, weights, top_k_scratch_);
  }

  void zero_others(vector_view<float> x, index_view<> chosen) { select::zero_others(x, chosen); }
  void scaled_matmul(out y, in x, stored_view<> w, vec factors, index_view<> chosen) {
    assert(x.rows == 1 && x.cols == w.cols && y.cols == chosen.size && factors.size == w.rows);
    counters_.count_product(1, chosen.size, w);
    visit_weights(w.type, [&]<class T>() {
      const auto tokens = decode_batch_.take<T>(x);
      pool_.for_ranges(chosen.size, column_grain(w.cols), [&](int, index first, index last) {
        detail::scaled_rows<T>(y.row(0).data, tokens, 0, w, factors.data, chosen, first, last);
      });
    });
  }

  void coarse_matmul(out y, in x, stored_view<> w) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    visit_planes(w.type, [&]<class T>() {
      counters_.count_coarse_product(x.rows, w);
      const auto tokens = decode_batch_.take<T>(x);
      pool_.for_ranges(w.rows, column_grain(x.rows * w.cols), [&](int, index first, index last) {
        detail::multiply_upper_rows<T>(y, tokens, w, first, last);
      });
    });
  }

  void finish_gated_up(out y, in x, stored_view<> gate, stored_view<> up, vec coarse_gate, vec coarse_up,
                       activation act, index_view<> chosen) {
    assert(x.rows == 1 && y.cols == chosen.size && gate.type == up.type);
    visit_planes(gate.type, [&]<class T>() {
      counters_.count_finished_product(chosen.size, gate);
      counters_.count_finished_product(chosen.size, up);
      const auto tokens = decode_batch_.take<T>(x);
      pool_.for_ranges(chosen.size, column_grain(2 * gate.cols), [&](int, index first, index last) {
        if constexpr (T::planes_add_up)
          detail::finish_gated_rows<T>(y.data, tokens, 0, gate, up, coarse_gate.data, coarse_up.data, act,
                                       chosen, first, last);
        else
          detail::gated_rows<T>(y, tokens, 0, gate, up, act, chosen, first, last);
      });
    });
  }

  void scaled_matmul_each(out y, in x, stored_view<> w, in factors, std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && x.cols == w.cols && factors.cols == w.rows);
    detail::count_each(counters_, united_, of_rows, w, 1,
                       [&](index rows, const neurons&) { counters_.count_product(1, rows, w); });
    wanted_.assign(of_rows, w.rows);
    visit_weights(w.type, [&]<class T>() {
      const auto tokens = decode_batch_.take<T>(x);
      if (wanted_.are_shared())
        return pool_.for_ranges(wanted_.rows().size, column_grain(w.cols), [&](int, index first, index last) {
          detail::scaled_wanted_rows<T>(y, tokens, w, factors, wanted_, first, last);
        });
      walk_each(of_rows, w, 1, [&](index t, const neurons& own, index first, index last, auto step) {
        detail::scaled_rows<T>(y.row(t).data, tokens, t, w, factors.row(t).data, *own, first, last, step);
      });
    });
  }

  void finish_gated_up_each(out y, in x, stored_view<> gate, stored_view<> up, in coarse_gates, in coarse_ups,
                            activation act, std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && gate.type == up.type);
    visit_planes(gate.type, [&]<class T>() {
      detail::count_each(counters_, united_, of_rows, gate, 2, [&](index rows, const neurons&) {
        counters_.count_finished_product(rows, gate);
        counters_.count_finished_product(rows, up);
      });
      const auto tokens = decode_batch_.take<T>(x);
      walk_each(of_rows, gate, 2, [&](index t, const neurons& own, index first, index last, auto step) {
        if constexpr (T::planes_add_up)
          detail::finish_gated_rows<T>(y.row(t).data, tokens, t, gate, up, coarse_gates.row(t).data,
                                       coarse_ups.row(t).data, act, *own, first, last, step);
        else
          detail::gated_rows<T>(y.middle_rows(t, 1), tokens, t, gate, up, act, own, first, last, step);
      });
    });
  }

 private:
  static std::size_t index_of(index i) { return static_cast<std::size_t>(i); }
  std::vector<growing_buffer<>> per_thread() const {
    return std::vector<growing_buffer<>>(index_of(pool_.size()));
  }

  // A range of work below these costs less than waking another thread for it: some microseconds.
  static constexpr index pointwise_grain = 16384;  // elements
  static constexpr index lines_apart = 16;         // of them, that two threads do not write to one cache line
  static constexpr index product_grain = 65536;    // multiply-adds

  /// Units of `cost` each that make up a range worth a thread, as a multiple of `unit`.
  static index grain_of(index worth, index cost, index unit) {
    return std::max<index>(1, worth / std::max<index>(1, cost * unit)) * unit;
  }

  template <class Body>
  void for_rows(in x, Body&& body) {
    pool_.for_ranges(x.rows, grain_of(pointwise_grain, x.cols, 1), [&](int, index first, index last) {
      for (index i = first; i < last; ++i) body(i);
    });
  }

  /// Of the columns of a product that take `cost` multiply-adds each.
  static index column_grain(index cost) { return grain_of(product_grain, cost, detail::column_grain); }

  void attend_few(out y, in q, const stored_view<>& k, const stored_view<>& v, const attention_shape& shape) {
    const index cost = 2 * q.rows * k.rows * shape.query_size() / shape.kv_heads;
    visit_elements(k.type, [&]<class T>() {
      pool_.for_ranges(shape.kv_heads, grain_of(product_grain, cost, 1),
                       [&](int thread, index first, index last) {
                         detail::attend_rows<T>(y, q, k, v, shape, first, last, scratch_[index_of(thread)]);
                       });
    });
  }

  // Calls body(token, its rows, first, last, step); a place takes `factor` rows of the shape of w's.
  template <class Body>
  void walk_each(std::span<const neurons> of_rows, const stored_view<>& w, index factor, Body&& body) {
    detail::walk_own_rows(pool_, column_grain(factor * w.cols), of_rows, w, factor, body);
  }

  thread_pool pool_;
  std::vector<growing_buffer<>> scratch_;  // one per thread
  detail::prefill_products prefill_;
  std::vector<detail::core_tally> tallies_;  // one per thread
  detail::decode_batch decode_batch_;
  select::top_k_scratch top_k_scratch_;
  detail::row_sums row_sums_;
  detail::united_neurons united_;
  detail::wanted_rows wanted_;
  work_counters counters_;
};

static_assert(selecting_backend<backend> && choosing_backend<backend> && batching_backend<backend>);

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu
