// SPDX-License-Identifier: Apache-2.0
// A question that has been taken: checked against the model, its prompt made, its pictures decoded.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/picture.hpp"
#include "llava/options.hpp"
#include "llava/request.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/engine_limits.hpp"

namespace corematching::driver {

struct taken_question {
  options how;
  bool with_logprobs = false;
  index top_logprobs = 0;
  multimodal_prompt prompt;
  std::vector<picture> seen = {};  // what the model sees of the pictures
  index context = 0;               // positions that prompt and answer may use
  index max_new_tokens = 0;        // that there is room for
  std::uint64_t cache_bytes = 0;   // of keys and values that it may need at most
  std::shared_ptr<answer_stream> stream = std::make_shared<answer_stream>();
  std::chrono::steady_clock::time_point taken_at = std::chrono::steady_clock::now();

  /// Positions of the prompt's text in front of its first picture; 0 where there is no picture.
  index text_before_pictures() const;
  /// Of the first token of each picture.
  std::vector<index> picture_positions() const;
};

/// Takes `asked` for the model that `r` describes, whose keys and values are stored as `cache_type`. Throws
/// `question_refused` for what the model cannot be asked, or not within `limits`, before pictures are decoded
/// where that does not need them; and what `asked.go_on` throws.
taken_question take_question(question asked, const request& r, dtype cache_type, const engine_limits& limits);

}  // namespace corematching::driver
