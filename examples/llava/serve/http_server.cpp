// SPDX-License-Identifier: Apache-2.0
// The one file that sees cpp-httplib. What the library does for us: it accepts clients and writes replies.
// What it does not: it waits as long for each byte as for the first, reads heads and lines between chunks of
// any length, and expressions of regular grammar in them recursively; so requests are read here, and it is
// shown a head of our own making, without a body.
#include "llava/serve/http_server.hpp"

#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "corematching/core/error.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chunked_body.hpp"
#include "llava/serve/client_threads.hpp"
#include "llava/serve/received_body.hpp"

namespace corematching::driver {
namespace {

/// How long a client may take to send its request, or to take more of a reply, before another one may have
/// its thread, or its body's memory.
constexpr std::chrono::milliseconds patience{1000};

/// One request while it is replied to.
struct exchange {
  connection& client;
  http_head head;
  std::optional<http_reply> refused;  // without its body
  bool must_close = false;            // what comes next from this client may be the rest of a body
  bool is_told = false;               // that it is closed
};

/// The library's handlers are told of a request, not of whose it is; they run on its client's thread.
thread_local exchange* current = nullptr;

/// What the library reads: the head that it is shown, and nothing else.
class shown_stream final : public httplib::Stream {
 public:
  shown_stream(connection& client, std::string head) : client_(client), head_(std::move(head)) {}

  bool is_readable() const override { return true; }
  bool is_writable() const override { return !client_.is_gone(); }
  ssize_t read(char* to, std::size_t size) override {
    const std::size_t count = std::min(size, head_.size() - shown_);
    head_.copy(to, count, shown_);
    shown_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* from, std::size_t size) override {
    return client_.write(from, size) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return client_.socket(); }

 private:
  connection& client_;
  std::string head_;
  std::size_t shown_ = 0;
};

/// What the library needs to know of a request: whether a body is waited for, and whether the client stays.
std::string shown_head(exchange& now) {
  const http_head& head = now.head;
  const bool is_read = !now.refused && head.method == "POST";
  std::string shown = is_read ? "POST" : head.method == "HEAD" ? "HEAD" : "GET";
  shown += head.is_old ? " / HTTP/1.0\r\n" : " / HTTP/1.1\r\n";
  if (is_read && head.awaits_continue) shown += "Expect: 100-continue\r\n";
  now.is_told = now.must_close || !head.stays;
  if (now.is_told)
    shown += "Connection: close\r\n";
  else if (head.is_old)
    shown += "Connection: Keep-Alive\r\n";
  return shown + "\r\n";
}

void put_reply(httplib::Response& to, http_reply reply, const exchange& now) {
  to.status = reply.status;
  for (const auto& [name, value] : reply.fields) to.set_header(name, value);
  to.set_header("X-Content-Type-Options", "nosniff");
  if (now.must_close && !now.is_told) to.set_header("Connection", "close");
  if (!reply.stream) {
    to.set_content(reply.body, reply.type);
    return;
  }
  // All of it in one call: between two calls the library ends replies when it is stopped.
  const auto send = [stream = std::move(reply.stream)](std::size_t, httplib::DataSink& sink) {
    const bool complete =
        stream([&](std::string_view piece) { return sink.write(piece.data(), piece.size()); });
    if (complete) sink.done();
    return complete;
  };
  if (now.head.is_old)
    to.set_content_provider(reply.type, send);
  else
    to.set_chunked_content_provider(reply.type, send);
}

/// The library's view of the threads that serve clients.
class task_queue final : public httplib::TaskQueue {
 public:
  task_queue(std::size_t most, client_threads::callbacks call) : threads_(most, std::move(call)) {}
  void enqueue(client_threads::job work) override { threads_.add(std::move(work)); }
  void shutdown() override { threads_.finish(); }
  void on_idle() override { threads_.stay_idle(); }

