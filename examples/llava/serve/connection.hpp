// SPDX-License-Identifier: Apache-2.0
// One client: its socket, read and written with an eye on the clock. What counts is when a whole request has
// arrived, not when its next byte has: a client that sends a byte a second is no better than one that sends
// nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "llava/serve/http_head.hpp"
#include "llava/serve/limits.hpp"

namespace corematching::driver {

class connection {
 public:
  using clock = std::chrono::steady_clock;
  /// Of these `sending` is a client that is waited for until it takes more of what it is sent.
  enum class stage : std::uint8_t { idle, receiving, sending, answering };

  /// Takes over an open socket.
  connection(int socket, const serve_limits& limits);
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection();

  /// Waits for a further request. False where none will come: the client left, or said nothing for too long,
  /// or `stopping` was set.
  bool await_request(const std::atomic<bool>& stopping);
  /// The head of the request. Throws `api_error` where it is malformed, too long or too slow; nothing where
  /// the client left.
  std::optional<http_head> read_head();
  /// Up to `size` bytes of the body, 0 at the end of what the client sends, -1 where it is late.
  std::ptrdiff_t read(char* to, std::size_t size);
  /// The whole request is there: from now on the client waits, and not we.
  void received() { enter(stage::answering); }
  bool is_late() const { return is_late_; }

  /// Writes all of it; false where the client left or takes too long to take it.
  bool write(const char* from, std::size_t size);
  /// Whether the client closed its side, or the connection broke.
  bool is_gone() const;
  /// Whether the client has sent more than was asked for.
  bool has_unread() const;
  /// Lets a client that is still sending see what was written last, which it would not if its bytes met a
  /// closed socket: says that no more will be written, and reads for a moment what comes.
  void outlast();
  /// Makes whatever waits for this client, on another thread, give up.
  void cut();

  int socket() const { return socket_; }
  stage at() const { return stage_.load(); }
  /// When the stage was entered, or something was sent last.
  clock::time_point since() const { return clock::time_point(clock::duration(since_.load())); }

 private:
  void enter(stage next);
  /// Waits until the socket can be read or written; false after `until`.
  bool ready(short events, clock::time_point until) const;
  /// Receives more behind what was not asked for yet; as read() says what came of it.
  std::ptrdiff_t receive();

  int socket_;
  const serve_limits& limits_;
  std::string ahead_;            // bytes that were received,
  std::size_t taken_ = 0;        // and how many of them were asked for
  clock::time_point late_at_{};  // of the request that is being received
  bool is_late_ = false;
  std::atomic<stage> stage_{stage::idle};
  std::atomic<clock::rep> since_{};
};

}  // namespace corematching::driver
