// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/http_head.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "llava/serve/api_error.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view line_end = "\r\n";

[[noreturn]] void refuse_head(const std::string& text) {
  throw api_error(400, "bad_request", "the head of the request is malformed: " + text);
}

char lower_case_of(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// "tchar" of RFC 9110, 5.6.2.
bool is_token_char(char c) {
  const bool is_letter = lower_case_of(c) >= 'a' && lower_case_of(c) <= 'z';
  return is_letter || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_token_char);
}

std::string_view without_blanks(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

void read_request_line(std::string_view line, http_head& head) {
  const auto behind_method = line.find(' ');
  const auto behind_target = line.rfind(' ');
  if (behind_method == line.npos || behind_method == behind_target)
    refuse_head("its first line is no method, target and version");
  head.method = line.substr(0, behind_method);
  const std::string_view target = line.substr(behind_method + 1, behind_target - behind_method - 1);
  const std::string_view version = line.substr(behind_target + 1);
  if (!is_token(head.method)) refuse_head("its method is none");
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    refuse_head("its version is neither HTTP/1.1 nor HTTP/1.0");
  head.is_old = version == "HTTP/1.0";
  const bool is_plain = std::ranges::all_of(target, [](char c) { return c > ' ' && c < 0x7f; });
  if (!target.starts_with('/') || !is_plain) refuse_head("its target is no path");
  head.path = target.substr(0, target.find('?'));
}

void read_field(std::string_view line, http_head& head) {
  const auto colon = line.find(':');
  if (colon == line.npos || !is_token(line.substr(0, colon))) refuse_head("a line is no field");
  const std::string_view value = without_blanks(line.substr(colon + 1));
  const auto is_control = [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f; };
  if (std::ranges::any_of(value, is_control)) refuse_head("a field has a control character");
  head.fields.emplace_back(lower_case(line.substr(0, colon)), value);
}

std::uint64_t body_length(std::string_view value) {
  std::uint64_t length = 0;
  const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), length);
  if (problem != std::errc() || end != value.data() + value.size())
    refuse_head("Content-Length is no number");
  return length;
}

/// What the fields say about the body and the connection.
void understand_fields(http_head& head) {
  head.stays = !head.is_old;
  for (const auto& [name, value] : head.fields) {
    if (name == "content-length") {
      if (head.length) refuse_head("there are two fields Content-Length");
      head.length = body_length(value);
    } else if (name == "transfer-encoding") {
      if (head.is_chunked || lower_case(value) != "chunked")
        refuse_head("the transfer coding is another than \"chunked\"");
      head.is_chunked = true;
    } else if (name == "connection") {
      if (lower_case(value) == "close") head.stays = false;
      if (lower_case(value) == "keep-alive") head.stays = true;
    } else if (name == "expect") {
      head.awaits_continue = lower_case(value) == "100-continue";
    }
  }
  if (head.is_chunked && head.length) refuse_head("the body has a length and is chunked");
  if (head.is_chunked && head.is_old) refuse_head("bodies in chunks are no part of HTTP/1.0");
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char c) { return lower_case_of(c); });
  return lower;
}

const std::string* http_head::find(std::string_view name) const {
  const auto found =
      std::ranges::find(fields, name, [](const auto& field) -> std::string_view { return field.first; });
  return found == fields.end() ? nullptr : &found->second;
}

http_head parse_head(std::string_view text) {
  http_head head;
  bool is_first = true;
  while (text != line_end) {
    const auto end = text.find(line_end);
    if (end == text.npos) refuse_head("it does not end with an empty line");
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + line_end.size());
    if (is_first)
      read_request_line(line, head);
    else
      read_field(line, head);
    is_first = false;
  }
  if (is_first) refuse_head("it is empty");
  understand_fields(head);
  return head;
}

std::size_t head_end(std::string_view text) {
  const auto found = text.find("\r\n\r\n");
  return found == text.npos ? 0 : found + 4;
}

}  // namespace corematching::driver
