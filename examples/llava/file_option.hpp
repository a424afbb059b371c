// SPDX-License-Identifier: Apache-2.0
// Options that name files.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

namespace corematching::driver {

/// `file` stays empty unless the option is given; so an empty name, which would pass for that, is refused.
inline CLI::Option* add_file(CLI::App& app, const std::string& name, std::filesystem::path& file,
                             const std::string& help) {
  return app.add_option(name, file, help)->check([](const std::string& text) {
    return std::string(text.empty() ? "the name is empty" : "");
  });
}

}  // namespace corematching::driver
