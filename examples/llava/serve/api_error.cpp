// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/api_error.hpp"

#include <string>

#include "corematching/io/json.hpp"

namespace corematching::driver {

std::string error_json(const api_error& problem) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? io::json(nullptr) : io::json(text);
  };
  return io::json_text(io::json{{"error",
                                 {{"message", problem.what()},
                                  {"type", problem.type()},
                                  {"param", or_null(problem.param())},
                                  {"code", or_null(problem.code())}}}});
}

}  // namespace corematching::driver
