// SPDX-License-Identifier: Apache-2.0
// What the authors' released code does otherwise than their papers, for comparison with it; each is an option
// of core_matching_config, and none is a default.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/hooks/prompt_tokens.hpp"
#include "corematching/nn/hook.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching::detail {

/// core_count::mean_count, CoreInfer's: k is the same for all tokens, from the mean of their |Γ(x)|, so the
/// `rows` that are counted must be all that are alive.
inline void require_whole_prompt(core_count count, index rows, index alive) {
  require(count != core_count::mean_count || rows == alive,
          "core_count::mean_count needs the whole prompt in one call: scratch.ffn_rows() must be at least ",
          alive);
}

/// reference_set::anchor: the neurons of an image token are matched with Γ of one text token, in place of the
/// core neurons of the sentence. Throws `error` unless the anchor is a text token of the prompt, where there
/// are image tokens to match with it.
inline void check_anchor(const core_matching_config& config, const prompt_tokens& tokens) {
  if (!config.is_matched_with(reference_set::anchor) || !tokens.has(token_kind::image)) return;
  const index place = tokens.place(config.anchor);
  require(place >= 0 && place < tokens.size(), "anchor token ", config.anchor, " lies outside the prompt of ",
          tokens.size(), " tokens");
  require(tokens.kind_at(place) == token_kind::text, "anchor token ", config.anchor,
          " is an image token; it must be text");
}

/// The row at which the anchor stands among those that are alive at `positions`.
inline index anchor_row(const core_matching_config& config, const prompt_tokens& tokens,
                        index_view<> positions) {
  const std::int32_t position = tokens.position_of(tokens.place(config.anchor));
  return std::ranges::lower_bound(positions, position) - positions.begin();
}

/// pruning_mode::zero_in_place: keys and values of the rows that are not among `kept`, ascending, become zero
/// in this layer and stay.
template <selecting_backend B>
void zero_dropped(const layer_context<B>& at, const std::vector<std::int32_t>& kept) {
  const index rows = at.positions.size, first = at.cache.length() - rows;
  std::vector<std::int32_t> dropped;
  for (index row = 0; row < rows; ++row)
    if (!std::ranges::binary_search(kept, row)) dropped.push_back(static_cast<std::int32_t>(row));
  const auto placed = device_indices(at.be, {dropped.data(), std::ssize(dropped)});
  at.be.zero_rows(at.cache.keys().middle_rows(first, rows), placed.view());
  at.be.zero_rows(at.cache.values().middle_rows(first, rows), placed.view());
}

}  // namespace corematching::detail
