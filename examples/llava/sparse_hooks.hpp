// SPDX-License-Identifier: Apache-2.0
// From the options of a run to what leaves something out, before the decoder and in it: the one place that
// knows which hooks there are.
#pragma once

#include <optional>
#include <utility>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/model/llava/thinning.hpp"
#include "corematching/nn/hook.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// Whether `o` leaves anything out in the decoder.
inline bool is_sparse(const options& o) {
  return o.sparsity.sparse_neurons || o.sparsity.sparse_tokens;
}

/// Whether `o` drops image tokens, before the decoder or in it.
inline bool drops_tokens(const options& o) {
  return o.sparsity.sparse_tokens || o.thin;
}

/// Which image tokens `o` drops before the decoder; nothing: none.
inline std::optional<thinning_config> thinning_of(const options& o) {
  std::optional<thinning_config> how = o.thin;
  if (how) how->seed = o.sparsity.seed;
  return how;
}

/// Rows of a prompt of `tokens` whose feed-forward activations exist at a time: all at once, unless that
/// takes more memory than it is worth; the rule mean_count needs them all.
inline index ffn_rows(const options& o, index tokens) {
  constexpr index worth = 1024;
  const bool whole = is_sparse(o) && o.sparsity.count == core_count::mean_count;
  return whole || tokens < worth ? tokens : worth;
}

/// What one sequence of a model like `config` has to remember of its prompts; nothing where the decoder
/// leaves nothing out. Throws `error` for settings that the model cannot have.
template <selecting_backend B>
std::optional<core_matching<B>> sparsity_of(B& be, const options& o, const llama_config& config) {
  if (!is_sparse(o)) return std::nullopt;
  return core_matching<B>(be, o.sparsity, config.layers, shape_of(config));
}

/// Calls body(hook) with the hook that an answer is decoded with; `state` is null where nothing is left out.
template <selecting_backend B, class Body>
decltype(auto) with_decode_hook(const core_matching<B>* state, Body&& body) {
  if (state != nullptr) return body(typename core_matching<B>::decode_hook(*state));
  return body(no_hook{});
}

}  // namespace corematching::driver
