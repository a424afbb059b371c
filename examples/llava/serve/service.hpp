// SPDX-License-Identifier: Apache-2.0
// What the server does, whoever carries the bytes: from the head and the body of a request to a reply.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <semaphore>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llava/options.hpp"
#include "llava/serve/access.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/connections.hpp"
#include "llava/serve/http_head.hpp"
#include "llava/serve/limits.hpp"
#include "llava/serve/metrics.hpp"
#include "llava/serve/received_body.hpp"

namespace corematching::driver {

/// Sends a piece of a reply; false where it could not be sent.
using piece_writer = std::function<bool(std::string_view)>;

struct http_reply {
  int status = 200;
  std::string type = "application/json";
  std::string body{};
  std::vector<std::pair<std::string, std::string>> fields{};
  std::function<bool(const piece_writer&)> stream{};  // instead of the body; false where it broke off
};

/// `problem` as a reply.
http_reply reply_of(const api_error& problem);

class service {
 public:
  /// `base` says what holds for requests that do not say it themselves; `image_fit` how pictures are made
  /// square, for who wants to draw on them. All references must outlive the service.
  service(answering& model, options base, access_rules access, const serve_limits& limits,
          std::string image_fit, const connections& clients);

  /// Throws `api_error` for a request that is refused without its body.
  void admit(const http_head& head) const;

  /// Answers a request that was admitted. A question is asked before this returns, so that a refusal has its
  /// status; an answer that is streamed comes later. `is_gone` is asked for as long as the reply lives.
  http_reply answer(const http_head& head, received_body body, const std::function<bool()>& is_gone);

  /// Counts a reply, also one that was not made here.
  void count(int status) { metrics_.add_status(status); }

  /// From now on questions are refused.
  void refuse_further() { is_draining_ = true; }
  /// Ends the answers that are being given.
  void abandon() { is_abandoned_ = true; }
  bool is_abandoned() const { return is_abandoned_; }

 private:
  http_reply chat(received_body body, const std::function<bool()>& is_gone);
  /// Throws `api_error` where there is no use in going on with a question.
  void require_use(const std::function<bool()>& is_gone, std::chrono::steady_clock::time_point until);
  std::string models_json() const;
  std::string model_json() const;

  answering& model_;
  options base_;
  access_rules access_;
  const serve_limits& limits_;
  std::string image_fit_;
  const connections& clients_;
  std::int64_t started_;
  std::counting_semaphore<> asking_;  // so many parse requests and decode pictures at a time
  serve_metrics metrics_;
  std::atomic<bool> is_draining_ = false;
  std::atomic<bool> is_abandoned_ = false;
};

}  // namespace corematching::driver
