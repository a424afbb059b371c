// SPDX-License-Identifier: Apache-2.0
// What a chat format makes of messages: pieces that say how a tokenizer has to take them.
//
// Neighbouring pieces of markup and text are one text to the tokenizer, whose tokens may reach over the seam;
// the seam only says where special tokens are looked for: in markup, and never in what a user wrote.
#pragma once

#include <span>
#include <string>

namespace corematching::chat {

enum class segment_kind {
  markup,   // the format's own text; names of special tokens in it are those tokens
  text,     // a message's text; names of special tokens in it are text
  picture,  // the place of the next picture
  bos,      // the tokenizer's first token, whatever its name
  eos,      // the tokenizer's last token
  prefix,   // what the tokenizer puts in front of any text: the first token, or nothing
};

struct segment {
  segment_kind kind = segment_kind::markup;
  std::string text{};  // of markup and text

  bool operator==(const segment&) const = default;
};

/// What stands for the segments that have no text of their own.
struct segment_names {
  std::string bos = "<s>";
  std::string eos = "</s>";
  std::string picture = "<image>";
  std::string prefix{};
};

/// All segments as one text, as templates render it: for people and for tests. Not for tokenizers, to whom a
/// user's text could then name special tokens.
inline std::string to_text(std::span<const segment> segments, const segment_names& names = {}) {
  std::string all;
  for (const segment& piece : segments) {
    switch (piece.kind) {
      case segment_kind::markup:
      case segment_kind::text: all += piece.text; break;
      case segment_kind::picture: all += names.picture; break;
      case segment_kind::bos: all += names.bos; break;
      case segment_kind::eos: all += names.eos; break;
      case segment_kind::prefix: all += names.prefix; break;
    }
  }
  return all;
}

}  // namespace corematching::chat
