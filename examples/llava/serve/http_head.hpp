// SPDX-License-Identifier: Apache-2.0
// The head of a request (RFC 9112): its line and its fields. Read more strictly than servers have to: what
// two readers could understand differently is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace corematching::driver {

/// The longest head that is read, its line and all fields together.
inline constexpr std::size_t max_head_bytes = std::size_t{32} << 10;

struct http_head {
  std::string method;
  std::string path;                                           // without the query
  bool is_old = false;                                        // HTTP/1.0
  std::vector<std::pair<std::string, std::string>> fields{};  // names in lower case
  std::optional<std::uint64_t> length{};                      // of the body, where it is said
  bool is_chunked = false;
  bool stays = true;             // the connection is wanted for further requests
  bool awaits_continue = false;  // the body comes when it is told to

  bool has_body() const { return is_chunked || length.value_or(0) > 0; }
  /// The value of the first field `name` (in lower case); null where there is none.
  const std::string* find(std::string_view name) const;
};

/// `text` with the letters A to Z as a to z.
std::string lower_case(std::string_view text);

/// Reads `text`, which ends with the empty line. Throws `api_error` for what is no such head, for a body
/// whose length is said twice or not as a number, and for transfer codings other than "chunked".
http_head parse_head(std::string_view text);

/// Where the head that `text` begins with ends, behind its empty line; 0 where it has not ended yet.
std::size_t head_end(std::string_view text);

}  // namespace corematching::driver
