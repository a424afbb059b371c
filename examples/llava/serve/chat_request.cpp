// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/chat_request.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/message_list.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "llava/picture_file.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/core_matching_field.hpp"

namespace corematching::driver {
namespace {

constexpr const char* body_name = "request";
constexpr index most_tokens = index{1} << 30;

[[noreturn]] void refuse_value(const std::string& param, const std::string& text) {
  throw api_error(400, "invalid_value", param + ": " + text, param);
}

/// Refuses, as the fault of `param`, whatever `read` does.
template <class Read>
auto read_field(const std::string& param, Read read) {
  try {
    return read();
  } catch (const error& problem) {
    throw api_error(400, "invalid_value", problem.what(), param);
  }
}

/// A list of millions of numbers is a few bytes each in a body, and many more when it is parsed.
void require_few_values(std::string_view body) {
  constexpr std::size_t most = 100'000;
  std::size_t separators = 0;
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (body[i] == '"')
      for (++i; i < body.size() && body[i] != '"'; ++i) i += body[i] == '\\' ? 1 : 0;
    else if (body[i] == ',' || body[i] == '[' || body[i] == '{')
      ++separators;
  }
  if (separators > most)
    throw api_error(400, "invalid_json", "the body has more than " + std::to_string(most) + " values");
}

io::json parsed_body(std::string_view body) {
  require_few_values(body);
  try {
    io::json parsed = io::parse_json(std::as_bytes(std::span(body)), body_name);
    require(parsed.is_object(), body_name, ": expected a JSON object");
    return parsed;
  } catch (const error& problem) {
    throw api_error(400, "invalid_json", problem.what());
  }
}

/// Fields of the API that are not computed here, and when they ask for nothing.
void refuse_what_is_not_here(const io::json& body) {
  using given = io::json;
  const auto is_empty = [](const given& value) { return value.is_structured() && value.empty(); };
  const auto is_zero = [](const given& value) { return value.is_number() && value.get<double>() == 0; };
  const auto never = [](const given&) { return false; };
  const std::pair<const char*, std::function<bool(const given&)>> fields[] = {
      {"tools", is_empty},
      {"tool_choice", [](const given& value) { return value == "none" || value == "auto"; }},
      {"functions", is_empty},
      {"function_call", [](const given& value) { return value == "none" || value == "auto"; }},
      {"response_format",
       [](const given& value) {
         return value == given{{"type", "text"}};
       }},
      {"n", [](const given& value) { return value == 1; }},
      {"logit_bias", is_empty},
      {"frequency_penalty", is_zero},
      {"presence_penalty", is_zero},
      {"modalities", [](const given& value) { return value == given::array({"text"}); }},
      {"audio", never},
      {"prediction", never},
      {"web_search_options", never}};
  for (const auto& [name, asks_for_nothing] : fields) {
    const auto found = body.find(name);
    if (found == body.end() || found->is_null() || asks_for_nothing(*found)) continue;
    const std::string text =
        std::string(name) == "n" ? ": one answer is given to a request" : ": is not supported here";
    throw api_error(400, "unsupported_parameter", name + text, name);
  }
}

/// The picture of a file that the rules let be read, or the picture as it is.
void take_picture(chat::picture& shown, const std::string& place, const request_rules& rules) {
  if (shown.path.empty()) return;
  if (!rules.files)
    refuse_value(place, io::in_quotes(shown.path) + " is not read: pictures are data: URLs here");
  read_field(place, [&] {
    const auto file = io::mapped_file::open(*rules.files / shown.path);
    require(file.bytes().size() <= max_picture_bytes, file.path().string(), ": is longer than ",
            max_picture_bytes, " bytes");
    shown = {.path = {}, .bytes = {file.bytes().begin(), file.bytes().end()}};
  });
}

void require_few_pictures(const std::vector<chat::message>& messages, std::size_t most) {
  std::ptrdiff_t pictures = 0;
  for (const chat::message& message : messages)
    pictures += std::ranges::count_if(
        message.content, [](const chat::part& part) { return std::holds_alternative<chat::picture>(part); });
  if (static_cast<std::size_t>(pictures) > most)
    throw api_error(413, "too_many_pictures",
                    "messages: " + std::to_string(pictures) + " pictures are more than the limit of " +
                        std::to_string(most),
                    "messages");
}

/// Makes every picture that is shown one of bytes; refuses those that there are not.
void take_pictures(std::vector<chat::message>& messages, const request_rules& rules) {
  require_few_pictures(messages, rules.most_pictures);
  for (std::size_t m = 0; m < messages.size(); ++m)
    for (std::size_t p = 0; p < messages[m].content.size(); ++p) {
      auto* shown = std::get_if<chat::picture>(&messages[m].content[p]);
      if (shown == nullptr) continue;
      const std::string place = "messages[" + std::to_string(m) + "].content[" + std::to_string(p) + "]";
      take_picture(*shown, place, rules);
      if (shown->bytes.empty()) refuse_value(place, "shows a picture and gives none");
      if (!rules.model.sees_pictures) refuse_value(place, rules.model.name + " cannot look at pictures");
    }
}

std::vector<chat::message> messages_of_request(io::json& body, const request_rules& rules) {
  const auto list = body.find("messages");
  if (list == body.end() || list->is_null()) refuse_value("messages", "is missing");
  if (list->is_array())  // what is told by the developer is what the system is told
    for (io::json& message : *list)
      if (message.is_object() && message.contains("role") && message["role"] == "developer")
        message["role"] = "system";
  auto messages = read_field("messages", [&] { return chat::parse_messages(*list, body_name); });
  const chat::message& last = messages.back();
  if (last.from != chat::role::user)
    refuse_value("messages", "the last one is the " + std::string(chat::name_of(last.from)) +
                                 "'s, expected a question of the user's");
  if (last.content.empty()) refuse_value("messages", "the last one is empty: nothing is asked");
  take_pictures(messages, rules);
  return messages;
}

std::vector<std::string> stops_of_request(const io::json_object& in) {
  constexpr std::size_t most = 4;        // as many as the API takes
  constexpr std::size_t longest = 1024;  // bytes, which are kept for as long as the question is
  const io::json* value = in.find("stop");
  if (value == nullptr || value->is_null()) return {};
  std::vector<std::string> stops;
  for (const io::json& stop : value->is_array() ? *value : io::json::array({*value})) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().empty())
      refuse_value("stop", "expected a text that is not empty, or a list of such");
    if (stop.get_ref<const std::string&>().size() > longest)
      refuse_value("stop", "one is longer than " + std::to_string(longest) + " bytes");
    stops.push_back(stop.get<std::string>());
  }
  if (stops.size() > most) refuse_value("stop", "there are more than " + std::to_string(most));
  return stops;
}

