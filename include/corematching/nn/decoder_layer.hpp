// SPDX-License-Identifier: Apache-2.0
// One LLaMA decoder layer: x += attention(norm(x)); x += ffn(norm(x)), with hooks inside. The same function
// serves prefill (many rows; a hook observes activations and chooses which rows go on) and decode (one row; a
// hook says which neurons to compute).
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <utility>

#include "corematching/backend/fused.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/scratch.hpp"

namespace corematching {

/// A learned vector of a layer, binary32 in the backend's memory; empty where the model has none.
template <backend B>
using parameters = typename B::template buffer<float>;

/// Weights of one layer. Projections are [out, in]; gate, up and down are [N, D]: row n of each is neuron n.
template <backend B>
struct decoder_weights {
  using matrix_weight = weight<typename B::space>;
  parameters<B> attention_norm, ffn_norm;                       // [D]
  matrix_weight query, key, value, output;                      // [Hq, D], [Hkv, D], [Hkv, D], [D, Hq]
  parameters<B> query_bias, key_bias, value_bias, output_bias;  // may be empty
  parameters<B> query_norm, key_norm;                           // [head_dim] of every head; may be empty
  matrix_weight gate, up, down_transposed;                      // [N, D]
};

template <backend B>
class step_together;

template <backend B>
class decoder_layer {
 public:
  using space = typename B::space;
  using view = matrix_view<float, space>;

  decoder_layer(decoder_weights<B> weights, attention_shape shape, activation act, float eps)
      : weights_(std::move(weights)), shape_(shape), act_(act), eps_(eps) {}

  /// Runs the layer on the rows x [T, D], in place, and appends their keys and values to at.cache.
  /// `positions` [T] and `frequencies` [head_dim / 2] turn queries and keys. Returns what the hook wants
  /// kept; the caller drops the rows.
  template <hook_of<B> H = no_hook>
  token_selection forward(const layer_context<B>& at, scratch<B>& s, view x, index_view<space> positions,
                          vector_view<const float, space> frequencies, H&& hook = {}) const {
    add_attention(at, s, x, positions, frequencies, hook);
    add_feed_forward(at, s, x, hook);
    call_hook<site::layer_output>(hook, at, x);
    return call_hook<site::keep_tokens>(hook, at);
  }

  index neurons() const { return weights_.gate.view.rows; }
  /// Bytes of the four attention projections.
  std::uint64_t attention_weight_bytes() const {
    return bytes_of(weights_.query) + bytes_of(weights_.key) + bytes_of(weights_.value) +
           bytes_of(weights_.output);
  }
  /// Bytes of one neuron: its rows of gate, up and down.
  std::uint64_t neuron_bytes() const {
    return (bytes_of(weights_.gate) + bytes_of(weights_.up) + bytes_of(weights_.down_transposed)) /
           static_cast<std::uint64_t>(neurons());
  }

 private:
  friend class step_together<B>;  // nn/together.hpp: a step of several sequences

  static std::uint64_t bytes_of(const weight<space>& w) { return stored_bytes(w.view); }

  struct projections {
    view queries, keys, values;
  };

  // rotate(norm(x) Wq), rotate(norm(x) Wk), norm(x) Wv; some models normalise the heads that they rotate
  projections project(B& be, scratch<B>& s, view x, index_view<space> positions,
                      vector_view<const float, space> frequencies) const {
    const auto& w = weights_;
    const view normed = s.normed(x.rows), q = s.queries(x.rows), k = s.keys(x.rows), v = s.values(x.rows);
    be.rms_norm(normed, x, w.attention_norm.view(), eps_);
    const std::array<projection<space>, 3> products = {{{q, w.query.view, w.query_bias.view()},
                                                        {k, w.key.view, w.key_bias.view()},
                                                        {v, w.value.view, w.value_bias.view()}}};
    detail::project(be, products, normed);
    normalise_heads(be, q, w.query_norm);
    normalise_heads(be, k, w.key_norm);
    detail::rotate(be, q, k, positions, frequencies);
    return {q, k, v};
  }

  // x += attended Wo
  void add_output(B& be, scratch<B>& s, view x, view attended) const {
    detail::add_matmul(be, x, attended, weights_.output.view, weights_.output_bias.view(),
                       s.projected(x.rows));
  }

