// SPDX-License-Identifier: Apache-2.0
// From the body of POST /v1/chat/completions (OpenAI API reference, "Create chat completion") to a question.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string_view>

#include "llava/options.hpp"
#include "llava/serve/answering.hpp"

namespace corematching::driver {

struct chat_request {
  question asked;
  bool is_streamed = false;
  bool includes_usage = false;  // as a chunk of its own
};

/// What a request changes, and what it may ask for.
struct request_rules {
  const options& base;
  const answering_model& model;
  std::size_t most_pictures = 16;
  std::optional<std::filesystem::path> files =
      {};  // where names of pictures' files begin; nothing: none is read
};

/// Reads `body`. Fields that there are not are passed over, as the
/// API does; those that it has and this server has not are refused by name unless they ask for nothing.
/// Pictures are data: URLs alone, so that nobody reads files of this machine or has it fetch anything. Throws
/// `api_error` that names the field at fault.
chat_request parse_chat_request(std::string_view body, const request_rules& rules);

}  // namespace corematching::driver
