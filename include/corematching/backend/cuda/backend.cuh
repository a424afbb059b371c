// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: device memory, a stream that computes and one that brings weights, cuBLAS for products
// with many tokens and own kernels for the rest. Activations are binary32; weights f32, f16, f16 in
// two planes or bf16, caches f32, f16 or bf16. Operations are queued and return at once; download() and
// core_neurons() wait for what they read. Shapes and formulas of the operations stand beside their names in
// corematching/backend/backend.hpp.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/cuda/argmax.cuh"
#include "corematching/backend/cuda/attention/attention.cuh"
#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/captured_graph.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/norms.cuh"
#include "corematching/backend/cuda/pointwise.cuh"
#include "corematching/backend/cuda/products/each_token.cuh"
#include "corematching/backend/cuda/products/products.cuh"
#include "corematching/backend/cuda/products/weights.cuh"
#include "corematching/backend/cuda/rotary.cuh"
#include "corematching/backend/cuda/rows.cuh"
#include "corematching/backend/cuda/selection.cuh"
#include "corematching/core/error.hpp"
#include "corematching/select/top_k.cuh"

namespace corematching::cuda {

/// One host thread uses a backend at a time, while one other may place weights. What it allocates must be
/// gone before it is.
class backend {
 public:
  using space = device_space;
  template <class T>
  using buffer = cuda::buffer<T>;
  using out = matrix_view<float, space>;
  using in = matrix_view<const float, space>;
  using vec = vector_view<const float, space>;
  using ids = index_view<space>;
  using stored = stored_view<space>;
  using cached = mutable_stored_view<space>;
  using neurons = neuron_selection<space>;
  using graph = cuda::graph;

  /// Works on `device`, numbered as the system does; throws `error` where it cannot be used.
  explicit backend(int device = 0)
      : properties_(use_device(device)),
        stream_(make_stream()),
        placing_(make_stream()),
        cublas_(make_cublas(stream_.get())) {
    keep_freed_memory(device);
  }

  const device_properties& device() const { return properties_; }
  cudaStream_t stream() const { return stream_.get(); }
  const work_counters& counters() const { return counters_; }
  /// Waits until all that was queued is done.
  void synchronize() { COREMATCHING_CUDA_CHECK(cudaStreamSynchronize(stream_.get())); }

  template <class T>
  buffer<T> allocate(index size) {
    return buffer<T>(on().stream, size);
  }
  /// Page-locked, so that the device reads it as fast as the bus allows.
  std::shared_ptr<std::byte> weight_memory(std::size_t bytes) {
    static_cast<void>(on());
    return detail::page_locked(bytes);
  }
  weight<space> place_weight(const weight<host_space>& host) {
    return detail::placed_weight(placing_.get(), on().stream, host);
  }
  buffer<float> place_vector(vector_view<const float> host) {
    return detail::placed_vector(placing_.get(), on().stream, host);
  }
  weight<space> convert_weight(const stored_view<>& source, dtype target, bool transposed) {
    return detail::converted_weight(on(), source, target, transposed);
  }
  /// `from` may change or go when this returns.
  template <class T>
  void upload(vector_view<T, space> to, std::type_identity_t<vector_view<const T>> from) {
    assert(to.size == from.size);
    if (to.size > 0) uploads_.queue(on().stream, to.data, from.data, bytes_of(from));
  }
  /// Waits for the values; throws `error` if activations observed before were not finite.
  template <class T>
  void download(vector_view<T> to, std::type_identity_t<vector_view<const T, space>> from) {
    assert(to.size == from.size);
    if (to.size > 0)
      COREMATCHING_CUDA_CHECK(
          cudaMemcpyAsync(to.data, from.data, bytes_of(from), cudaMemcpyDeviceToHost, on().stream));
    synchronize();
    detail::check_finite(on(), selection_);
  }

  /// Waits for it, as download() does.
  maximum argmax(vec values) {
    const maximum found = detail::argmax(on(), argmax_places_, values);
    detail::check_finite(on(), selection_);
    return found;
  }

