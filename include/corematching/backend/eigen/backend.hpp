// SPDX-License-Identifier: Apache-2.0
// A backend on Eigen alone: the whole concept in its shortest form, to read, to begin another one from and to
// hold others against. It knows no instruction set; what it computes is exact where the concept says how
// numbers are rounded, and everything else is formed in binary32.
//
// Shapes and formulas of the operations stand beside their names in corematching/backend/backend.hpp.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/default_threads.hpp"
#include "corematching/backend/eigen/layer.hpp"
#include "corematching/backend/eigen/products.hpp"
#include "corematching/backend/eigen/views.hpp"
#include "corematching/backend/host_buffer.hpp"
#include "corematching/backend/weight_limits.hpp"
#include "corematching/core/argmax.hpp"
#include "corematching/core/config.hpp"
#include "corematching/core/core_count.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"
#include "corematching/select/core_neurons.hpp"
#include "corematching/select/core_tokens.hpp"
#include "corematching/select/neuron_set.hpp"
#include "corematching/select/top_k.hpp"

namespace corematching::eigen {
inline namespace COREMATCHING_CPU_ISA {

class backend {
 public:
  using space = host_space;
  template <class T>
  using buffer = host_buffer<T>;
  using out = matrix_view<float>;
  using in = matrix_view<const float>;
  using vec = vector_view<const float>;
  using ids = index_view<>;
  using stored = stored_view<>;
  using cached = mutable_stored_view<>;
  using neurons = neuron_selection<space>;

  static constexpr const char* name = "Eigen";

  /// `threads`: of Eigen's products, where it is compiled with OpenMP; otherwise there is one. 0 takes as
  /// many as may run at once (default_threads.hpp) and OpenMP gives; more never are, since they wait for each
  /// other without sleeping. Eigen has one number for the whole program: the one that was asked for last.
  explicit backend(int threads = 0) {
    require(threads >= 0 && threads <= 1024, "threads must lie in 0..1024, not ", threads);
    Eigen::setNbThreads(0);
    const int most = std::min(Eigen::nbThreads(), cpu::default_threads());
    Eigen::setNbThreads(threads > 0 ? std::min(threads, most) : most);
  }

  int threads() const { return Eigen::nbThreads(); }
  const work_counters& counters() const { return counters_; }

  // Memory: the host's own, so weights stay where they are and copies are copies.

  template <class T>
  buffer<T> allocate(index size) {
    return buffer<T>(size);
  }
  std::shared_ptr<std::byte> weight_memory(std::size_t bytes) {
    const auto memory = std::make_shared<buffer<std::byte>>(static_cast<index>(bytes));
    return {memory, memory->data()};
  }
  weight<space> place_weight(weight<host_space> host) { return host; }
  buffer<float> place_vector(vec host) {
    buffer<float> placed(host.size);
    upload(placed.view(), host);
    return placed;
  }
  template <class T>
  void upload(vector_view<T> to, std::type_identity_t<vector_view<const T>> from) {
    assert(to.size == from.size);
    std::copy_n(from.data, from.size, to.data);
  }
  template <class T>
  void download(vector_view<T> to, std::type_identity_t<vector_view<const T>> from) {
    upload(to, from);
  }
  weight<space> convert_weight(stored source, dtype target, bool transposed) {
    check_row_length(source.cols, source.type);
    detail::matrix values = detail::widened(source, 0, source.rows);
    if (transposed) values = values.transpose().eval();
    const index rows = values.rows(), cols = values.cols();
    visit_rounded(target, []<class T>() {});
    check_row_length(cols, target);
    const auto row_bytes = static_cast<index>(bytes_of(target, static_cast<std::size_t>(cols)));
    const auto memory = weight_memory(static_cast<std::size_t>(rows * row_bytes));
    for (index i = 0; i < rows; ++i) {
      const vec row{values.row(i).data(), cols};
      check_weights(row, target);
      detail::store_row(row, target, memory.get(), rows, i);
    }
    return {{memory.get(), target, rows, cols, row_bytes}, memory};
  }

  // Products

  void matmul(out y, in x, stored w, vec bias = {}) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    require_weight_type(w.type);
    counters_.count_product(x.rows, w.rows, w);
    detail::multiply(y, x, w, {});
    if (!bias.empty()) detail::mapped(y).rowwise() += detail::mapped(bias);
  }
  void gated_up(out y, in x, stored gate, stored up, activation act, neurons selection = {}) {
    assert(x.cols == gate.cols && gate.type == up.type);
    require_weight_type(gate.type);
    counters_.count_product(x.rows, y.cols, gate);
    counters_.count_product(x.rows, y.cols, up);
    detail::matrix ups(y.rows, y.cols);
    detail::multiply({ups.data(), y.rows, y.cols, y.cols}, x, up, selection);
    detail::multiply(y, x, gate, selection);
    detail::activate(y, act);
    detail::mapped(y).array() *= ups.array();
  }
  void weighted_rows(out y, in x, stored w, neurons selection = {}) {
    assert(y.cols == w.cols && y.rows == x.rows);
    require_weight_type(w.type);
    counters_.count_row_sum(x.rows, w, selection);
    detail::sum_rows(y, x, w, selection);
  }

  // The rest of a layer

  void embed(out y, stored table, ids which) {
    assert(y.rows == which.size && y.cols == table.cols);
    for (index i = 0; i < which.size; ++i) detail::widen_row(table, which[i], y.row(i).data);
  }
  void rms_norm(out y, in x, vec weight, float eps) { detail::rms_norm(y, x, weight, eps); }
  void layer_norm(out y, in x, vec weight, vec bias, float eps) {
    detail::layer_norm(y, x, weight, bias, eps);
  }
  void rotary(out x, ids positions, vec frequencies, [[maybe_unused]] index heads) {
    assert(x.rows == positions.size && x.cols == 2 * frequencies.size * heads);
    detail::rotate(x, positions, frequencies);
  }
  void attention(out y, in q, stored k, stored v, attention_shape shape) {
    assert(k.rows == v.rows && k.type == v.type && (!shape.causal || k.rows >= q.rows));
    counters_.count_attention(shape, q.rows, k);
    detail::attend(y, q, detail::widened(k, 0, k.rows), detail::widened(v, 0, v.rows), shape);
  }
  void activate(out x, activation act) { detail::activate(x, act); }
  void add(out y, in x) { detail::mapped(y) += detail::mapped(x); }
  void copy(out y, in x) { detail::mapped(y) = detail::mapped(x); }
  void gather_rows(out y, in x, ids rows) { gather_rows(cached(y), x, rows); }
  maximum argmax(vec values) { return corematching::argmax(values); }

  // Rows of a cache

  void store_rows(cached y, in x) {
    assert(y.rows == x.rows && y.cols == x.cols);
    for (index i = 0; i < x.rows; ++i) detail::store_row(x.row(i), y.type, y.data + i * y.row_bytes, 1, 0);
  }
  void load_rows(out y, stored x) {
    assert(y.rows == x.rows && y.cols == x.cols);
    for (index i = 0; i < x.rows; ++i) detail::widen_row(x, i, y.row(i).data);
  }
  void copy_rows(cached y, stored x) {
    assert(y.rows == x.rows && y.cols == x.cols && y.type == x.type);
    for (index i = 0; i < x.rows; ++i) detail::copy_row(y, i, x, i);
  }
  void gather_rows(cached y, stored x, ids rows) {
    assert(y.rows == rows.size && y.cols == x.cols && y.type == x.type);
    for (index i = 0; i < rows.size; ++i) detail::copy_row(y, i, x, rows[i]);
  }

  // What core neurons and core tokens are found with

  void activated_neurons(matrix_view<std::uint64_t> bits, vector_view<std::int32_t> counts, in x) {
    select::activated_neurons(x.data, x.rows, x.cols, x.stride, bits.data, bits.stride, counts.data);
  }
  void count_core_neurons(vector_view<std::int32_t> frequency, in x, vector_view<const std::int32_t> counts,
                          double rho, core_count rule, std::optional<ids> rows = {}) {
    const index counted = rows ? rows->size : x.rows;
    const auto row_of = [&](index i) { return rows ? index{(*rows)[i]} : i; };
    std::int64_t total = 0;
    for (index i = 0; i < counted; ++i) total += counts[row_of(i)];
    select::core_scratch scratch;
    for (index i = 0; i < counted; ++i) {
      const index size = rule == core_count::mean_count ? select::mean_core_size(rho, total, counted)
                                                        : select::core_size(rho, counts[row_of(i)]);
      select::count_core_neurons(x.row(row_of(i)).data, x.cols, size, scratch, frequency.data);
    }
  }
  select::neuron_set core_neurons(vector_view<const std::int32_t> frequency, double beta) {
    return select::neuron_set(select::core_neurons(frequency, beta), frequency.size);
  }
  void overlap(vector_view<std::int32_t> scores, matrix_view<const std::uint64_t> bits,
               vector_view<const std::uint64_t> set) {
    select::overlap(bits.data, bits.rows, bits.stride, set.data, set.size, scores.data);
  }

  // What neurons are chosen with for each token

  void multiply(out y, in x) { detail::mapped(y).array() *= detail::mapped(x).array(); }
  void add_magnitudes(vector_view<float> sums, in x, std::optional<ids> rows = {}) {
    for (index i = 0; i < (rows ? rows->size : x.rows); ++i)
      Eigen::Map<detail::row_vector>(sums.data, sums.size) +=
          detail::mapped(x.row(rows ? index{(*rows)[i]} : i)).cwiseAbs();
  }
  void top_k(vector_view<std::int32_t> places, vec x, vec weights = {}) { select::top_k(places, x, weights); }
  void zero_others(vector_view<float> x, ids chosen) { select::zero_others(x, chosen); }
  void scaled_matmul(out y, in x, stored w, vec factors, ids chosen) {
    assert(x.rows == 1 && x.cols == w.cols && y.cols == chosen.size && factors.size == w.rows);
    require_weight_type(w.type);
    counters_.count_product(1, chosen.size, w);
    detail::multiply(y, x, w, chosen);
    for (index i = 0; i < chosen.size; ++i) y.row(0)[i] *= factors[chosen[i]];
  }

  void coarse_matmul(out y, in x, stored w) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    detail::matrix coarse(w.rows, w.cols);
    visit_planes(w.type, [&]<class T>() {
      for (index i = 0; i < w.rows; ++i) dequantise_upper(blocks_of_row<T>(w, i), coarse.row(i).data());
    });
    counters_.count_coarse_product(x.rows, w);
    detail::mapped(y).noalias() = detail::mapped(x) * coarse.transpose();
  }
  void finish_gated_up(out y, in x, stored gate, stored up, vec /*coarse_gate*/, vec /*coarse_up*/,
                       activation act, ids chosen) {
    const work_counters before = counters_;
    gated_up(y, x, gate, up, act, chosen);
    counters_ = before;
    counters_.count_finished_product(chosen.size, gate);
    counters_.count_finished_product(chosen.size, up);
  }

  // What other rules than the paper's need

  /// The weights that one query row gives to every key, [heads, keys]; not counted as work of the model.
  void attention_probabilities(out probabilities, in q, stored k, attention_shape shape) {
    assert(q.rows == 1 && probabilities.rows == shape.heads && probabilities.cols == k.rows);
    detail::weigh_keys(probabilities, q, detail::widened(k, 0, k.rows), shape);
  }
  void zero_rows(cached x, ids rows) {
    const auto bytes = static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols));
    for (const std::int32_t row : rows) std::memset(x.data + row * x.row_bytes, 0, bytes);
  }

 private:
  work_counters counters_;
};

static_assert(selecting_backend<backend> && choosing_backend<backend>);

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::eigen
