// SPDX-License-Identifier: Apache-2.0
// The decoder of a tokenizer.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "corematching/text/decoder.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/pre_tokenizer_json.hpp"

namespace corematching::text::detail {

/// `fused` is set once all tokens are one.
inline void append_decoder(std::vector<decode::step>& steps, const json_part& part, bool& fused) {
  constexpr std::int64_t most_stripped = 1 << 20;
  const std::string type = part.type();
  if (type == "Sequence") {
    part.for_each("decoders", [&](const json_part& inner) { append_decoder(steps, inner, fused); });
    return;
  }
  if (type == "Fuse") {
    fused = true;
    return;
  }
  if (type == "Strip") {
    const auto count = [&](const char* key) {
      return static_cast<std::size_t>(part.fields().integer(key, 0, most_stripped));
    };
    steps.push_back(decode::strip{part.read_character("content"), count("start"), count("stop"), fused});
    return;
  }
  // These look at tokens, and text that is shown while it is made has none any more.
  require(!fused, part.where(), ": the decoder ", io::in_quotes(type),
          " behind one that joins all tokens is not ", "supported");
  if (type == "ByteLevel") {
    steps.push_back(decode::byte_level{});
    fused = true;
  } else if (type == "Metaspace") {
    steps.push_back(decode::metaspace{part.read_character("replacement"),
                                      read_prepend_scheme(part) != cut::prepend_scheme::never});
  } else if (type == "Replace") {
    steps.push_back(decode::replace{part.read_pattern("pattern"), part.text("content")});
  } else if (type == "ByteFallback") {
    steps.push_back(decode::byte_fallback{});
  } else {
    part.refuse_type("decoder");
  }
}

/// `document` is the whole file.
inline std::vector<decode::step> read_decoder(const json_part& document) {
  std::vector<decode::step> steps;
  bool fused = false;
  if (document.has("decoder"))
    append_decoder(steps, document.part("decoder"), fused);
  else
    steps.push_back(decode::spaced{});
  return steps;
}

}  // namespace corematching::text::detail
