// SPDX-License-Identifier: Apache-2.0
// What often lies under a file's name in its stead after a download: the pointer that Git LFS keeps where the
// file itself was not fetched, or the web page that a server sent. A reader of any format would only say that
// it cannot read it, and the user would look for the fault in the wrong place.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "corematching/core/error.hpp"

namespace corematching::io {

namespace detail {

// `lower` is in lower case.
inline bool starts_with_in_any_case(std::string_view text, std::string_view lower) {
  const auto lowered = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return text.size() >= lower.size() && std::ranges::equal(text.substr(0, lower.size()), lower, {}, lowered);
}

}  // namespace detail

/// What `bytes`, the content of a file, are in its stead; null where they are nothing of the kind. No file of
/// the formats that are read here begins like either.
/// Source of the pointer: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
inline const char* stand_in(std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs.github.com/spec/"))
    return "is a Git LFS pointer, not the file itself (git lfs pull fetches it)";
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (detail::starts_with_in_any_case(text, "<!doctype html") ||
      detail::starts_with_in_any_case(text, "<html"))
    return "is an HTML page, not the file itself";
  return nullptr;
}

/// Throws `error`, starting with `file`, if `bytes` are a stand-in.
inline void refuse_stand_in(std::span<const std::byte> bytes, const std::string& file) {
  if (const char* what = stand_in(bytes)) fail(file, ": ", what);
}

}  // namespace corematching::io