/// Without a seed each request draws otherwise, as with the API.
std::uint64_t seed_of(const io::json_object& in) {
  if (!in.has("seed")) return (std::uint64_t{std::random_device{}()} << 32) | std::random_device{}();
  return static_cast<std::uint64_t>(
      read_field("seed", [&] { return in.integer("seed", INT64_MIN, INT64_MAX); }));
}

void read_sampling(const io::json_object& in, options& how) {
  how.sampling.temperature =
      read_field("temperature", [&] { return in.number_or("temperature", how.sampling.temperature, 0, 2); });
  how.sampling.top_p = read_field("top_p", [&] { return in.number_or("top_p", how.sampling.top_p, 0, 1); });
  if (how.sampling.top_p == 0) refuse_value("top_p", "is 0, expected more");
  how.sampling.seed = seed_of(in);
  for (const char* name : {"max_tokens", "max_completion_tokens"})  // the second, which is newer, counts
    how.max_new_tokens = read_field(
        name, [&] { return static_cast<index>(in.integer_or(name, how.max_new_tokens, 1, most_tokens)); });
  auto stops = stops_of_request(in);
  how.stops.insert(how.stops.end(), stops.begin(), stops.end());
}

void read_logprobs(const io::json_object& in, question& asked) {
  constexpr std::int64_t most = 20;  // as many as the API gives
  asked.with_logprobs = read_field("logprobs", [&] { return in.boolean_or("logprobs", false); });
  asked.top_logprobs = static_cast<index>(
      read_field("top_logprobs", [&] { return in.integer_or("top_logprobs", 0, 0, most); }));
  if (asked.top_logprobs > 0 && !asked.with_logprobs)
    refuse_value("top_logprobs", "is not read without \"logprobs\": true");
}

void read_streaming(const io::json_object& in, chat_request& request) {
  request.is_streamed = read_field("stream", [&] { return in.boolean_or("stream", false); });
  if (!in.has("stream_options")) return;
  if (!request.is_streamed) refuse_value("stream_options", "is not read without \"stream\": true");
  request.includes_usage = read_field(
      "stream_options", [&] { return in.object("stream_options").boolean_or("include_usage", false); });
}

void check_model(const io::json_object& in, const answering_model& model) {
  const std::string name = read_field("model", [&] { return in.string_or("model", model.name); });
  if (name != model.name)
    throw api_error(404, "model_not_found",
                    "the model " + io::in_quotes(name) + " is not here; " + io::in_quotes(model.name) + " is",
                    "model");
}

}  // namespace

chat_request parse_chat_request(std::string_view text, const request_rules& rules) {
  io::json body = parsed_body(text);
  const io::json_object in(body, body_name);
  check_model(in, rules.model);
  refuse_what_is_not_here(body);
  chat_request request;
  const io::json* sparsity = in.find("core_matching");
  const bool says_sparsity = sparsity != nullptr && !sparsity->is_null();
  request.asked.how = says_sparsity ? with_core_matching(rules.base, *sparsity) : rules.base;
  request.asked.with_scores = says_sparsity && wants_scores(*sparsity);
  read_sampling(in, request.asked.how);
  read_logprobs(in, request.asked);
  read_streaming(in, request);
  request.asked.messages = messages_of_request(body, rules);
  return request;
}

}  // namespace corematching::driver