  template <class H>
  void add_attention(const layer_context<B>& at, scratch<B>& s, view x, index_view<space> positions,
                     vector_view<const float, space> frequencies, H& hook) const {
    const auto [q, k, v] = project(at.be, s, x, positions, frequencies);
    at.cache.append(at.be, k, v);
    const view attended = s.attended(x.rows);
    at.be.attention(attended, q, at.cache.keys(), at.cache.values(), shape_);
    call_hook<site::attention>(hook, at, attention_inputs<B>{q, at.cache.keys(), at.cache.values(), shape_});
    add_output(at.be, s, x, attended);
  }

  // x = norm(x), each head of a row by itself, where the model has such a norm
  void normalise_heads(B& be, view x, const parameters<B>& norm) const {
    if (norm.size() == 0) return;
    assert(x.stride == x.cols);
    const view heads{x.data, x.rows * x.cols / shape_.head_dim, shape_.head_dim, shape_.head_dim};
    be.rms_norm(heads, heads, norm.view(), eps_);
  }

  // x += sum over neurons n of act(norm(x) . gate_n) (norm(x) . up_n) down_n
  template <class H>
  void add_feed_forward(const layer_context<B>& at, scratch<B>& s, view x, H& hook) const {
    B& be = at.be;
    const auto& w = weights_;
    if constexpr (attends<H, site::neuron_choice>)
      if (const auto choice = call_hook<site::neuron_choice>(hook, at))
        return add_chosen_feed_forward(at, s, x, *choice, hook);
    const neuron_selection<space> neurons = call_hook<site::ffn_neurons>(hook, at);
    const index columns = neurons ? neurons->size : w.gate.view.rows;

    for (index first = 0; first < x.rows; first += s.ffn_rows()) {
      const view rows = x.middle_rows(first, std::min(s.ffn_rows(), x.rows - first));
      const view normed = s.normed(rows.rows), projected = s.projected(rows.rows);
      const view activation = s.activation(rows.rows, columns);
      be.rms_norm(normed, rows, w.ffn_norm.view(), eps_);
      const layer_context<B> part{be, at.layer, at.positions, at.cache, first};
      if (attends<H, site::ffn_up> && !neurons)
        gate_and_tell_up(part, s, activation, normed, hook);
      else
        be.gated_up(activation, normed, w.gate.view, w.up.view, act_, neurons);
      call_hook<site::ffn_activation>(hook, part, matrix_view<const float, space>(activation));
      detail::add_weighted_rows(be, rows, activation, w.down_transposed.view, neurons, projected);
    }
  }

  // activation = act(normed Wgate) * (normed Wup), of all neurons
  template <class H>
  void gate_and_tell_up(const layer_context<B>& at, scratch<B>& s, view activation, view normed,
                        H& hook) const {
    if constexpr (attends<H, site::ffn_up>) {
      static_assert(choosing_backend<B>);
      B& be = at.be;
      const view up = s.ups(be, normed.rows, activation.cols);
      be.matmul(activation, normed, weights_.gate.view, {});
      be.activate(activation, act_);
      be.matmul(up, normed, weights_.up.view, {});
      call_hook<site::ffn_up>(hook, at, matrix_view<const float, space>(up));
      be.multiply(activation, up);
    }
  }

  // Up to so many rows compute their own neurons one after the other; more of them all neurons together,
  // which reads each weight once, and drop what they did not choose.
  static constexpr index rows_apart = 4;

  // The same as add_feed_forward, but of the neurons that each row chooses.
  template <class H>
  void add_chosen_feed_forward(const layer_context<B>& at, scratch<B>& s, view x,
                               const neuron_choice<space>& choice, H& hook) const {
    if (x.rows > rows_apart)
      add_chosen_together(at, s, x, choice, hook);
    else
      add_chosen_apart(at, s, x, choice, hook);
  }