 private:
  client_threads threads_;
};

}  // namespace

class http_server::library_server final : public httplib::Server {
 public:
  library_server(service& to, connections& clients, const serve_limits& limits)
      : to_(to), clients_(clients), limits_(limits), bodies_(limits.all_body_bytes) {
    // The library's own would let a second server listen on the same port, and take every other client.
    set_socket_options([](socket_t socket) {
      const int on = 1;
      static_cast<void>(::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    });
    set_idle_interval(0, 50'000);
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(limits.idle).count());
    new_task_queue = [this]() -> httplib::TaskQueue* {
      return new task_queue(limits_.connections,
                            {.make_room = [this] { return clients_.cut_slowest(patience); },
                             .refuse = [this](const client_threads::job& work) { refuse(work); },
                             .on_wait = [this] { stop_if_asked(); },
                             .on_end = [this] { cut_if_abandoned(); }});
    };
    set_pre_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      return reply_without_body(response) ? HandlerResponse::Handled : HandlerResponse::Unhandled;
    });
    Post("/", [this](const httplib::Request&, httplib::Response& response, const httplib::ContentReader&) {
      reply_with_body(response);
    });
  }

  ~library_server() override {
    if (svr_sock_ != INVALID_SOCKET) ::close(svr_sock_.exchange(INVALID_SOCKET));
  }

  void bind(const std::string& host, int port) {
    port_ = port == 0 ? bind_to_any_port(host) : bind_to_port(host, port) ? port : -1;
    constexpr int backlog = 512;  // the library's own, 5, makes clients that come together wait for a second
    require(port_ > 0 && ::listen(svr_sock_, backlog) == 0, "cannot listen on ",
            port == 0 ? "any port" : "port " + std::to_string(port), " of ", host);
  }
  int port() const { return port_; }
  void ask_to_stop() { is_stopping_ = true; }

 private:
  bool process_and_close_socket(socket_t socket) override {
    try {
      connection client(socket, limits_);
      serve_client(client);
    } catch (const std::exception&) {  // memory for a head, say: the client is gone, the others stay
    }
    return true;
  }

  void serve_client(connection& client) {
    if (is_full_) return refuse_client(client);
    const connections::place place(clients_, client);
    while (client.await_request(is_stopping_) && serve_request(client)) {
    }
  }

  /// Whether the client may send another one.
  bool serve_request(connection& client) {
    exchange now{client, {}, {}};
    try {
      std::optional<http_head> head = client.read_head();
      if (!head) return false;
      now.head = std::move(*head);
      to_.admit(now.head);
    } catch (const api_error& problem) {
      now.refused = reply_of(problem);
      now.must_close = problem.status() == 408 || problem.status() == 431 || now.head.method.empty() ||
                       now.head.has_body();
    }
    if (!now.head.has_body() || now.refused) client.received();
    now.must_close = now.must_close || is_stopping_;
    bool closed = false;
    const bool sent = let_library_reply(now, closed);
    if (is_stopping_ && client.has_unread()) now.must_close = true;
    if (now.must_close && sent && !client.is_late()) client.outlast();
    return sent && !closed && !now.must_close;
  }

  /// `closed` becomes true where the client does not stay.
  bool let_library_reply(exchange& now, bool& closed) {
    shown_stream stream(now.client, shown_head(now));
    current = &now;
    bool sent = false;
    try {
      sent = process_request(stream, false, closed, nullptr);
    } catch (const std::exception&) {  // of a reply that had begun: its client sees it end too soon
    }
    current = nullptr;
    return sent;
  }

  bool reply_without_body(httplib::Response& response) {
    exchange& now = *current;
    if (!now.refused && now.head.method == "POST") return false;
    put(response, now, [&] {
      return now.refused ? std::move(*now.refused)
                         : to_.answer(now.head, received_body(bodies_), [] { return false; });
    });
    return true;
  }

  void reply_with_body(httplib::Response& response) {
    exchange& now = *current;
    put(response, now, [&] {
      received_body body = read_body(now);
      now.client.received();
      return to_.answer(now.head, std::move(body), [&client = now.client] { return client.is_gone(); });
    });
  }

