// SPDX-License-Identifier: Apache-2.0
// Carries requests to a service and its replies back, over sockets.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "llava/serve/connections.hpp"
#include "llava/serve/limits.hpp"
#include "llava/serve/service.hpp"

namespace corematching::driver {

class http_server {
 public:
  /// Listens on `port` of `host`, or on any port if that is 0. Throws `error` where that cannot be. `to`,
  /// `clients` and `limits` must outlive the server.
  http_server(service& to, connections& clients, const serve_limits& limits, const std::string& host,
              int port);
  http_server(const http_server&) = delete;
  http_server& operator=(const http_server&) = delete;
  ~http_server();

  int port() const;
  /// Serves until stop(), and returns when every request that was taken has been replied to.
  void run();
  /// No further clients and requests. May be called by any thread, and by a signal's handler.
  void stop();

 private:
  class library_server;
  std::unique_ptr<library_server> server_;
};

}  // namespace corematching::driver
