// SPDX-License-Identifier: Apache-2.0
// A decoder layer's step for one token of each of several sequences: products with whole matrices see all
// rows, each row attends to the cache of its own sequence, and feed-forward rows are read once for all
// sequences that want them. A row gets its own neurons and no others, whoever else is there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/backend/each.hpp"
#include "corematching/backend/fused.hpp"
#include "corematching/nn/decoder_layer.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/wanted_neurons.hpp"

namespace corematching {

/// Intermediate activations of a step of up to `rows` sequences.
template <backend B>
class together_scratch {
 public:
  using space = typename B::space;
  using view = matrix_view<float, space>;

  together_scratch(B& be, const decoder_shape& shape, index rows)
      : plain(be, shape, rows, rows), rows_(rows), neurons_(shape.intermediate_size) {}

  scratch<B> plain;
  std::vector<neuron_selection<space>> own;  // of each row of the current block

  /// What rows choose their neurons by, made when they first do; [rows, neurons] each.
  view gates(B& be, index rows) { return choice_rows(be, 0, rows); }
  view coarse_gates(B& be, index rows) { return choice_rows(be, 1, rows); }
  view coarse_ups(B& be, index rows) { return choice_rows(be, 2, rows); }
  /// Room for `count` neurons that row `i` chooses.
  vector_view<std::int32_t, space> chosen(B& be, index i, index count) {
    if (chosen_.size() == 0) chosen_ = be.template allocate<std::int32_t>(rows_ * neurons_);
    return {chosen_.data() + i * neurons_, count};
  }

 private:
  view choice_rows(B& be, index which, index rows) {
    if (choice_.rows() == 0) choice_ = matrix<B>(be, 3 * rows_, neurons_);
    return choice_.view().middle_rows(which * rows_, rows);
  }

  index rows_, neurons_;
  matrix<B> choice_;
  typename B::template buffer<std::int32_t> chosen_;
};

/// One of the sequences, in one layer.
template <backend B>
struct layer_member {
  kv_layer<B>* cache;
  wanted_neurons<typename B::space> wants;
};

/// A layer's step for the rows x [members, D], in place. No hook is told anything: what one would be asked,
/// `members` says.
template <backend B>
class step_together {
 public:
  using space = typename B::space;
  using view = matrix_view<float, space>;
  using members_view = std::span<const layer_member<B>>;

  step_together(B& be, const decoder_layer<B>& layer, together_scratch<B>& s)
      : be_(be), layer_(layer), w_(layer.weights_), s_(s) {}