  void embed(out y, const stored& table, ids rows) { detail::embed(on(), y, table, rows); }
  void rms_norm(out y, in x, vec weight, float eps) { detail::rms_norm(on(), y, x, weight, eps); }
  void layer_norm(out y, in x, vec weight, vec bias, float eps) {
    detail::layer_norm(on(), y, x, weight, bias, eps);
  }
  void matmul(out y, in x, const stored& w, vec bias = {}) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    counters_.count_product(x.rows, w.rows, w);
    detail::matmul(on(), products_, y, x, w, bias);
  }
  void gated_up(out y, in x, const stored& gate, const stored& up, activation act, neurons selection = {}) {
    assert(x.cols == gate.cols && gate.type == up.type);
    counters_.count_product(x.rows, y.cols, gate);
    counters_.count_product(x.rows, y.cols, up);
    detail::gated_up(on(), products_, y, x, gate, up, act, selection);
  }
  void weighted_rows(out y, in x, const stored& w, neurons selection = {}) {
    assert(y.cols == w.cols && y.rows == x.rows);
    counters_.count_product(x.rows, x.cols, w);
    detail::weighted_rows(on(), products_, y, x, w, selection);
  }
  void project(std::span<const projection<space>> projections, in x) {
    for (const auto& [y, w, bias] : projections) {
      assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows &&
             (bias.empty() || bias.size == w.rows));
      counters_.count_product(x.rows, w.rows, w);
    }
    detail::project(on(), products_, projections, x);
  }
  void add_matmul(out y, in x, const stored& w, vec bias, out /*room*/) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    counters_.count_product(x.rows, w.rows, w);
    detail::matmul(on(), products_, y, x, w, bias, detail::product_mode::add);
  }
  void add_weighted_rows(out y, in x, const stored& w, neurons selection, out /*room*/) {
    assert(y.cols == w.cols && y.rows == x.rows);
    counters_.count_product(x.rows, x.cols, w);
    detail::weighted_rows(on(), products_, y, x, w, selection, detail::product_mode::add);
  }
  void rotary(out x, ids positions, vec frequencies, [[maybe_unused]] index heads) {
    assert(x.rows == positions.size && x.cols == 2 * frequencies.size * heads);
    detail::rotary(on(), x, {}, positions, frequencies);
  }
  void rotary(out x, out other, ids positions, vec frequencies) {
    detail::rotary(on(), x, other, positions, frequencies);
  }
  void attention(out y, in q, const stored& k, const stored& v, const attention_shape& shape) {
    assert(k.rows == v.rows && k.type == v.type && (!shape.causal || k.rows >= q.rows));
    count_attention(shape, q.rows, k);
    detail::attention(on(), attention_workspace_, y, q, k, v, shape, later_);
  }
  /// The weights that one query row gives to every key, [heads, keys]; not counted as work of the model.
  void attention_probabilities(out probabilities, in q, const stored& k, const attention_shape& shape) {
    assert(q.rows == 1 && probabilities.rows == shape.heads && probabilities.cols == k.rows);
    detail::attention_probabilities(on(), probabilities, q, k, shape);
  }
  void activate(out x, activation act) { detail::activate(on(), x, act); }
  void add(out y, in x) { detail::add(on(), y, x); }
  void copy(out y, in x) { detail::copy(on(), y, x); }

  void gather_rows(out y, in x, ids rows) { detail::gather_rows(on(), y, x, rows); }
  void gather_rows(cached y, const stored& x, ids rows) { detail::gather_rows(on(), y, x, rows); }
  void store_rows(cached y, in x) { detail::store_rows(on(), y, x, later_); }
  void store_rows(cached y, cached other_y, in x, in other_x) {
    detail::store_rows(on(), y, x, later_, other_y, other_x);
  }
  void load_rows(out y, const stored& x) { detail::load_rows(on(), y, x); }
  void zero_rows(cached x, ids rows) { detail::zero_rows(on(), x, rows); }
  void copy_rows(cached y, const stored& x) {
    assert(y.rows == x.rows && y.cols == x.cols && y.type == x.type);
    if (x.rows == 0) return;
    COREMATCHING_CUDA_CHECK(cudaMemcpy2DAsync(
        y.data, static_cast<std::size_t>(y.row_bytes), x.data, static_cast<std::size_t>(x.row_bytes),
        static_cast<std::size_t>(stored_bytes(x.type, 1, x.cols)), static_cast<std::size_t>(x.rows),
        cudaMemcpyDeviceToDevice, on().stream));
  }

  /// An activation that is not finite is reported by the next operation that waits.
  void activated_neurons(matrix_view<std::uint64_t, space> bits, vector_view<std::int32_t, space> counts,
                         in x) {
    detail::activated_neurons(on(), selection_, bits, counts, x);
  }
  void count_core_neurons(vector_view<std::int32_t, space> frequency, in x,
                          vector_view<const std::int32_t, space> counts, double rho, core_count rule,
                          std::optional<ids> rows = {}) {
    detail::count_core_neurons(on(), selection_, frequency, x, counts, rho, rule, rows);
  }
  neuron_set core_neurons(vector_view<const std::int32_t, space> frequency, double beta) {
    return detail::core_neurons(on(), selection_, frequency, beta);
  }
  void overlap(vector_view<std::int32_t, space> scores, matrix_view<const std::uint64_t, space> bits,
               vector_view<const std::uint64_t, space> set) {
    detail::overlap(on(), scores, bits, set);
  }

  void multiply(out y, in x) { detail::multiply(on(), y, x); }
  void add_magnitudes(vector_view<float, space> sums, in x, std::optional<ids> rows = {}) {
    detail::add_magnitudes(on(), sums, x, rows);
  }
  void top_k(vector_view<std::int32_t, space> places, vec x, vec weights = {}) {
    require(places.size <= x.size, places.size, " of ", x.size, " numbers cannot be chosen");
    assert(weights.empty() || weights.size == x.size);
    if (places.size > 0)
      select::device::top_k(on().stream, x.data, weights.data, x.size, places.size, places.data);
  }
  void zero_others(vector_view<float, space> x, ids chosen) { detail::zero_others(on(), x, chosen); }
  void scaled_matmul(out y, in x, const stored& w, vec factors, ids chosen) {
    assert(x.rows == 1 && x.cols == w.cols && y.cols == chosen.size && factors.size == w.rows);
    counters_.count_product(1, chosen.size, w);
    detail::scaled_rows(on(), y, x, w, factors, chosen);
  }

  void coarse_matmul(out y, in x, const stored& w) {
    assert(x.cols == w.cols && y.cols == w.rows && y.rows == x.rows);
    counters_.count_coarse_product(x.rows, w);
    detail::coarse_matmul(on(), y, x, w);
  }
  /// From both planes: what lower bits are worth, the upper ones say.
  void finish_gated_up(out y, in x, const stored& gate, const stored& up, vec /*coarse_gate*/,
                       vec /*coarse_up*/, activation act, ids chosen) {
    assert(x.rows == 1 && y.cols == chosen.size && gate.type == up.type);
    counters_.count_finished_product(chosen.size, gate);
    counters_.count_finished_product(chosen.size, up);
    detail::gated_rows(on(), y, x, gate, up, act, chosen);
  }

  void gated_up_each(out y, in x, const stored& gate, const stored& up, activation act,
                     std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && x.cols == gate.cols && gate.type == up.type);
    count_each(of_rows, gate, 2, [&](index rows) { counters_.count_product(1, 2 * rows, gate); });
    detail::gated_each(on(), y, x, gate, up, act, of_rows);
  }
  void add_weighted_rows_each(out y, in x, const stored& w, std::span<const neurons> of_rows, out /*room*/) {
    assert(std::ssize(of_rows) == x.rows && y.cols == w.cols && y.rows == x.rows);
    count_each(of_rows, w, 1, [&](index rows) { counters_.count_product(1, rows, w); });
    detail::add_weighted_each(on(), products_.partials, y, x, w, of_rows);
  }
  void scaled_matmul_each(out y, in x, const stored& w, in factors, std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && x.cols == w.cols && factors.cols == w.rows);
    count_each(of_rows, w, 1, [&](index rows) { counters_.count_product(1, rows, w); });
    detail::scaled_each(on(), y, x, w, factors, of_rows);
  }
  /// From both planes, as finish_gated_up().
  void finish_gated_up_each(out y, in x, const stored& gate, const stored& up, in /*coarse_gates*/,
                            in /*coarse_ups*/, activation act, std::span<const neurons> of_rows) {
    assert(std::ssize(of_rows) == x.rows && gate.type == up.type);
    count_each(of_rows, gate, 2, [&](index rows) { counters_.count_finished_product(2 * rows, gate); });
    detail::gated_each(on(), y, x, gate, up, act, of_rows);
  }

  /// Captures `operations` as a graph and launches it.
  template <std::invocable Operations>
  void capture(graph& to, ids counter, std::int32_t count, Operations&& operations) {
    to = {};
    if (!captures_) return operations();
    graph_handle graph;
    {
      const capture_scope scope(*this, {counter.data, count});
      graph = detail::captured(on().stream, operations);
      to = {nullptr, count, counters_ - scope.before(), work_of_row_, own_memory()};
    }
    to.graph = detail::instantiated(graph);
    ++counts_.captured;
    run(to, count);
  }
  bool launch(const graph& made, std::int32_t count) {
    if (!made.graph || made.memory != own_memory()) return false;
    run(made, count);
    ++counts_.launched;
    return true;
  }
  /// Whether capture() captures, which it does unless told otherwise, or only runs.
  void set_capturing(bool captures) { captures_ = captures; }
  const graph_counts& graphs() const { return counts_; }
  /// Whether the kernels of few rows may be started while those before them still run, where device and
  /// driver know how; returns whether they will be. Not unless told so: what it is worth was never measured.
  bool set_overlapping(bool overlaps) {
    overlaps_ = overlaps && detail::can_launch_early(properties_.capability);
    return overlaps_;
  }

 private:
  // While operations are captured: they are told of later rows, and are not counted, since they do not run.
  class capture_scope {
   public:
    capture_scope(backend& of, later_rows later) : of_(of), before_(of.counters_) {
      of_.later_ = later;
      of_.work_of_row_ = {};
    }
    capture_scope(const capture_scope&) = delete;
    capture_scope& operator=(const capture_scope&) = delete;
    ~capture_scope() {
      of_.later_ = {};
      of_.counters_ = before_;
    }
    const work_counters& before() const { return before_; }

   private:
    backend& of_;
    work_counters before_;
  };

  void count_attention(const attention_shape& shape, index queries, stored k) {
    work_counters now, of_one_key_more;
    now.count_attention(shape, queries, k);
    ++k.rows;
    of_one_key_more.count_attention(shape, queries, k);
    counters_ += now;
    work_of_row_ += of_one_key_more - now;
  }

  // Counts count(rows) for what is read: which rows several tokens have in common only the device knows, so
  // it is as if they had none, up to all rows. Then what more is multiplied of them.
  template <class Count>
  void count_each(std::span<const neurons> of_rows, const stored& w, index factor, Count&& count) {
    index pairs = 0;
    for (const neurons& own : of_rows) pairs += detail::count_of(own, w.rows);
    const index rows = std::min(pairs, w.rows);
    count(rows);
    counters_.count_more_pairs(factor * (pairs - rows), w);
  }

  void run(const graph& made, std::int32_t count) {
    COREMATCHING_CUDA_CHECK(cudaGraphLaunch(made.graph.get(), on().stream));
    counters_ += made.work;
    counters_ += made.work_of_row * static_cast<std::uint64_t>(count - made.start);
  }

  std::array<const void*, 6> own_memory() const {
    return {products_.tokens.address(), products_.partials.address(), products_.weights.address(),
            products_.gates.address(),  products_.ups.address(),      attention_workspace_.address()};
  }

  // Kernels and cuBLAS work on the device that the thread uses, which another backend may have changed.
  context on() const {
    COREMATCHING_CUDA_CHECK(cudaSetDevice(properties_.number));
    return {stream_.get(), cublas_.get(), properties_.processors, properties_.capability, overlaps_};
  }

  template <class View>
  static std::size_t bytes_of(const View& values) {
    return static_cast<std::size_t>(values.size) * sizeof(*values.data);
  }

  device_properties properties_;
  stream_handle stream_;   // computes
  stream_handle placing_;  // brings weights meanwhile
  cublas_handle cublas_;
  detail::uploads uploads_;
  detail::product_workspaces products_;
  workspace attention_workspace_;
  detail::argmax_places argmax_places_;
  detail::selection_state selection_;
  work_counters counters_;
  later_rows later_;           // while operations are captured
  work_counters work_of_row_;  // of them
  bool captures_ = true;
  bool overlaps_ = false;
  graph_counts counts_;
};

static_assert(selecting_backend<backend> && choosing_backend<backend> && graph_backend<backend> &&
              fusing_backend<backend> && batching_backend<backend>);

}  // namespace corematching::cuda
