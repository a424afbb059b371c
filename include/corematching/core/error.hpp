// SPDX-License-Identifier: Apache-2.0
// Errors at API and loading boundaries: one exception type whose text names what is wrong and where.
#pragma once

#include <sstream>
#include <stdexcept>

namespace corematching {

/// Thrown by every public function that refuses its input. `what()` names the file, tensor or option
/// concerned and, where shapes disagree, both shapes.
class error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws `error` with the text that the parts make when streamed one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw error(text.str());
}

/// Throws `error` unless `condition` holds.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace corematching