  template <class H>
  void add_chosen_together(const layer_context<B>& at, scratch<B>& s, view x,
                           const neuron_choice<space>& choice, H& hook) const {
    static_assert(choosing_backend<B>);
    B& be = at.be;
    const auto& w = weights_;
    const auto chosen = s.chosen(be, choice.count);
    for (index first = 0; first < x.rows; first += s.ffn_rows()) {
      const view rows = x.middle_rows(first, std::min(s.ffn_rows(), x.rows - first));
      const view normed = s.normed(rows.rows), activation = s.activation(rows.rows, w.gate.view.rows);
      be.rms_norm(normed, rows, w.ffn_norm.view(), eps_);
      if (choice.by == chosen_by::gate) {
        const view up = s.ups(be, rows.rows, activation.cols);
        be.matmul(activation, normed, w.gate.view, {});
        be.activate(activation, act_);
        be.matmul(up, normed, w.up.view, {});
        for (index i = 0; i < rows.rows; ++i) {
          be.top_k(chosen, activation.row(i), choice.weights);
          be.zero_others(activation.row(i), chosen);
        }
        be.multiply(activation, up);
      } else {
        be.gated_up(activation, normed, w.gate.view, w.up.view, act_, {});
        for (index i = 0; i < rows.rows; ++i) {
          be.top_k(chosen, foretell(be, s, normed.middle_rows(i, 1)).row(0), choice.weights);
          be.zero_others(activation.row(i), chosen);
        }
      }
      const layer_context<B> part{be, at.layer, at.positions, at.cache, first};
      call_hook<site::ffn_activation>(hook, part, matrix_view<const float, space>(activation));
      detail::add_weighted_rows(be, rows, activation, w.down_transposed.view, neuron_selection<space>(),
                                s.projected(rows.rows));
    }
  }

  template <class H>
  void add_chosen_apart(const layer_context<B>& at, scratch<B>& s, view x, const neuron_choice<space>& choice,
                        H& hook) const {
    static_assert(choosing_backend<B>);
    B& be = at.be;
    const auto& w = weights_;
    const view activation = s.activation(1, choice.count);
    const auto chosen = s.chosen(be, choice.count);
    for (index i = 0; i < x.rows; ++i) {
      const view row = x.middle_rows(i, 1), normed = s.normed(1);
      be.rms_norm(normed, row, w.ffn_norm.view(), eps_);
      if (choice.by == chosen_by::gate)
        activate_by_gate(be, s, activation, normed, choice, chosen);
      else
        activate_by_prediction(be, s, activation, normed, choice, chosen);
      const layer_context<B> part{be, at.layer, at.positions, at.cache, i};
      call_hook<site::ffn_activation>(hook, part, matrix_view<const float, space>(activation));
      detail::add_weighted_rows(be, row, activation, w.down_transposed.view, index_view<space>(chosen),
                                s.projected(1));
    }
  }

  void activate_by_gate(B& be, scratch<B>& s, view activation, view normed,
                        const neuron_choice<space>& choice, vector_view<std::int32_t, space> chosen) const {
    const view gates = s.foretold(be);
    be.matmul(gates, normed, weights_.gate.view, {});
    be.activate(gates, act_);
    be.top_k(chosen, gates.row(0), choice.weights);
    be.scaled_matmul(activation, normed, weights_.up.view, gates.row(0), chosen);
  }

  void activate_by_prediction(B& be, scratch<B>& s, view activation, view normed,
                              const neuron_choice<space>& choice,
                              vector_view<std::int32_t, space> chosen) const {
    be.top_k(chosen, foretell(be, s, normed).row(0), choice.weights);
    be.finish_gated_up(activation, normed, weights_.gate.view, weights_.up.view, s.coarse_gates(be).row(0),
                       s.coarse_ups(be).row(0), act_, chosen);
  }

  // act(x . gate_n) (x . up_n) of all neurons, by the upper planes alone, whose products stay in the scratch.
  view foretell(B& be, scratch<B>& s, view normed) const {
    const view foretold = s.foretold(be), gates = s.coarse_gates(be), ups = s.coarse_ups(be);
    be.coarse_matmul(gates, normed, weights_.gate.view);
    be.coarse_matmul(ups, normed, weights_.up.view);
    be.copy(foretold, gates);
    be.activate(foretold, act_);
    be.multiply(foretold, ups);
    return foretold;
  }

  decoder_weights<B> weights_;
  attention_shape shape_;
  activation act_;
  float eps_;
};

}  // namespace corematching
