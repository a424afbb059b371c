// SPDX-License-Identifier: Apache-2.0
// What a report says of a model, of a prompt and of a sequence, whoever runs them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "corematching/model/llama/cost.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "llava/loaded_model.hpp"
#include "llava/options.hpp"
#include "llava/presets.hpp"
#include "llava/report.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {

/// What is the same of every answer of a model under these options.
template <backend B>
void report_model(run_report& report, B& be, const llama<B>& language, const options& o, bool has_text) {
  const llama_config& config = language.config();
  report.layers = config.layers;
  report.all_neurons = config.intermediate_size;
  report.weights = weights_label(o, language.weight_type());
  report.computed_by = be.describe();
  report.has_text = has_text;
  report.policy = policy_name(o);
  report.statistic = statistic_name(o);
  report.betas = betas_of(o, config.layers);
  report.is_streamed = o.weights.memory_limit.has_value();
}

/// What a prompt is, of a model with room for `context` positions.
inline void report_prompt(run_report& report, const multimodal_prompt& prompt, index context) {
  report.prompt_tokens = prompt.size();
  report.image_tokens = prompt.image_tokens();
  report.image_position = std::ranges::find(prompt.kinds, token_kind::image) - prompt.kinds.begin();
  report.context = context;
}

/// Bytes and costs of a sequence that has read `read` tokens as prompts and decoded the report's steps,
/// beside those of a dense one.
template <backend B>
void report_costs(run_report& report, const llama<B>& language, const sequence<B>& seq, dtype cache_type,
                  index read) {
  const auto steps = static_cast<std::uint64_t>(report.decode_steps);
  report.kv_bytes = seq.cache.bytes();
  report.held_weight_bytes = language.held_weight_bytes();
  const llama_config& config = language.config();
  const std::uint64_t row = 2 * stored_bytes(cache_type, 1, config.kv_heads * config.head_dim);
  report.dense_kv_bytes = row * static_cast<std::uint64_t>(report.layers * (read + report.decode_steps));
  for (index step = 0; step < report.decode_steps; ++step)
    report.dense_decode += forward_cost(language, dense_loads(config, read + step, 1), cache_type);
  report.dense_ffn_bytes = report.dense_decode.weight_bytes - steps * bytes_beside_ffn(language);
  report.peak_memory_bytes = peak_memory();
}

/// What was left out; `sparsity` is null for a dense run.
template <sparse_backend B>
void report_decisions(run_report& report, const sparse_state<B>* sparsity) {
  for (index layer = 0; layer < report.layers; ++layer)
    report.neurons.push_back(sparsity != nullptr ? sparsity->neurons_of_token(layer) : report.all_neurons);
  if (sparsity == nullptr) return;
  report.chooses_for_each_token = sparsity->chooses_for_each_token();
  report.matches = sparsity->matching().matches();
  report.silent_layers = sparsity->matching().silent_layers();
}

/// What ended an answer that had room for `room` tokens, as run_report::finished names it.
inline const char* finished_by(bool by_itself, index room, index max_new_tokens) {
  if (by_itself) return "stop";
  return room < max_new_tokens ? "context" : "length";
}

}  // namespace corematching::driver
