// SPDX-License-Identifier: Apache-2.0
// JSON from untrusted files: bounded depth, no duplicate keys, and field readers whose errors name file and
// key.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/compiled_once.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/stand_in.hpp"

namespace corematching::io {

using json = nlohmann::json;

/// No checkpoint nests deeper than this; the limit keeps recursive uses of a parsed value off the stack's
/// end.
inline constexpr std::size_t max_json_depth = 64;

/// `value` as text of JSON. Bytes that are no UTF-8, which names of files may hold, become U+FFFD.
template <class Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

/// `text` with U+FFFD in place of bytes that are no UTF-8: what is read of it once json_text() has written
/// it.
template <class = compiled_once>
std::string as_utf8(std::string_view text) {
  return json::parse(json_text(json(text))).get<std::string>();
}

/// Text from a file as one line of a message: quoted, escaped and cut when long.
template <class = compiled_once>
std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 200;
  const bool cut = text.size() > longest;
  return json_text(json(text.substr(0, longest))) + (cut ? "..." : "");
}

namespace detail {

// Follows the parser's events to refuse deep nesting and duplicate keys, of which JSON parsers keep whichever
// they like: two readers of one file could otherwise see different tensors under one name.
class json_guard {
 public:
  explicit json_guard(const std::string& file) : file_(file) {}

  bool operator()(json::parse_event_t event, const json& parsed) {
    using event_t = json::parse_event_t;
    if (event == event_t::object_start || event == event_t::array_start) {
      require(keys_.size() < max_json_depth, file_, ": JSON nested deeper than ", max_json_depth, " levels");
      keys_.emplace_back();
    } else if (event == event_t::object_end || event == event_t::array_end) {
      keys_.pop_back();
    } else if (event == event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(name).second) fail(file_, ": duplicate key ", in_quotes(name));
    }
    return true;
  }

 private:
  const std::string& file_;
  std::vector<std::set<std::string>> keys_;  // per open object or array
};

}  // namespace detail

/// Parses one JSON document. Throws `error`, starting with `file`, for anything that is not strict JSON, for
/// duplicate keys and for nesting beyond `max_json_depth`.
template <class = compiled_once>
json parse_json(std::span<const std::byte> text, const std::string& file) {
  refuse_stand_in(text, file);
  // nlohmann's lexer takes a NUL byte for the end of the text and would ignore what follows.
  const auto nul = std::ranges::find(text, std::byte{0});
  require(nul == text.end(), file, ": not valid JSON: NUL byte at offset ", nul - text.begin());
  detail::json_guard guard(file);
  const char* begin = reinterpret_cast<const char*>(text.data());
  try {
    return json::parse(begin, begin + text.size(),
                       [&](int, json::parse_event_t event, json& parsed) { return guard(event, parsed); });
  } catch (const json::parse_error& problem) {
    // The library's own text quotes the offending token, however long; the offset is enough.
    fail(file, ": not valid JSON at byte ", problem.byte);
  } catch (const json::out_of_range&) {
    fail(file, ": not valid JSON: number out of range");
  }
}

/// Reads the fields of one JSON object. Every method throws `error` naming the file and the full key when the
/// value has another type or lies outside the bounds. Where a value is optional, JSON null says no more than
/// its absence: some writers leave out what they have no value for, others write null.
class json_object {
 public:
  /// `value` must outlive the reader; `key` is its dotted path inside the file, empty for the document.
  json_object(const json& value, std::string file, std::string key = {})
      : value_(&value), file_(std::move(file)), prefix_(key.empty() ? "" : key + ".") {
    if (!value.is_object())
      fail(file_, ": ", key.empty() ? "the document" : key, " is ", describe(value), ", expected an object");
  }

  const std::string& file() const { return file_; }

  /// The value under `key`, which may be JSON null, or nothing if the key is absent: for the few keys where
  /// null says something else.
  const json* find(std::string_view key) const {
    const auto found = value_->find(key);
    return found == value_->end() ? nullptr : &*found;
  }

