// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as a GGUF file: its metadata, and the vocabulary in them if there is one, are accepted or
// refused with corematching::error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/gguf_metadata.hpp"
#include "corematching/text/gguf_tokenizer.hpp"

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace corematching;
  try {
    const auto metadata = io::gguf_metadata::parse(std::as_bytes(std::span(data, size)), "input");
    check(metadata.end() <= size);
    const auto tokens = text::read_gguf_tokenizer(metadata);
    for (const auto id :
         tokens->encode("Hello <s> world's 1234\n\xe4\xb8\xad", text::special_tokens::are_tokens))
      check(id >= 0 && id < tokens->size());
  } catch (const error& refused) {
    const std::string text = refused.what();
    check(text.starts_with("input: ") && text.find('\n') == std::string::npos);
  }
  return 0;
}
