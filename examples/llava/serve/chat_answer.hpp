// SPDX-License-Identifier: Apache-2.0
// Answers in the form of OpenAI's API (reference, "The chat completion object" and "The chat completion chunk
// object"), with one field more, "core_matching": what was left out, and where the time went.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llava/serve/answering.hpp"

namespace corematching::driver {

/// What all chunks of an answer have in common.
struct answer_heading {
  std::string id;
  std::int64_t created = 0;  // in seconds since 1970
  std::string model;
  bool with_logprobs = false;
  bool includes_usage = false;  // every chunk has the field, and the last one a value
  bool with_scores = false;     // of image tokens at matching layers
};

/// Seconds that the server measures itself; the rest is in the report.
struct answer_times {
  double asking = 0;       // decoding pictures and making the prompt
  double waiting = 0;      // in the queue
  double first_token = 0;  // from the whole request to the first piece of the answer
  double total = 0;
};

/// A heading with an id that nobody has had, at this time.
answer_heading new_heading(const answering_model& model);

/// The whole answer, of which `tokens` are all that were said.
std::string whole_answer(const answer_heading& heading, const answer_complete& end,
                         const std::vector<said_token>& tokens, const answer_times& times);

/// What a stream begins with: who speaks.
std::string first_chunk(const answer_heading& heading);
std::string text_chunk(const answer_heading& heading, const answer_piece& piece);
/// Why the answer ended, with "core_matching".
std::string last_chunk(const answer_heading& heading, const answer_complete& end, const answer_times& times);
std::string usage_chunk(const answer_heading& heading, const answer_complete& end);

/// A server-sent event (HTML standard, 9.2) of one line of data.
inline std::string event_of(std::string_view data) {
  return std::string("data: ").append(data).append("\n\n");
}

}  // namespace corematching::driver
