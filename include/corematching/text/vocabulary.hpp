// SPDX-License-Identifier: Apache-2.0
// Which token has which id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"

namespace corematching::text {

using token_id = std::int32_t;

inline constexpr token_id no_token = -1;
inline constexpr std::int64_t largest_token_id = (1 << 24) - 1;  // far beyond any vocabulary
/// In bytes. Real ones end near 1000; the bound keeps each step of a search through them short.
inline constexpr std::size_t longest_token = 4096;

/// Hashes strings and views alike, so that a table of strings is searched without making one.
struct text_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

class vocabulary {
 public:
  vocabulary() = default;
  vocabulary(vocabulary&&) = default;
  vocabulary& operator=(vocabulary&&) = default;

  /// Throws `error`, starting with `where`, for an id that is out of bounds or taken, a token that is there
  /// already, or one that is too long.
  void add(std::string token, std::int64_t id, const std::string& where) {
    if (id < 0 || id > largest_token_id)
      fail(where, ": the token ", io::in_quotes(token), " has the id ", id, ", which is not from 0 to ",
           largest_token_id);
    require(token.size() <= longest_token, where, ": token ", id, " has ", token.size(), " bytes, more than ",
            longest_token);
    const auto index = static_cast<std::size_t>(id);
    if (index >= entries_.size()) entries_.resize(index + 1, nullptr);
    require(entries_[index] == nullptr, where, ": two tokens have the id ", id);
    const auto [place, is_new] = ids_.try_emplace(std::move(token), static_cast<token_id>(id));
    if (!is_new) fail(where, ": the token ", io::in_quotes(place->first), " is there twice");
    entries_[index] = &place->first;
  }

  void reserve(std::size_t count) { ids_.reserve(count); }

  /// The token's id, or `no_token`.
  token_id find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? no_token : found->second;
  }

  /// The token with this id, or null.
  const std::string* token(token_id id) const {
    return id >= 0 && static_cast<std::size_t>(id) < entries_.size() ? entries_[static_cast<std::size_t>(id)]
                                                                     : nullptr;
  }

  /// How many tokens there are; ids may be larger.
  std::size_t count() const { return ids_.size(); }
  /// One more than the largest id.
  token_id size() const { return static_cast<token_id>(entries_.size()); }

 private:
  // The keys of such a map stay where they are, also when the map is moved.
  std::unordered_map<std::string, token_id, text_hash, std::equal_to<>> ids_;
  std::vector<const std::string*> entries_;  // by id
};

}  // namespace corematching::text
