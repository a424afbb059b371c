// SPDX-License-Identifier: Apache-2.0
// From the options of a run to the hooks that leave something out: the one place that knows which there are.
#pragma once

#include <optional>
#include <utility>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/nn/hook.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// Whether `o` leaves anything out.
inline bool is_sparse(const options& o) {
  return o.sparsity.sparse_neurons || o.sparsity.sparse_tokens;
}

/// Rows of a prompt of `tokens` whose feed-forward activations exist at a time: all at once, unless that
/// takes more memory than it is worth; the rule mean_count needs them all.
inline index ffn_rows(const options& o, index tokens) {
  constexpr index worth = 1024;
  const bool whole = is_sparse(o) && o.sparsity.count == core_count::mean_count;
  return whole || tokens < worth ? tokens : worth;
}

/// What one sequence of a model like `config` has to remember of its prompts; nothing for a dense run. Throws
/// `error` for settings that the model cannot have.
template <selecting_backend B>
std::optional<core_matching<B>> sparsity_of(B& be, const options& o, const llama_config& config) {
  if (!is_sparse(o)) return std::nullopt;
  return core_matching<B>(be, o.sparsity, config.layers, shape_of(config));
}

/// Calls body(hook) with the hook that an answer is decoded with; `state` is null for a dense run.
template <selecting_backend B, class Body>
decltype(auto) with_decode_hook(const core_matching<B>* state, Body&& body) {
  if (state != nullptr) return body(typename core_matching<B>::decode_hook(*state));
  return body(no_hook{});
}

}  // namespace corematching::driver
