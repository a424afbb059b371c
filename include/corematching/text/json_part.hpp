// SPDX-License-Identifier: Apache-2.0
// One object of a tokenizer file: its fields, and where it stands for messages. JSON null is as good as
// absent.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/text/pattern.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text::detail {

class json_part {
 public:
  /// `key` is the path inside the file, empty for the document; `value` must outlive the part.
  json_part(const io::json& value, const std::string& file, const std::string& key)
      : fields_(value, file, key), file_(file), key_(key) {}

  const io::json_object& fields() const { return fields_; }
  const std::string& file() const { return file_; }
  /// "file: key", which begins messages.
  std::string where() const { return file_ + (key_.empty() ? "" : ": " + key_); }

  bool has(std::string_view key) const { return fields_.has(key); }
  bool flag(std::string_view key, bool fallback) const {
    return has(key) ? fields_.boolean_or(key, fallback) : fallback;
  }
  std::string text(std::string_view key) const { return fields_.string(key); }
  std::string text_or(std::string_view key, std::string fallback) const {
    return has(key) ? fields_.string(key) : std::move(fallback);
  }
  std::string type() const { return fields_.string("type"); }

  json_part part(std::string_view key) const { return {value(key), file_, path_to(key)}; }

  /// Calls `use(part)` for each object of the list under `key`.
  template <class Use>
  void for_each(std::string_view key, Use&& use) const {
    const io::json& list = value(key);
    if (!list.is_array()) fields_.refuse(key, "a list");
    for (std::size_t i = 0; i < list.size(); ++i)
      use(json_part(list[i], file_, path_to(key) + "[" + std::to_string(i) + "]"));
  }

  /// The value under `key`, of any type. Throws `error` if there is none.
  const io::json& value(std::string_view key) const {
    const io::json* found = fields_.find(key);
    if (found == nullptr) fail(file_, ": ", path_to(key), " is missing");
    return *found;
  }

  std::string path_to(std::string_view key) const {
    return (key_.empty() ? "" : key_ + ".") + std::string(key);
  }

  /// {"String": text} or {"Regex": expression}.
  pattern read_pattern(std::string_view key) const {
    const json_part from = part(key);
    if (from.has("String")) return pattern::of_text(from.text("String"), where());
    if (from.has("Regex")) return pattern::of_expression(from.text("Regex"), where());
    fail(from.where(), " has neither String nor Regex");
  }

  /// A text of one character.
  std::string read_character(std::string_view key) const {
    std::string c = text(key);
    if (c.empty() || first_character(c).length != c.size()) fields_.refuse(key, "one character");
    return c;
  }

  [[noreturn]] void refuse_type(std::string_view what) const {
    fail(where(), ": the ", what, " ", io::in_quotes(type()), " is not supported");
  }

 private:
  io::json_object fields_;
  std::string file_;
  std::string key_;
};

}  // namespace corematching::text::detail
