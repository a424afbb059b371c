// SPDX-License-Identifier: Apache-2.0
// Tokens of a prompt that are still alive while it passes through the layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "corematching/nn/hook.hpp"
#include "corematching/nn/kv_cache.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching::detail {

/// How cached keys [cached, kv_heads * head_dim] turn from a position to another.
template <backend B>
struct key_rotation {
  vector_view<const float, typename B::space> frequencies;  // [head_dim / 2]
  index kv_heads;
};

/// Their positions in the prompt, and those that they are rotated by.
template <backend B>
struct alive_tokens {
  using space = typename B::space;
  using view = matrix_view<float, space>;

  /// Of a prompt of `tokens` tokens, the first of which stands at `start`: those at `places`, ascending, of
  /// which the last one is the prompt's.
  alive_tokens(B& be, index tokens, std::int32_t start, index_view<> places)
      : original(places.begin(), places.end()),
        placed(be.template allocate<std::int32_t>(places.size)),
        first(start),
        end(start + static_cast<std::int32_t>(tokens)) {
    for (std::int32_t& position : original) position += start;
    rotary = original;
    place(be);
  }
  vector_view<std::int32_t, space> device_view() { return {placed.data(), std::ssize(rotary)}; }

  /// Shrinks everything that has one entry per token to the rows that a hook keeps after layer `done`; what
  /// is left of the hidden states x [T, D] is returned.
  view keep(B& be, kv_cache<B>& cache, view x, const token_selection& kept, index done,
            const key_rotation<B>& rotation) {
    const index_view<> rows = *kept.rows;
    require(!kept.renumber || kept.scope == cache_scope::every_layer,
            "a hook renumbers tokens whose cache entries stay in some layers");
    auto device_rows = device_indices(be, rows);
    be.gather_rows(x.top_rows(rows.size), x, device_rows.view());
    if (kept.scope == cache_scope::every_layer)
      for (index i = 0; i <= done; ++i) cache[i].compact(be, x.rows, device_rows.view());
    for (index i = 0; i < rows.size; ++i) {
      const auto from = static_cast<std::size_t>(rows[i]), to = static_cast<std::size_t>(i);
      original[to] = original[from];
      rotary[to] = rotary[from];
    }
    original.resize(static_cast<std::size_t>(rows.size));
    rotary.resize(static_cast<std::size_t>(rows.size));
    if (kept.renumber) renumber(be, cache, done, rotation);
    place(be);
    return x.top_rows(rows.size);
  }

  std::vector<std::int32_t> original;
  std::vector<std::int32_t> rotary;
  typename B::template buffer<std::int32_t> placed;  // rotary, in the backend's memory
  std::int32_t first;
  std::int32_t end;
  bool renumbered = false;

 private:
  void place(B& be) { be.upload(device_view(), {rotary.data(), std::ssize(rotary)}); }

  // Survivors move to the positions first, first + 1, ...; rotation is additive, so cached keys turn by the
  // rest.
  void renumber(B& be, kv_cache<B>& cache, index done, const key_rotation<B>& rotation) {
    std::vector<std::int32_t> turn(rotary.size());
    for (std::size_t i = 0; i < turn.size(); ++i) {
      const auto position = first + static_cast<std::int32_t>(i);
      turn[i] = position - std::exchange(rotary[i], position);
    }
    const auto rows = std::ssize(turn);
    const auto placed_turn = device_indices(be, {turn.data(), rows});
    for (index i = 0; i <= done; ++i) {
      const auto cached = cache[i].keys();
      const auto last = cached.middle_rows(cached.rows - rows, rows);
      matrix<B> keys(be, rows, last.cols);
      be.load_rows(keys.view(), last);
      be.rotary(keys.view(), placed_turn.view(), rotation.frequencies, rotation.kv_heads);
      be.store_rows(last, keys.view());
    }
    renumbered = true;
  }
};

}  // namespace corematching::detail
