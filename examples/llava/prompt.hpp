// SPDX-License-Identifier: Apache-2.0
// From a question to the token ids of a prompt. LLaVA-1.5 is asked as it was trained, in Vicuna's
// conversation format:
//
//   [{system} ]USER: <image>\n{question} ASSISTANT:
//
// Any other model gets the text as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/text/tokenizer.hpp"

namespace corematching::driver {

/// Where the picture stands in a prompt; everything else of a text is data and cannot become the picture.
inline constexpr std::string_view image_marker = "<image>";

enum class prompt_format { vicuna, plain };

struct prompt_request {
  std::string question{};
  std::string system{};  // put in front, may be empty
  prompt_format format = prompt_format::vicuna;
  bool has_image = false;
  std::int32_t image_token = -1;  // the id that stands for the picture
};

struct prompt_ids {
  std::vector<std::int32_t> ids;
  std::ptrdiff_t image_position = -1;  // of the image token in ids, or -1
};

/// The text of the prompt, with `<image>` where the picture stands: in the question where that names the
/// place, else in front of it. Throws on an empty question, on more than one `<image>` and on one without a
/// picture.
std::string prompt_text(const prompt_request& request);

/// The prompt's ids, the tokenizer's prefix included. Special tokens in the texts are text, for they come
/// from whoever asks. Throws as `prompt_text` and where a picture has no image token.
prompt_ids encode_prompt(const text::tokenizer& source, const prompt_request& request);

/// The ids of a whole prompt as a model reads it: special tokens in the text are tokens, nothing is put
/// around it, and `<image>` stands for the picture. Throws on an empty text and as `encode_prompt` about the
/// picture.
prompt_ids encode_raw_prompt(const text::tokenizer& source, const std::string& text,
                             std::int32_t image_token);

/// Ids from a list such as "1, 3148,1001". Throws on anything but non-negative integers that fit.
std::vector<std::int32_t> parse_ids(std::string_view list);

}  // namespace corematching::driver
