// SPDX-License-Identifier: Apache-2.0
// Sums of magnitudes over the tokens of a sequence's prompts that count, for every neuron of every layer. A
// policy that ranks neurons by their mean magnitude ranks them by these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/hooks/prompt_tokens.hpp"
#include "corematching/nn/scratch.hpp"
#include "corematching/nn/site.hpp"
#include "corematching/nn/token_kind.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

/// Of one backend, thread count and chunking, sums have the same bits in every run; in others they are
/// rounded elsewhere.
template <choosing_backend B>
class magnitude_sums {
 public:
  using space = typename B::space;

  /// All zero. `counted`: the kind of the tokens that count; nothing: all.
  magnitude_sums(B& be, index layers, index neurons, std::optional<token_kind> counted) : counted_(counted) {
    const std::vector<float> zeros(static_cast<std::size_t>(neurons), 0.0f);
    for (index layer = 0; layer < layers; ++layer) {
      sums_.push_back(be.template allocate<float>(neurons));
      be.upload(sums_.back().view(), {zeros.data(), neurons});
    }
  }

  /// Announces a prompt, as core_matching::begin_prompt does. Throws `error` where the first one has no token
  /// that counts.
  void begin_prompt(std::int32_t first_position, std::span<const token_kind> kinds) {
    prompt_tokens tokens(first_position, kinds);
    require(tokens.size() > 0, "the prompt is empty");
    if (counted_ && tokens_.size() == 0)
      require(tokens.has(*counted_), "magnitudes are summed over ",
              *counted_ == token_kind::text ? "text" : "image", " tokens, but the prompt has none");
    tokens_ = std::move(tokens);
  }

  /// Adds the rows of `values` [T, N], which are those from at.first_row on.
  void add(const layer_context<B>& at, matrix_view<const float, space> values) {
    const auto sums = sums_[static_cast<std::size_t>(at.layer)].view();
    if (!counted_) return at.be.add_magnitudes(sums, values, {});
    const std::vector<std::int32_t> rows =
        tokens_.rows_of(*counted_, {at.positions.data + at.first_row, values.rows});
    const auto placed = device_indices(at.be, {rows.data(), std::ssize(rows)});
    at.be.add_magnitudes(sums, values, index_view<space>(placed.view()));
  }

  vector_view<const float, space> of(index layer) const {
    return sums_[static_cast<std::size_t>(layer)].view();
  }

 private:
  std::optional<token_kind> counted_;
  prompt_tokens tokens_;                                  // of the current prompt
  std::vector<typename B::template buffer<float>> sums_;  // of each layer
};

}  // namespace corematching
