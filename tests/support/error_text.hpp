// SPDX-License-Identifier: Apache-2.0
// For tests of refusals: the text of the error that a call throws.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "corematching/core/error.hpp"

namespace support {

/// The text of the `corematching::error` that `body` throws; records a failure if it throws none, or if the
/// text is not one line.
template <class Body>
std::string error_text(Body&& body) {
  try {
    std::forward<Body>(body)();
  } catch (const corematching::error& refused) {
    const std::string text = refused.what();
    EXPECT_EQ(text.find_first_of("\r\n"), std::string::npos) << text;
    return text;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

/// Expects every one of `parts` in `text`.
template <class... Parts>
void expect_parts(const std::string& text, const Parts&... parts) {
  for (const std::string& part : {std::string(parts)...})
    EXPECT_NE(text.find(part), std::string::npos) << "looked for: " << part << "\nin: " << text;
}

}  // namespace support