  /// `positions` [members] and `frequencies` turn queries and keys, as in decoder_layer::forward.
  void run(view x, index_view<space> positions, vector_view<const float, space> frequencies,
           members_view members) {
    add_attention(x, positions, frequencies, members);
    // Neighbours that say in the same way what they want are one block.
    for (index first = 0; first < x.rows;) {
      index count = 1;
      while (first + count < x.rows && alike(at(members, first), at(members, first + count))) ++count;
      add_feed_forward(x.middle_rows(first, count),
                       members.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
      first += count;
    }
  }

 private:
  // Where rows together want more than so many times all neurons, all of them cost no more for all rows. On a
  // CPU that is never so among the few rows that get the bits that each gets alone (docs/performance.md).
  static constexpr index rows_apart = 12;

  static const layer_member<B>& at(members_view members, index i) {
    return members[static_cast<std::size_t>(i)];
  }
  static bool alike(const layer_member<B>& a, const layer_member<B>& b) {
    const auto &x = a.wants.choice, &y = b.wants.choice;
    return x && y ? x->by == y->by : !x && !y;
  }

  void add_attention(view x, index_view<space> positions, vector_view<const float, space> frequencies,
                     members_view members) {
    const auto [q, k, v] = layer_.project(be_, s_.plain, x, positions, frequencies);
    const view attended = s_.plain.attended(x.rows);
    for (index i = 0; i < x.rows; ++i) {
      kv_layer<B>& cache = *at(members, i).cache;
      cache.append(be_, k.middle_rows(i, 1), v.middle_rows(i, 1));
      be_.attention(attended.middle_rows(i, 1), q.middle_rows(i, 1), cache.keys(), cache.values(),
                    layer_.shape_);
    }
    layer_.add_output(be_, s_.plain, x, attended);
  }

  void add_feed_forward(view x, members_view members) {
    const view normed = s_.plain.normed(x.rows);
    be_.rms_norm(normed, x, w_.ffn_norm.view(), layer_.eps_);
    if (!at(members, 0).wants.choice) return add_named(x, normed, members);
    if constexpr (choosing_backend<B>) {
      if (at(members, 0).wants.choice->by == chosen_by::gate)
        add_chosen_by_gate(x, normed, members);
      else
        add_chosen_by_prediction(x, normed, members);
    }
  }

  /// Whether each row computes its own neurons, which stand in s_.own, or all of them, of which the others
  /// are then dropped.
  bool restricts() const {
    index wanted = 0;
    for (const auto& own : s_.own) wanted += own ? own->size : layer_.neurons();
    return wanted < std::ssize(s_.own) * layer_.neurons() && wanted <= rows_apart * layer_.neurons();
  }

  index most_wanted() const {
    index most = 0;
    for (const auto& own : s_.own) most = std::max(most, own ? own->size : layer_.neurons());
    return most;
  }

  void add_named(view x, view normed, members_view members) {
    s_.own.clear();
    for (const layer_member<B>& member : members) s_.own.push_back(member.wants.neurons);
    if (restricts()) {
      const view activation = s_.plain.activation(x.rows, most_wanted());
      detail::gated_up_each<B>(be_, activation, normed, w_.gate.view, w_.up.view, layer_.act_, s_.own);
      return add_own(x, activation);
    }
    const view activation = s_.plain.activation(x.rows, layer_.neurons());
    be_.gated_up(activation, normed, w_.gate.view, w_.up.view, layer_.act_, {});
    add_without_others(x, activation);
  }

  void add_chosen_by_gate(view x, view normed, members_view members) {
    const view gates = s_.gates(be_, x.rows);
    be_.matmul(gates, normed, w_.gate.view, {});
    be_.activate(gates, layer_.act_);
    choose(gates, members);
    if (restricts()) {
      const view activation = s_.plain.activation(x.rows, most_wanted());
      detail::scaled_matmul_each<B>(be_, activation, normed, w_.up.view, gates, s_.own);
      return add_own(x, activation);
    }
    const view ups = s_.plain.activation(x.rows, layer_.neurons());
    be_.matmul(ups, normed, w_.up.view, {});
    be_.multiply(ups, gates);
    add_without_others(x, ups);
  }

  void add_chosen_by_prediction(view x, view normed, members_view members) {
    const view foretold = s_.gates(be_, x.rows), gates = s_.coarse_gates(be_, x.rows),
               ups = s_.coarse_ups(be_, x.rows);
    be_.coarse_matmul(gates, normed, w_.gate.view);
    be_.coarse_matmul(ups, normed, w_.up.view);
    be_.copy(foretold, gates);
    be_.activate(foretold, layer_.act_);
    be_.multiply(foretold, ups);
    choose(foretold, members);
    if (restricts()) {
      const view activation = s_.plain.activation(x.rows, most_wanted());
      detail::finish_gated_up_each<B>(be_, activation, normed, w_.gate.view, w_.up.view, gates, ups,
                                      layer_.act_, s_.own);
      return add_own(x, activation);
    }
    const view activation = s_.plain.activation(x.rows, layer_.neurons());
    be_.gated_up(activation, normed, w_.gate.view, w_.up.view, layer_.act_, {});
    add_without_others(x, activation);
  }

  void choose(view by, members_view members) {
    s_.own.clear();
    for (index i = 0; i < by.rows; ++i) {
      const auto& choice = *at(members, i).wants.choice;
      const auto chosen = s_.chosen(be_, i, choice.count);
      be_.top_k(chosen, by.row(i), choice.weights);
      s_.own.emplace_back(index_view<space>(chosen));
    }
  }

  // x += what row i has computed of its own neurons
  void add_own(view x, view activation) {
    detail::add_weighted_rows_each<B>(be_, x, activation, w_.down_transposed.view, s_.own,
                                      s_.plain.projected(x.rows));
  }
  // x += the same where all neurons were computed
  void add_without_others(view x, view activation) {
    if constexpr (choosing_backend<B>) {
      for (index i = 0; i < x.rows; ++i)
        if (const auto& own = s_.own[static_cast<std::size_t>(i)]) be_.zero_others(activation.row(i), *own);
    }
    detail::add_weighted_rows(be_, x, activation, w_.down_transposed.view, neuron_selection<space>(),
                              s_.plain.projected(x.rows));
  }

  B& be_;
  const decoder_layer<B>& layer_;
  const decoder_weights<B>& w_;
  together_scratch<B>& s_;
};

}  // namespace corematching