  received_body read_body(exchange& now) {
    const bool stays = !std::exchange(now.must_close, true);  // unless all of the body is read
    received_body body(bodies_);
    const auto take = [&](std::string_view more) { append(body, more, now.client); };
    const byte_source source = [&](char* to, std::size_t size) { return now.client.read(to, size); };
    if (now.head.is_chunked ? read_chunks(source, take) : read_bytes(source, *now.head.length, take)) {
      now.must_close = !stays;
      return body;
    }
    if (now.client.is_late()) throw api_error(408, "too_slow", "the request did not arrive in time");
    throw api_error(400, "bad_request", "the body of the request is not complete");
  }

  void append(received_body& body, std::string_view more, const connection& from) {
    if (body.text().size() + more.size() > limits_.body_bytes)
      throw api_error(
          413, "body_too_large",
          "the body is longer than the limit of " + std::to_string(limits_.body_bytes) + " bytes");
    while (!body.append(more))
      if (body.text().size() + more.size() > limits_.all_body_bytes || !make_room_for(more.size(), from))
        throw api_error(503, "too_busy",
                        "the requests that are being received take all memory that they may");
  }

  /// The client that has been sending for the longest time gives way; false where that is `from` itself.
  bool make_room_for(std::size_t bytes, const connection& from) {
    using namespace std::chrono_literals;
    constexpr auto sends = connections::stage::receiving;
    if (!clients_.cut_slowest(patience, sends, sends, &from)) return false;
    const auto until = connection::clock::now() + 500ms;
    while (!bodies_.fits(bytes) && connection::clock::now() < until) std::this_thread::sleep_for(1ms);
    return true;
  }

  /// Puts what `make` returns, or why it could not, and counts it.
  template <class Make>
  void put(httplib::Response& response, exchange& now, const Make& make) {
    http_reply reply;
    try {
      reply = make();
    } catch (const api_error& problem) {
      reply = reply_of(problem);
    } catch (const std::bad_alloc&) {
      reply = reply_of({503, "out_of_memory", "there is not enough memory for this request"});
    } catch (const std::exception& problem) {
      reply = reply_of({500, "failed", problem.what()});
    }
    to_.count(reply.status);
    put_reply(response, std::move(reply), now);
  }

  /// A client that finds no thread: told so at once, on the thread that accepts clients.
  void refuse(const client_threads::job& work) {
    is_full_ = true;
    work();
    is_full_ = false;
  }
  void refuse_client(connection& client) {
    const std::string body =
        error_json({503, "too_many_connections", "all connections are in use by requests that are answered"});
    const std::string reply =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    to_.count(503);
    client.write(reply.data(), reply.size());
    char unread[4096];  // what is not read makes the system tell the client of an error instead
    int reads = 256;    // but others wait for this thread
    while (::recv(client.socket(), unread, sizeof unread, MSG_DONTWAIT) > 0 && --reads > 0) {
    }
  }

  /// On the thread that accepts clients, where the library may be stopped without a race.
  void stop_if_asked() {
    if (!is_stopping_) return;
    while (clients_.cut_slowest({}, connections::stage::idle, connections::stage::receiving)) {
    }
    stop();
  }
  /// Nobody is waited for any more, whether it sends or takes.
  void cut_if_abandoned() {
    while (to_.is_abandoned() && clients_.cut_slowest({})) {
    }
  }

  static thread_local bool is_full_;

  service& to_;
  connections& clients_;
  const serve_limits& limits_;
  byte_budget bodies_;
  int port_ = 0;
  std::atomic<bool> is_stopping_ = false;
};

thread_local bool http_server::library_server::is_full_ = false;

http_server::http_server(service& to, connections& clients, const serve_limits& limits,
                         const std::string& host, int port)
    : server_(std::make_unique<library_server>(to, clients, limits)) {
  server_->bind(host, port);
}

http_server::~http_server() = default;

int http_server::port() const {
  return server_->port();
}

void http_server::run() {
  require(server_->listen_after_bind(), "the socket that clients are accepted on was lost");
}

void http_server::stop() {
  server_->ask_to_stop();
}

}  // namespace corematching::driver
