// SPDX-License-Identifier: Apache-2.0
// Any tokenizer.json, and behind a zero byte any text: both are read or refused with corematching::error, in
// time, and what is read makes ids of its own vocabulary, and of these whole UTF-8, at once or one by one.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/tokenizer_json.hpp"
#include "corematching/text/utf8.hpp"

namespace {

using namespace corematching;

void check(bool holds) {
  if (!holds) std::abort();
}

// A refusal is one line that starts with the name of the file.
template <class Body>
void refuse_or(Body&& body) {
  try {
    body();
  } catch (const error& refused) {
    const std::string text = refused.what();
    check(text.starts_with("input: ") && text.find('\n') == std::string::npos);
  }
}

void encode_and_decode(const text::tokenizer& tokens, std::string_view some, text::special_tokens how) {
  const std::vector<text::token_id> ids = tokens.encode(some, how);
  for (const text::token_id id : ids) check(id >= 0 && id < tokens.size());
  check(text::is_whole(tokens.decode(ids)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view file = input.substr(0, input.find('\0'));
  const std::string_view some =
      file.size() < size ? input.substr(file.size() + 1) : "Hello <s>world's 1234\n\xe4\xb8\xad";
  refuse_or([&] {
    const io::json document = io::parse_json(std::as_bytes(std::span(file)), "input");
    const auto tokens = text::read_tokenizer_json({document, "input"}, nullptr);
    refuse_or([&] { encode_and_decode(*tokens, some, text::special_tokens::are_tokens); });
    refuse_or([&] { encode_and_decode(*tokens, some, text::special_tokens::are_text); });
  });
  return 0;
}
