// SPDX-License-Identifier: Apache-2.0
// The one tensor interface. A backend is a type that owns its context (threads; or stream, handles,
// workspace) and offers the operations below on views of its own memory space. Model code is templated on it;
// nothing here is virtual.
//
// Shapes: T tokens, D hidden size, N neurons, H heads. Activations are row-major [T, ...]. Weights are
// [out, in], except the transposed down projection, which is [N, D] so that a neuron is one contiguous row in
// each of its three matrices.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "corematching/core/argmax.hpp"
#include "corematching/core/core_count.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/view.hpp"

namespace corematching {

/// Pointwise nonlinearities. quick_gelu: x * sigmoid(1.702 x). gelu_erf: x * Phi(x). gelu_tanh: its tanh
/// approximation. silu: x * sigmoid(x).
enum class activation : std::uint8_t { silu, gelu_erf, gelu_tanh, quick_gelu };

/// How `heads` query heads share `kv_heads` key/value heads of `head_dim` elements each.
struct attention_shape {
  index heads = 0;
  index kv_heads = 0;
  index head_dim = 0;
  float scale = 1;     // multiplies query-key products: 1 / sqrt(head_dim)
  bool causal = true;  // query i of t sees the first (keys - t + i + 1) keys; otherwise all
  index window = 0;    // where causal: of these the last `window` ones; 0: all

  constexpr index query_size() const { return heads * head_dim; }
  constexpr index kv_size() const { return kv_heads * head_dim; }
  /// How many of `keys` keys query `i` of `queries` sees.
  constexpr index visible_keys(index i, index queries, index keys) const {
    return causal ? keys - queries + i + 1 : keys;
  }
  /// The first of them that it sees.
  constexpr index first_visible_key(index i, index queries, index keys) const {
    return window > 0 ? std::max<index>(0, visible_keys(i, queries, keys) - window) : 0;
  }
};

/// What the operations did since the counters were last reset. Multiplications and additions of matrix
/// products and attention; bytes of weight matrices and of the KV cache that had to be read at least once.
struct work_counters {
  std::uint64_t flops = 0;
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes = 0;

  /// `tokens` rows multiplied by `rows` rows of `w`.
  template <class Space>
  void count_product(index tokens, index rows, const stored_view<Space>& w) {
    flops += 2 * static_cast<std::uint64_t>(tokens * rows * w.cols);
    weight_bytes += stored_bytes(w.type, rows, w.cols);
  }
  /// `tokens` sums of the selected rows of `w`, or of all. Where neighbouring rows share their scales, these
  /// are read for a whole block of rows if one of it is selected.
  void count_row_sum(index tokens, const stored_view<host_space>& w,
                     const std::optional<index_view<host_space>>& selection) {
    const index rows = selection ? selection->size : w.rows;
    if (!selection || !shares_scales(w.type)) return count_product(tokens, rows, w);
    flops += 2 * static_cast<std::uint64_t>(tokens * rows * w.cols);
    visit_neuron_blocks(w.type, [&]<class T>() {
      index blocks = 0, last = -1;
      for (const std::int32_t n : *selection)
        if (n / T::group != last) ++blocks, last = n / T::group;
      const neuron_layout<T> layout{w.cols};
      weight_bytes +=
          static_cast<std::uint64_t>(rows * layout.neuron_bytes() + blocks * layout.header_bytes());
    });
  }
  /// `pairs` of a token and a row of `w`, which is read for another token anyway.
  template <class Space>
  void count_more_pairs(index pairs, const stored_view<Space>& w) {
    flops += 2 * static_cast<std::uint64_t>(pairs * w.cols);
  }
  /// `tokens` rows multiplied by the upper plane of `w` alone.
  template <class Space>
  void count_coarse_product(index tokens, const stored_view<Space>& w) {
    flops += 2 * static_cast<std::uint64_t>(tokens * w.rows * w.cols);
    weight_bytes +=
        static_cast<std::uint64_t>(w.rows) * upper_bytes_of(w.type, static_cast<std::size_t>(w.cols));
  }
  /// Coarse products of one token with `rows` rows of `w` made exact.
  template <class Space>
  void count_finished_product(index rows, const stored_view<Space>& w) {
    flops += 2 * static_cast<std::uint64_t>(rows * w.cols);
    weight_bytes +=
        static_cast<std::uint64_t>(rows) * finishing_bytes_of(w.type, static_cast<std::size_t>(w.cols));
  }
  /// `queries` rows that attend to the rows of `k` and to as many values.
  template <class Space>
  void count_attention(const attention_shape& shape, index queries, const stored_view<Space>& k) {
    std::uint64_t pairs = 0;
    for (index i = 0; i < queries; ++i)
      pairs += static_cast<std::uint64_t>(shape.visible_keys(i, queries, k.rows) -
                                          shape.first_visible_key(i, queries, k.rows));
    flops += 4 * pairs * static_cast<std::uint64_t>(shape.query_size());
    const index seen = k.rows - (queries > 0 ? shape.first_visible_key(0, queries, k.rows) : 0);
    kv_bytes += 2 * stored_bytes(k.type, seen, shape.kv_size());
  }

