// SPDX-License-Identifier: Apache-2.0
// Whether the embedding and the head of a language model are one matrix. config.json says how the model was
// built (tie_word_embeddings), but what counts is what is stored: two matrices that differ are two, and one
// alone stands for the other.
// Source: transformers 5, modeling_utils.py, PreTrainedModel.tie_weights.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "corematching/io/safetensors.hpp"
#include "corematching/model/llama/config.hpp"

namespace corematching {

/// The names of both among the tensors of a checkpoint or of a packed file.
struct word_embeddings {
  std::string embedding;
  std::string head;    // the embedding's where they are one
  std::string notice;  // what to tell whoever loads the model: config.json says otherwise; mostly empty

  bool tied() const { return embedding == head; }
};

/// The first of `candidates` under which there is a tensor `candidate + probe`; the last of them if there is
/// none, so that the error about the missing tensor names it.
inline std::string tensor_prefix(const io::checkpoint& from,
                                 std::initializer_list<std::string_view> candidates, std::string_view probe) {
  std::string found;
  for (const std::string_view candidate : candidates) {
    found = candidate;
    if (from.contains(std::string(candidate).append(probe))) break;
  }
  return found;
}

/// What the names of a language model's tensors begin with in a checkpoint.
inline std::string language_prefix(const io::checkpoint& from) {
  return tensor_prefix(from, {"language_model.model.", "model.language_model.", "model."}, "norm.weight");
}

/// Embedding and head of the language model in `from`. Where a tensor is missing that nothing stands for, its
/// name is returned all the same: reading it says what is wrong.
inline word_embeddings stored_word_embeddings(const llama_config& config, const io::checkpoint& from) {
  constexpr std::string_view lm_head = "lm_head.weight";
  word_embeddings named{language_prefix(from) + "embed_tokens.weight",
                        tensor_prefix(from, {"language_model.", ""}, lm_head).append(lm_head), ""};
  const io::tensor* embedding = from.find(named.embedding);
  const io::tensor* head = from.find(named.head);
  const std::string said = config.tie_word_embeddings ? "true" : "false";
  const auto notice = [&](const std::string& what) {
    named.notice = from.path().string() + ": tie_word_embeddings is " + said + " in config.json, but " + what;
  };
  if (embedding != nullptr && head != nullptr) {
    if (!config.tie_word_embeddings) return named;
    const bool same = embedding->type == head->type && embedding->shape == head->shape &&
                      std::ranges::equal(embedding->bytes, head->bytes);
    if (same)
      named.head = named.embedding;
    else
      notice(named.embedding + " and " + named.head + " are both stored and differ, so they are not tied");
    return named;
  }
  if (embedding == nullptr && head == nullptr) return named;
  std::string& missing = embedding == nullptr ? named.embedding : named.head;
  const std::string stored = embedding == nullptr ? named.head : named.embedding;
  if (!config.tie_word_embeddings) notice(missing + " is not stored, so " + stored + " stands for it");
  missing = stored;
  return named;
}

}  // namespace corematching
