// SPDX-License-Identifier: Apache-2.0
// What is told to a client whose request is refused: a status of HTTP, and an object in the form of OpenAI's
// API (reference, "Errors"), which its clients turn into their exceptions.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace corematching::driver {

class api_error : public std::runtime_error {
 public:
  /// `code` names the kind of error for programs, `param` the field of the request that is at fault, if one
  /// is.
  api_error(int status, std::string code, const std::string& text, std::string param = {})
      : std::runtime_error(text), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  /// The same error, told with a field of HTTP that goes with its status.
  api_error with(std::string name, std::string value) && {
    fields_.emplace_back(std::move(name), std::move(value));
    return std::move(*this);
  }

  int status() const { return status_; }
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }
  const std::string& code() const { return code_; }
  const std::string& param() const { return param_; }

  const char* type() const {
    switch (status_) {
      case 401: return "authentication_error";
      case 403: return "permission_error";
      case 429: return "rate_limit_error";
      default: return status_ >= 500 ? "server_error" : "invalid_request_error";
    }
  }

 private:
  int status_;
  std::string code_, param_;
  std::vector<std::pair<std::string, std::string>> fields_{};
};

/// {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
std::string error_json(const api_error& problem);

}  // namespace corematching::driver
