// SPDX-License-Identifier: Apache-2.0
// JSON documents in files of their own.
#pragma once

#include <filesystem>
#include <optional>
#include <system_error>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::io {

/// The document in `path`, or nothing where there is no such file. Throws as `parse_json`.
inline std::optional<json> read_optional_json(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return parse_json(mapped_file::open(path).bytes(), path.string());
}

}  // namespace corematching::io
