// SPDX-License-Identifier: Apache-2.0
// Options of a command line whose values are more than CLI11 can read by itself.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <string>

#include "corematching/core/error.hpp"
#include "llava/option_values.hpp"

namespace corematching::driver {

/// An option whose value is one of the names in `names`.
template <class Value>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Value& value,
                        std::map<std::string, Value> names, const std::string& help) {
  const Value initial = value;
  std::string shown;
  std::string list;
  for (const auto& [text, meaning] : names) {
    list += (list.empty() ? "" : "|") + text;
    if (meaning == initial) shown = text;
  }
  return app
      .add_option_function<std::string>(
          name,
          [&value, names, name, list](const std::string& text) {
            const auto found = names.find(text);
            if (found == names.end()) throw CLI::ValidationError(name, "\"" + text + "\" is none of " + list);
            value = found->second;
          },
          help)
      ->type_name(list)
      ->default_str(shown);
}

/// Runs `convert` when the option is given; its errors become usage errors.
template <class Convert>
CLI::Option* add_converted(CLI::App& app, const std::string& name, Convert convert, const std::string& type,
                           const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [convert](const std::string& text) {
            try {
              convert(text);
            } catch (const error& problem) {
              throw CLI::ValidationError(problem.what());
            }
          },
          help)
      ->type_name(type);
}

/// CLI11 would take -1 for 2^64 - 1.
inline CLI::Option* add_seed(CLI::App& app, const std::string& name, std::uint64_t& seed,
                             const std::string& help) {
  return add_converted(
             app, name,
             [&seed, stem = name.substr(2)](const std::string& text) {
               seed = number<std::uint64_t>(text, stem.c_str());
             },
             "N", help)
      ->default_str(std::to_string(seed));
}

}  // namespace corematching::driver
