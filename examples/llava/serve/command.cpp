// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/command.hpp"

#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>

#include "corematching/model/config.hpp"
#include "llava/request.hpp"
#include "llava/serve/connections.hpp"
#include "llava/serve/http_server.hpp"
#include "llava/serve/service.hpp"

namespace corematching::driver {
namespace {

/// SIGTERM and SIGINT, for as long as the object lives: the first one drains, the next one ends what is left.
/// Afterwards the program ends, and hears of neither. The thread that accepts clients, and those that it
/// starts, would begin every wait anew for each, and never come to an end: one that does nothing hears of
/// them.
class ending_signals {
 public:
  ending_signals(service& to, http_server& server) : heard_by_([this] { is_over_.acquire(); }) {
    sigset_t both;
    ::sigemptyset(&both);
    ::sigaddset(&both, SIGTERM);
    ::sigaddset(&both, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &both, nullptr);
    service_ = &to;
    server_ = &server;
    count_ = 0;
    struct sigaction action {};
    action.sa_handler = [](int) {
      if (count_++ > 0) return service_.load()->abandon();
      service_.load()->refuse_further();
      server_.load()->stop();
    };
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
  }
  ending_signals(const ending_signals&) = delete;
  ending_signals& operator=(const ending_signals&) = delete;
  /// All is over, and what else is to be told to end ends already: whoever insists shall not make it an
  /// accident.
  ~ending_signals() {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    is_over_.release();
    heard_by_.join();
  }

 private:
  // A handler may touch nothing else.
  static inline std::atomic<service*> service_ = nullptr;
  static inline std::atomic<http_server*> server_ = nullptr;
  static inline std::atomic<int> count_ = 0;
  static_assert(std::atomic<service*>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

  std::binary_semaphore is_over_{0};
  std::thread heard_by_;
};

std::string fit_of(const options& o) {
  const model_config config = read_model_config(o.model, o.mmproj);
  if (config.llava() == nullptr) return "";
  return image_options(o, config).fit == image_fit::pad ? "pad" : "crop";
}

std::string address_text(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != host.npos;
  return "http://" + (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port) + "/";
}

bool is_this_machine(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

/// Lets the process have as many files open as so many connections take beside all else. Throws `error` where
/// the system allows fewer: clients without one would wait until others leave.
void allow_connections(std::size_t connections) {
  constexpr rlim_t others = 64;
  const rlim_t needed = connections + others;
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= needed) return;
  require(files.rlim_max >= needed, "--max-connections: ", connections, " take ", needed,
          " open files, and the system allows ", files.rlim_max, " (ulimit -n)");
  files.rlim_cur = needed;
  require(::setrlimit(RLIMIT_NOFILE, &files) == 0, "--max-connections: ", needed,
          " open files are not allowed: ", std::strerror(errno));
}

}  // namespace

void run_serve(int argc, const char* const* argv, console& terminal, const engine_maker& make_engine) {
  const serve_options o = parse_serve_options(argc, argv);
  allow_connections(o.limits.connections);
  const std::string fit = fit_of(o.base);
  connections clients;
  const std::unique_ptr<answering> engine = make_engine(o.base, o.engine, terminal);
  service to(*engine, o.base, o.access, o.limits, fit, clients);
  http_server server(to, clients, o.limits, o.host, o.port);
  const ending_signals signals(to, server);
  if (!is_this_machine(o.host) && o.access.api_key.empty())
    terminal.notice("whoever reaches " + o.host + " may ask: --api-key or --api-key-file asks for a key");
  terminal.notice(engine->model().name + " answers at " + address_text(o.host, server.port()));
  server.run();
  engine->drain();
  terminal.notice("every question that was taken has been answered");
}

}  // namespace corematching::driver
