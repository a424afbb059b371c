// SPDX-License-Identifier: Apache-2.0
// A client that sends whatever bytes it is given, and reads what comes back.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace support {

struct http_response {
  int status = 0;                             // 0: there was none
  std::map<std::string, std::string> fields;  // names in lower case
  std::string body;                           // chunks put together
  bool is_complete = false;
};

class http_client {
 public:
  using clock = std::chrono::steady_clock;

  explicit http_client(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (socket_ < 0 || ::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
      throw std::runtime_error("cannot connect");
  }
  http_client(const http_client&) = delete;
  http_client& operator=(const http_client&) = delete;
  ~http_client() { leave(); }

  void leave() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  /// Leaves without the usual farewell, as a machine that loses its power does.
  void vanish() {
    const linger none{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    leave();
  }
  void say_no_more() { ::shutdown(socket_, SHUT_WR); }

  /// False where the server does not take it.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      pollfd watched{socket_, POLLOUT, 0};
      if (::poll(&watched, 1, 5000) <= 0) return false;
      const auto count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }

  /// More of what the server says, behind what `read` holds already; false at its end.
  bool receive(std::chrono::milliseconds at_most = std::chrono::seconds(10)) {
    pollfd watched{socket_, POLLIN, 0};
    std::array<char, 65536> block;
    if (::poll(&watched, 1, static_cast<int>(at_most.count())) <= 0) return false;
    const auto count = ::recv(socket_, block.data(), block.size(), 0);
    if (count <= 0) return false;
    read_.append(block.data(), static_cast<std::size_t>(count));
    return true;
  }
  const std::string& read() const { return read_; }
  /// Whether the server has closed the connection within `at_most`.
  bool is_closed(std::chrono::milliseconds at_most) {
    const auto until = clock::now() + at_most;
    while (clock::now() < until) {
      pollfd watched{socket_, POLLIN, 0};
      if (::poll(&watched, 1, 10) <= 0) continue;
      if (!receive(std::chrono::milliseconds(0))) return true;
    }
    return false;
  }

  /// The next response, which is taken from what was read; `has_body` is not so for HEAD.
  http_response response(bool has_body = true, std::chrono::milliseconds at_most = std::chrono::seconds(20)) {
    const auto until = clock::now() + at_most;
    const auto more = [&] {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - clock::now());
      return left.count() > 0 && receive(left);
    };
    http_response found;
    do {
      std::size_t end;
      while ((end = read_.find("\r\n\r\n")) == read_.npos)
        if (!more()) return found;
      found = head_of(std::string_view(read_).substr(0, end + 2));
      read_.erase(0, end + 4);
    } while (found.status == 100);
    if (!has_body)
      found.is_complete = true;
    else if (found.fields.contains("transfer-encoding"))
      read_chunks(found, more);
    else
      read_length(found, more);
    return found;
  }

 private:
  static http_response head_of(std::string_view text) {
    http_response found;
    if (text.size() > 12) found.status = std::atoi(std::string(text.substr(9, 3)).c_str());
    text.remove_prefix(text.find("\r\n") + 2);
    while (!text.empty()) {
      const std::string_view line = text.substr(0, text.find("\r\n"));
      const auto colon = line.find(": ");
      std::string name(line.substr(0, colon));
      std::ranges::transform(name, name.begin(),
                             [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      if (colon != line.npos) found.fields[name] = line.substr(colon + 2);
      text.remove_prefix(line.size() + 2);
    }
    return found;
  }
  template <class More>
  void read_length(http_response& to, const More& more) {
    const bool has_length = to.fields.contains("content-length");
    const auto length = has_length ? std::strtoul(to.fields["content-length"].c_str(), nullptr, 10) : ~0ul;
    while (read_.size() < length && more()) {
    }
    to.is_complete = !has_length || read_.size() >= length;
    to.body = read_.substr(0, length);
    read_.erase(0, to.body.size());
  }
  template <class More>
  void read_chunks(http_response& to, const More& more) {
    for (;;) {
      std::size_t end;
      while ((end = read_.find("\r\n")) == read_.npos)
        if (!more()) return;
      const auto size = std::strtoul(read_.c_str(), nullptr, 16);
      while (read_.size() < end + 2 + size + 2)
        if (!more()) return;
      to.body += read_.substr(end + 2, size);
      read_.erase(0, end + 2 + size + 2);
      if (size == 0) {
        to.is_complete = true;
        return;
      }
    }
  }

  int socket_;
  std::string read_;
};

/// A request with a body, as most clients send it.
inline std::string post_request(const std::string& body, const std::string& fields = {},
                                const std::string& path = "/v1/chat/completions") {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fields +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
inline std::string get_request(const std::string& path, const std::string& fields = {}) {
  return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
}

}  // namespace support