  friend work_counters operator-(work_counters a, const work_counters& b) {
    return {a.flops - b.flops, a.weight_bytes - b.weight_bytes, a.kv_bytes - b.kv_bytes};
  }
  work_counters& operator+=(const work_counters& other) {
    flops += other.flops;
    weight_bytes += other.weight_bytes;
    kv_bytes += other.kv_bytes;
    return *this;
  }
  friend work_counters operator*(const work_counters& one, std::uint64_t times) {
    return {one.flops * times, one.weight_bytes * times, one.kv_bytes * times};
  }
  friend bool operator==(const work_counters&, const work_counters&) = default;
};

/// A weight matrix and whatever keeps its memory alive (a file mapping, a heap block, device memory).
template <class Space = host_space>
struct weight {
  stored_view<Space> view;
  std::shared_ptr<const void> owner;
};

/// One of several products of the same rows x [T, D]: y = x W^T + bias; y [T, N], w [N, D], bias [N] or
/// empty.
template <class Space>
struct projection {
  matrix_view<float, Space> y;
  stored_view<Space> w;
  vector_view<const float, Space> bias;
};

/// Which neurons a feed-forward block computes: those listed, ascending, or all of them when empty.
template <class Space>
using neuron_selection = std::optional<index_view<Space>>;

/// Memory of `B` with `rows` x `cols` elements, freed with the object.
template <class B, class T = float>
class matrix {
 public:
  using view_type = matrix_view<T, typename B::space>;

  matrix() = default;
  matrix(B& be, index rows, index cols)
      : storage_(be.template allocate<T>(rows * cols)), rows_(rows), cols_(cols) {}

  view_type view() { return {storage_.data(), rows_, cols_, cols_}; }
  view_type top_rows(index count) { return view().top_rows(count); }
  matrix_view<const T, typename B::space> view() const { return {storage_.data(), rows_, cols_, cols_}; }
  index rows() const { return rows_; }
  index cols() const { return cols_; }
  std::size_t bytes() const { return static_cast<std::size_t>(rows_ * cols_) * sizeof(T); }

