// SPDX-License-Identifier: Apache-2.0
// A server on a port of its own, with somebody who only pretends to answer.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "llava/serve/connections.hpp"
#include "llava/serve/http_server.hpp"
#include "llava/serve/service.hpp"
#include "support/fake_answering.hpp"
#include "support/http_client.hpp"

namespace support {

struct running_server {
  explicit running_server(fake_behaviour how = {}, corematching::driver::serve_limits limited = {},
                          corematching::driver::access_rules access = {})
      : model(std::move(how)),
        limits(limited),
        to(model, base(), std::move(access), limits, "crop", clients),
        server(to, clients, limits, "127.0.0.1", 0),
        thread([this] { server.run(); }) {}
  running_server(const running_server&) = delete;
  running_server& operator=(const running_server&) = delete;
  ~running_server() { stop(); }

  void stop() {
    to.refuse_further();
    server.stop();
    if (thread.joinable()) thread.join();
  }

  int port() const { return server.port(); }
  http_response get(const std::string& path, const std::string& fields = {}) const {
    http_client client(port());
    client.send(get_request(path, fields));
    return client.response();
  }
  http_response post(const std::string& body, const std::string& fields = {}) const {
    http_client client(port());
    client.send(post_request(body, fields));
    return client.response();
  }

  static corematching::driver::options base() {
    corematching::driver::options o;
    o.messages = "messages";
    return o;
  }

  fake_answering model;
  corematching::driver::serve_limits limits;
  corematching::driver::connections clients;
  corematching::driver::service to;
  corematching::driver::http_server server;
  std::thread thread;
};

/// Whether `holds` does within `at_most`.
template <class Holds>
bool comes_true(const Holds& holds, std::chrono::milliseconds at_most = std::chrono::seconds(10)) {
  const auto until = std::chrono::steady_clock::now() + at_most;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

/// A question whose body has so many bytes and some more.
inline std::string question_of(std::size_t bytes) {
  return R"({"messages":[{"role":"user","content":"?"}],"user":")" + std::string(bytes, 'u') + "\"}";
}

/// Of a server with room for 1000 bytes of bodies: a client whose body takes most of them and does not end,
/// once question_of(300) has found no room beside it; null where it never comes to that.
inline std::unique_ptr<http_client> client_in_the_way(const running_server& server) {
  std::unique_ptr<http_client> holds;
  const bool is_there = comes_true([&] {
    // Where the other body is there first, this one finds no room itself, and begins again.
    if (holds == nullptr || holds->is_closed(std::chrono::milliseconds(20))) {
      holds = std::make_unique<http_client>(server.port());
      holds->send(post_request(question_of(800)).substr(0, 900));
    }
    return server.post(question_of(300)).status == 503;
  });
  return is_there ? std::move(holds) : nullptr;
}

}  // namespace support
