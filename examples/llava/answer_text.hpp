// SPDX-License-Identifier: Apache-2.0
// The text of an answer while its tokens come one by one, up to what ends it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "corematching/text/stop_strings.hpp"
#include "corematching/text/tokenizer.hpp"

namespace corematching::driver {

class answer_text {
 public:
  /// `words` is null for a model without a tokenizer, whose answers have no text; otherwise it must stay.
  answer_text(const text::tokenizer* words, std::vector<std::string> stops)
      : stops_(std::move(stops)), text_(words != nullptr ? words->detokenize() : nullptr) {}

  /// What can be shown now that `id` has come, in whole characters.
  std::string push(std::int32_t id) { return text_ ? stops_.push(text_->push(id)) : std::string(); }
  /// The text so far, to which a next token adds; null without a tokenizer.
  const text::detokenizer* tokens() const { return text_.get(); }
  /// Whether a text that ends the answer has come.
  bool ended() const { return stops_.found(); }
  /// What the end of the answer leaves to be shown.
  std::string finish() {
    if (!text_) return {};
    std::string rest = stops_.push(text_->finish());
    return rest + stops_.finish();
  }

 private:
  text::stop_strings stops_;
  std::unique_ptr<text::detokenizer> text_;
};

}  // namespace corematching::driver
