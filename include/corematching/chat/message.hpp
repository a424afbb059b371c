// SPDX-License-Identifier: Apache-2.0
// A conversation as people write it down: messages of text and pictures, each with whom it is from.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace corematching::chat {

enum class role { system, user, assistant };

inline std::string_view name_of(role who) {
  switch (who) {
    case role::system: return "system";
    case role::user: return "user";
    case role::assistant: break;
  }
  return "assistant";
}

/// A picture by its file or by the bytes of such a file; neither where it is given elsewhere, as by an
/// option.
struct picture {
  std::string path{};
  std::vector<std::byte> bytes{};

  bool operator==(const picture&) const = default;
};

using part = std::variant<std::string, picture>;

struct message {
  role from = role::user;
  std::vector<part> content{};

  bool operator==(const message&) const = default;
};

}  // namespace corematching::chat
