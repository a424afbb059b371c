// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/connection.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "llava/serve/api_error.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;

int milliseconds_until(connection::clock::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - connection::clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, 1 << 30));
}

}  // namespace

connection::connection(int socket, const serve_limits& limits) : socket_(socket), limits_(limits) {
  const int on = 1;  // pieces of an answer are small and not to be waited with
  static_cast<void>(::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
  enter(stage::idle);
}

connection::~connection() {
  ::close(socket_);
}

void connection::enter(stage next) {
  since_ = clock::now().time_since_epoch().count();
  stage_ = next;
}

bool connection::ready(short events, clock::time_point until) const {
  for (;;) {
    pollfd watched{socket_, events, 0};
    const int found = ::poll(&watched, 1, milliseconds_until(until));
    if (found > 0) return true;
    if (found == 0 || errno != EINTR) return false;
  }
}

bool connection::await_request(const std::atomic<bool>& stopping) {
  if (stopping) return false;
  if (taken_ < ahead_.size()) return true;
  enter(stage::idle);
  const auto until = clock::now() + limits_.idle;
  while (!stopping && clock::now() < until)
    if (ready(POLLIN, std::min(until, clock::now() + 100ms))) return true;
  return false;
}

std::ptrdiff_t connection::receive() {
  constexpr std::size_t more = std::size_t{64} << 10;
  ahead_.erase(0, std::exchange(taken_, 0));
  const std::size_t before = ahead_.size();
  for (;;) {
    if (!ready(POLLIN, late_at_) || clock::now() >= late_at_) {
      is_late_ = true;
      return -1;
    }
    ahead_.resize(before + more);
    const auto count = ::recv(socket_, ahead_.data() + before, more, MSG_DONTWAIT);
    ahead_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count >= 0) return count;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return 0;
  }
}

std::optional<http_head> connection::read_head() {
  enter(stage::receiving);
  late_at_ = clock::now() + limits_.receiving;
  is_late_ = false;
  const auto end_of_head = [&] { return head_end(std::string_view(ahead_).substr(taken_)); };
  std::size_t end = end_of_head();
  while (end == 0 && ahead_.size() - taken_ <= max_head_bytes) {
    const auto count = receive();
    if (count < 0) throw api_error(408, "too_slow", "the request did not arrive in time");
    if (count == 0) return std::nullopt;
    end = end_of_head();
  }
  if (end == 0 || end > max_head_bytes)
    throw api_error(431, "head_too_large",
                    "the head of the request is longer than " + std::to_string(max_head_bytes) + " bytes");
  const std::string head = ahead_.substr(taken_, end);
  taken_ += end;
  return parse_head(head);
}

std::ptrdiff_t connection::read(char* to, std::size_t size) {
  if (taken_ == ahead_.size()) {
    const auto count = receive();
    if (count <= 0) return count;
  }
  const std::size_t count = std::min(size, ahead_.size() - taken_);
  std::memcpy(to, ahead_.data() + taken_, count);
  taken_ += count;
  return static_cast<std::ptrdiff_t>(count);
}

bool connection::write(const char* from, std::size_t size) {
  constexpr std::size_t at_a_time = std::size_t{1} << 20;
  const auto until = clock::now() + limits_.sending * (1 + size / at_a_time);
  while (size > 0) {
    const auto count = ::send(socket_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
    if (count > 0) {
      from += count;
      size -= static_cast<std::size_t>(count);
      continue;
    }
    enter(stage::sending);
    if (!ready(POLLOUT, until) || clock::now() >= until) return false;
  }
  if (stage_ == stage::sending) enter(stage::answering);
  return true;
}

bool connection::has_unread() const {
  return taken_ < ahead_.size() || ready(POLLIN, clock::now());
}

bool connection::is_gone() const {
  pollfd watched{socket_, POLLRDHUP, 0};
  return ::poll(&watched, 1, 0) > 0 && (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void connection::outlast() {
  constexpr std::size_t most = std::size_t{64} << 20;
  enter(stage::idle);  // who takes its place need not wait for that
  ::shutdown(socket_, SHUT_WR);
  late_at_ = clock::now() + 2s;
  for (std::size_t total = 0; total < most; total += ahead_.size()) {
    taken_ = ahead_.size();
    if (receive() <= 0) return;
  }
}

void connection::cut() {
  ::shutdown(socket_, SHUT_RDWR);
}

}  // namespace corematching::driver
