// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as the body of a request and as its head: accepted, or refused with an api_error of the
// client's fault, whose JSON can be read. What is accepted shows no picture but its own bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>

#include "corematching/io/json.hpp"
#include "llava/serve/access.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_request.hpp"
#include "llava/serve/http_head.hpp"

namespace {

using namespace corematching::driver;

void check(bool holds) {
  if (!holds) std::abort();
}

template <class Body>
void refuse_or(Body&& body) {
  try {
    body();
  } catch (const api_error& refused) {
    check(refused.status() >= 400 && refused.status() < 500);
    check(corematching::io::json::accept(error_json(refused)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  refuse_or([&] {
    static const answering_model model{
        .name = "m", .sees_pictures = true, .context = 64, .weights = "", .computed_by = ""};
    static const options base = [] {
      options o;
      o.messages = "messages";
      return o;
    }();
    const chat_request request = parse_chat_request(text, {base, model, 4});
    check(!request.asked.messages.empty() && request.asked.how.max_new_tokens > 0);
    request.asked.how.sampling.validate();
    for (const auto& message : request.asked.messages)
      for (const auto& part : message.content)
        if (const auto* shown = std::get_if<corematching::chat::picture>(&part))
          check(shown->path.empty() && !shown->bytes.empty());
  });
  refuse_or([&] {
    const http_head head = parse_head(text);
    check(head.path.starts_with('/') && !(head.is_chunked && head.length));
    check_host(head, {});
    check_key(head, {.api_key = "key"});
  });
  return 0;
}
