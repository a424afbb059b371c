// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/core_matching_field.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "llava/serve/api_error.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view field_name = "core_matching", scores_name = "scores";

api_error field_error(std::string_view key, const std::string& text) {
  const std::string param = std::string(field_name) + (key.empty() ? "" : ".") + std::string(key);
  return {400, "invalid_value", param + ": " + text, param};
}

[[noreturn]] void refuse_field(std::string_view key, const std::string& text) {
  throw field_error(key, text);
}

std::string replaced(std::string_view text, char from, char to) {
  std::string result(text);
  std::ranges::replace(result, from, to);
  return result;
}

/// What stands behind "--key=". Only characters that no value of these options goes without: the text is
/// taken apart as a command line is, where blanks and quotes mean something.
std::string option_value(std::string_view key, const io::json& value) {
  constexpr std::string_view others = "_:,.+-";
  constexpr std::size_t longest = 4096;
  std::string text;
  if (value.is_string()) {
    text = value.get<std::string>();
  } else if (value.is_number()) {
    text = io::json_text(value);
  } else if (value.is_array() && !value.empty()) {
    for (const io::json& element : value) {
      if (!element.is_number()) refuse_field(key, "expected a list of numbers");
      text += (text.empty() ? "" : ",") + io::json_text(element);
    }
  } else {
    refuse_field(key, "expected a text, a number or a list of numbers");
  }
  const auto is_plain = [&](char c) {
    const char lower = static_cast<char>(c | 0x20);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || others.find(c) != others.npos;
  };
  if (text.empty() || text.size() > longest || !std::ranges::all_of(text, is_plain))
    refuse_field(key, io::in_quotes(text) + " is no value of it");
  return text;
}

}  // namespace

api_error core_matching_error(const std::string& problem) {
  for (const std::string& name : sparsity_option_names()) {
    const std::string option = "--" + name + ": ";
    if (problem.starts_with(option))
      return field_error(replaced(name, '-', '_'), problem.substr(option.size()));
  }
  return field_error("", problem);
}

options with_core_matching(const options& base, const io::json& field) {
  if (!field.is_object()) refuse_field("", "expected an object of options");
  const std::vector<std::string> names = sparsity_option_names();
  std::string line;
  for (const auto& [key, value] : field.items()) {
    if (key == scores_name) continue;
    const std::string name = replaced(key, '_', '-');
    if (key.find('-') != key.npos || std::ranges::count(names, name) == 0)
      refuse_field("", "there is no option " + io::in_quotes(key));
    line += (line.empty() ? "--" : " --") + name + "=" + option_value(key, value);
  }
  if (line.empty()) return base;
  options fresh = base;
  fresh.preset = options().preset;
  fresh.sparsity = options().sparsity;
  fresh.thin.reset();
  fresh.neurons = {};
  try {
    return parse_sparsity(line, fresh);
  } catch (const error& problem) {
    throw core_matching_error(problem.what());
  }
}

bool wants_scores(const io::json& field) {
  const auto said = field.find(scores_name);
  if (said == field.end()) return false;
  if (!said->is_boolean()) refuse_field(scores_name, "expected true or false");
  return said->get<bool>();
}

}  // namespace corematching::driver