  /// Whether `key` is there with a value other than JSON null.
  bool has(std::string_view key) const {
    const json* value = find(key);
    return value != nullptr && !value->is_null();
  }

  /// Throws "file: key is value, expected ...".
  [[noreturn]] void refuse(std::string_view key, std::string_view expected) const {
    const json* value = find(key);
    fail(file_, ": ", prefix_, key, " is ", value ? describe(*value) : "missing", ", expected ", expected);
  }

  /// Throws "file: key: " and the parts: for a value that contradicts another.
  template <class... Parts>
  [[noreturn]] void contradict(std::string_view key, const Parts&... parts) const {
    fail(file_, ": ", prefix_, key, ": ", parts...);
  }

  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most) const {
    return integer_in(at(key), key, least, most);
  }
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t least,
                          std::int64_t most) const {
    return has(key) ? integer(key, least, most) : fallback;
  }

  double number(std::string_view key, double least, double most) const {
    const json& value = at(key);
    // Written so that it also refuses NaN.
    if (value.is_number() && value.get<double>() >= least && value.get<double>() <= most)
      return value.get<double>();
    refuse(key, "a number from " + bounds(least, most));
  }
  double number_or(std::string_view key, double fallback, double least, double most) const {
    return has(key) ? number(key, least, most) : fallback;
  }

  bool boolean_or(std::string_view key, bool fallback) const {
    if (!has(key)) return fallback;
    const json& value = at(key);
    if (!value.is_boolean()) refuse(key, "true or false");
    return value.get<bool>();
  }

  std::string string(std::string_view key) const {
    const json& value = at(key);
    if (!value.is_string()) refuse(key, "a string");
    return value.get<std::string>();
  }
  std::string string_or(std::string_view key, std::string fallback) const {
    return has(key) ? string(key) : std::move(fallback);
  }

  json_object object(std::string_view key) const { return {at(key), file_, prefix_ + std::string(key)}; }

  /// A list of exactly `count` numbers.
  std::vector<double> numbers(std::string_view key, double least, double most, std::size_t count) const {
    const json& value = at(key);
    const auto fits = [&](const json& n) {
      return n.is_number() && n.get<double>() >= least && n.get<double>() <= most;
    };
    if (!value.is_array() || value.size() != count || !std::ranges::all_of(value, fits))
      refuse(key, std::to_string(count) + " numbers from " + bounds(least, most));
    return value.get<std::vector<double>>();
  }

  /// One integer or a list of at most `longest` integers.
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t least, std::int64_t most,
                                     std::size_t longest) const {
    const json& value = at(key);
    if (!value.is_array()) return {integer_in(value, key, least, most)};
    if (value.size() > longest) refuse(key, "at most " + std::to_string(longest) + " integers");
    std::vector<std::int64_t> result;
    for (const json& element : value) result.push_back(integer_in(element, key, least, most));
    return result;
  }

 private:
  const json& at(std::string_view key) const {
    const json* value = find(key);
    if (value == nullptr) fail(file_, ": ", prefix_, key, " is missing");
    return *value;
  }

  std::int64_t integer_in(const json& value, std::string_view key, std::int64_t least,
                          std::int64_t most) const {
    // An unsigned value beyond int64 would wrap around in get<int64_t>.
    const bool fits = value.is_number_integer() && (!value.is_number_unsigned() ||
                                                    std::in_range<std::int64_t>(value.get<std::uint64_t>()));
    if (fits && value.get<std::int64_t>() >= least && value.get<std::int64_t>() <= most)
      return value.get<std::int64_t>();
    fail(file_, ": ", prefix_, key, " is ", describe(value), ", expected an integer from ", least, " to ",
         most);
  }

  static std::string bounds(double least, double most) {
    std::ostringstream text;
    text << least << " to " << most;
    return text.str();
  }

  static std::string describe(const json& value) {
    if (value.is_object()) return "an object";
    if (value.is_array()) return "a list of " + std::to_string(value.size()) + " values";
    if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
    return value.dump();
  }

  const json* value_;
  std::string file_;
  std::string prefix_;
};

}  // namespace corematching::io
