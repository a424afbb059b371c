// SPDX-License-Identifier: Apache-2.0
// What is measured: prompts, and the tokens behind each that a model has to foretell.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "corematching/chat/message.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "llava/measure/options.hpp"
#include "llava/request.hpp"

namespace corematching::driver {

/// One sequence.
struct scored_item {
  std::string name;                      // where it stands: "notes.txt: chunk 3", "asked.jsonl: line 7"
  multimodal_prompt prompt;              // image tokens expanded
  std::vector<std::int32_t> scored;      // ids behind it, at least one
  std::optional<chat::picture> picture;  // that the prompt shows
};

/// How a text becomes sequences.
struct chunking {
  index tokens;                           // of a chunk
  index prompt_tokens;                    // of these the first, which are not scored
  std::optional<index> most_tokens = {};  // to score in all
};

/// The whole chunks of a text's `ids`, each behind `prefix`, which is a part of its prompt; where there may
/// not be so many, as many as there may be, spread evenly. Throws `error` where there is none.
std::vector<scored_item> text_chunks(std::span<const std::int32_t> ids, std::span<const std::int32_t> prefix,
                                     const chunking& how);

/// The chunks of the file --text. Throws `error` for one that the model cannot read or that is too short.
std::vector<scored_item> read_text_chunks(const measure_options& o, const request& model);

/// The lines of the file --questions. Throws `error`, naming file and line, for the first that is no question
/// with an answer, that does not fit the context which every configuration leaves, or whose picture cannot
/// be read; `report(done, total)` hears how many bytes of the file have been read.
std::vector<scored_item> read_questions(const measure_options& o, request& model,
                                        const std::function<void(double done, double total)>& report);

}  // namespace corematching::driver
