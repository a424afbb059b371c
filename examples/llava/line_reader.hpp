// SPDX-License-Identifier: Apache-2.0
// Lines that a user types, with a history and the editing keys of a shell, or that stand in standard input.
#pragma once

#include <optional>
#include <string>

namespace corematching::driver {

class line_reader {
 public:
  line_reader();

  /// The next line that is not blank, without its end; nothing at the end of the input. Throws `error` where
  /// it cannot be read.
  std::optional<std::string> next();

 private:
  std::optional<std::string> next_line();

  bool terminal_;  // somebody types
};

}  // namespace corematching::driver