 private:
  typename B::template buffer<T> storage_;
  index rows_ = 0;
  index cols_ = 0;
};

namespace detail {

template <class B>
concept names_types = requires {
  typename B::space;
};

template <class B>
struct backend_types {
  using space = typename B::space;
  using out = matrix_view<float, space>;
  using in = matrix_view<const float, space>;
  using vec = vector_view<const float, space>;
  using ids = index_view<space>;
  using neurons = neuron_selection<space>;
  using wt = stored_view<space>;
  using cached = mutable_stored_view<space>;
  using words = matrix_view<std::uint64_t, space>;
  using counts = vector_view<std::int32_t, space>;
};

// Dense linear algebra and pointwise operations of a transformer layer.
template <class B, class V = backend_types<B>>
concept layer_operations = requires(B& be, typename V::out y, typename V::in x, typename V::vec v,
                                    typename V::ids ids, typename V::wt w, typename V::neurons neurons,
                                    attention_shape shape, float eps, activation act) {
  be.embed(y, w, ids);                    // y[i] = table[ids[i]]
  be.rms_norm(y, x, v, eps);              // y = x / sqrt(mean(x^2) + eps) * weight; y may be x
  be.layer_norm(y, x, v, v, eps);         // y = (x - mean) / sqrt(var + eps) * weight + bias
  be.matmul(y, x, w, v);                  // y = x W^T + bias (bias may be empty)
  be.gated_up(y, x, w, w, act, neurons);  // y = act(x Wgate^T) * (x Wup^T), columns = neurons
  be.weighted_rows(y, x, w, neurons);     // y = sum over neurons of x[:, n] * Wdown^T[n]
  be.rotary(y, ids, v, std::int32_t{1});  // rotates every head of y by position * frequency
  be.attention(y, x, w, w, shape);        // y = softmax(q k^T * scale) v
  be.activate(y, act);                    // in place
  be.add(y, x);                           // y += x
  be.copy(y, x);
  be.gather_rows(y, x, ids);  // y[i] = x[ids[i]]; ids ascending, y may be x
};

// The rows of a KV cache, which have a storage type of their own.
template <class B, class V = backend_types<B>>
concept cache_operations = requires(B& be, typename V::cached cached, typename V::out y, typename V::in x,
                                    typename V::wt stored, typename V::ids ids) {
  be.store_rows(cached, x);             // cached = x, rounded to its type
  be.load_rows(y, stored);              // y = stored, exactly
  be.copy_rows(cached, stored);         // both of one type and shape
  be.gather_rows(cached, stored, ids);  // as above
};

// What core neurons and core tokens are found with (the rules themselves live in select/).
template <class B, class V = backend_types<B>>
concept selection_operations = requires(
    B& be, typename V::in x, typename V::words bits, typename V::counts counts,
    vector_view<const std::uint64_t, typename B::space> set, double rho, std::optional<typename V::ids> rows,
    vector_view<const std::int32_t, typename B::space> frequency, core_count rule, double beta,
    vector_view<std::uint64_t, typename B::space> placed, vector_view<std::uint64_t> host) {
  be.activated_neurons(bits, counts, x);                      // Γ of every row, and its size
  be.count_core_neurons(counts, x, counts, rho, rule, rows);  // f(n) += rows x with n in C_rho(x)
  { be.core_neurons(frequency, beta).indices() } -> std::convertible_to<typename V::ids>;
  { be.core_neurons(frequency, beta).bits() } -> std::convertible_to<decltype(set)>;
  be.overlap(counts, bits, set);  // m(x) = |Γ(x) ∩ set|
  be.upload(placed, host);
  be.download(host, placed);
};

// What other rules than the paper's need: weights of attention to choose tokens by, and the released code's
// way of dropping them.
template <class B, class V = backend_types<B>>
concept comparison_operations = requires(B& be, typename V::out probabilities, typename V::in x,
                                         typename V::wt keys, typename V::cached cached, typename V::ids ids,
                                         attention_shape shape) {
  be.attention_probabilities(probabilities, x, keys, shape);  // one query row -> [heads, keys]
  be.zero_rows(cached, ids);
};

// What neurons are chosen with for each token.
template <class B, class V = backend_types<B>>
concept choice_operations = requires(B& be, typename V::out y, typename V::in x, typename V::vec v,
                                     typename V::wt w, typename V::ids chosen, typename V::counts places,
                                     activation act, vector_view<float, typename B::space> sums,
                                     std::optional<typename V::ids> rows) {
  be.multiply(y, x);                     // y *= x
  be.add_magnitudes(sums, x, rows);      // sums[n] += sum over rows of |x[row, n]|
  be.top_k(places, v, v);                // the places.size largest |v[n]| weights[n] (none: 1), ascending
  be.zero_others(sums, chosen);          // sums[n] = 0 for all n that are not among `chosen`
  be.scaled_matmul(y, x, w, v, chosen);  // of one token: y[i] = v[n] (x . w[n]), n = chosen[i]
  // Of weights in two planes: the product with the upper one alone; and, for one token, what gated_up gives
  // of the chosen neurons where the coarse products of all with gate and up are there.
  be.coarse_matmul(y, x, w);
  be.finish_gated_up(y, x, w, w, v, v, act, chosen);
};

}  // namespace detail

/// A type that model code can be templated on. One thread uses a backend at a time; meanwhile one other may
/// take weight_memory() and place weights and vectors, so that a layer comes while another computes.
template <class B>
concept backend = detail::names_types<B> && detail::layer_operations<B> && detail::cache_operations<B> &&
    requires(B& be, weight<host_space> w, vector_view<std::int32_t, typename B::space> ints,
             vector_view<std::int32_t, host_space> host_ints, vector_view<const float> parameters,
             vector_view<const float, typename B::space> values, std::size_t bytes, dtype target,
             bool transposed) {
  { be.template allocate<std::int32_t>(index{1}).view() } -> std::convertible_to<decltype(ints)>;
  // Host memory that weights are put together in.
  { be.weight_memory(bytes) } -> std::same_as<std::shared_ptr<std::byte>>;
  // What the backend computes with; where `owner` is not kept, the host's memory is free again on return.
  { be.place_weight(w) } -> std::same_as<weight<typename B::space>>;
  { be.place_vector(parameters) } -> std::same_as<typename B::template buffer<float>>;
  // The weight, or its transposed, stored as `target`; refuses numbers that `target` cannot hold.
  { be.convert_weight(w.view, target, transposed) } -> std::same_as<weight<typename B::space>>;
  be.upload(ints, host_ints);
  be.download(host_ints, ints);
  { be.argmax(values) } -> std::same_as<maximum>;  // the first NaN or the first of the largest
  { be.counters() } -> std::convertible_to<work_counters>;
};

/// A backend that core neurons and core tokens can be found on, which hooks/core_matching.hpp does.
template <class B>
concept selecting_backend = backend<B> && detail::selection_operations<B> && detail::comparison_operations<B>;

/// A backend on which each token's neurons can be chosen within the feed-forward block. Of equal scores in
/// top_k() the lower places win, and a NaN is larger than any number.
template <class B>
concept choosing_backend = backend<B> && detail::choice_operations<B>;

/// A backend that has operations in one that others compute one after the other.
template <class B, class V = detail::backend_types<B>>
concept fusing_backend = backend<B> &&
    requires(B& be, typename V::out y, typename V::in x, typename V::vec v, typename V::ids ids,
             typename V::wt w, typename V::neurons neurons, typename V::cached cached, typename V::out room,
             std::span<const projection<typename V::space>> projections) {
  // `room`, shaped like y, may be overwritten.
  be.add_matmul(y, x, w, v, room);               // y += x W^T + bias
  be.add_weighted_rows(y, x, w, neurons, room);  // y += sum over neurons of x[:, n] * Wdown^T[n]
  be.project(projections, x);                    // each y = x W^T + bias
  be.rotary(y, y, ids, v);                       // of two matrices
  be.store_rows(cached, cached, x, x);           // likewise, into caches that are alike
};

/// A backend on which several tokens are multiplied at once though each has neurons of its own: a row of
/// weights that several of them ask for is read once. What a token gets is bit for bit what the operation
/// without "each" gives it alone. Row i has of_rows[i].
template <class B, class V = detail::backend_types<B>>
concept batching_backend = choosing_backend<B> &&
    requires(B& be, typename V::out y, typename V::in x, typename V::wt w, activation act,
             std::span<const typename V::neurons> of_rows, typename V::out room) {
  be.gated_up_each(y, x, w, w, act, of_rows);               // y[i, j]: of the j-th neuron of row i
  be.add_weighted_rows_each(y, x, w, of_rows, room);        // y[i] += ..., x[i, j] likewise
  be.scaled_matmul_each(y, x, w, x, of_rows);               // of factors [T, N]; all rows name their neurons
  be.finish_gated_up_each(y, x, w, w, x, x, act, of_rows);  // of coarse products [T, N]; likewise
};

/// How often a backend has captured a graph and launched one.
struct graph_counts {
  std::uint64_t captured = 0;
  std::uint64_t launched = 0;
};

/// A backend that can capture operations as a graph and launch it at the cost of one call: those of a
/// decoding step, which for a while differs from the one before in nothing but what stands in memory and how
/// many rows are cached.
template <class B>
concept graph_backend = backend<B> &&
    requires(B& be, typename B::graph& made, index_view<typename B::space> counter, std::int32_t count,
             void (&operations)()) {
  // Runs `operations`, which wait for nothing and take no memory, and captures them. They must have run
  // before with the same sizes. counter [1] holds `count`.
  be.capture(made, counter, count, operations);
  // Runs again what was captured. By as much as the counter, which holds `count` now, has grown since,
  // store_rows() goes so many rows further and attention() sees so many more keys. False, and nothing was
  // done, where there is no graph, or none that still fits the backend's own memory.
  { be.launch(made, count) } -> std::same_as<bool>;
  be.set_capturing(true);  // whether capture() captures, which it does unless told otherwise, or only runs
  { be.graphs() } -> std::convertible_to<graph_counts>;
  // Whether operations may be started before those before them are done; returns whether they will be.
  { be.set_overlapping(true) } -> std::same_as<bool>;
};

}  // namespace corematching
