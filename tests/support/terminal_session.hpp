// SPDX-License-Identifier: Apache-2.0
// A program on a terminal, as someone who types meets it.
#pragma once

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace corematching::test {

class terminal_session {
 public:
  /// Starts `program` on a terminal of its own, on all three sides.
  terminal_session(const std::string& program, const std::vector<std::string>& arguments) {
    std::vector<std::string> words{program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    process_ = forkpty(&terminal_, nullptr, nullptr, nullptr);
    if (process_ == 0) {
      ::setenv("TERM", "xterm", 1);
      ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
  }
  terminal_session(const terminal_session&) = delete;
  terminal_session& operator=(const terminal_session&) = delete;
  ~terminal_session() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    ::close(terminal_);
  }

  void type(std::string_view keys) {
    while (!keys.empty()) {
      const auto written = ::write(terminal_, keys.data(), keys.size());
      if (written <= 0) return;
      keys.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  /// Types `keys` and returns what appears up to the end of `text`, which the next call goes on behind. A
  /// line editor throws away what is typed before it reads, so they are typed again where `text` does not
  /// appear in fifteen seconds; after two minutes what there is.
  std::string type_until(std::string_view keys, std::string_view text) {
    for (int tries = 0; tries < 8 && !has_ended_ && unread_.find(text) == unread_.npos; ++tries) {
      type(keys);
      read_until(text, std::chrono::seconds(15));
    }
    const auto found = unread_.find(text);
    const std::size_t size = found == unread_.npos ? unread_.size() : found + text.size();
    std::string shown = unread_.substr(0, size);
    unread_.erase(0, size);
    return shown;
  }

  /// Types `keys` until the program ends; -1: it did not, or was killed by a signal.
  int exit_code_after(std::string_view keys) {
    const std::string nothing(1, '\0');  // which no terminal shows
    type_until(keys, nothing);
    ::close(std::exchange(terminal_, -1));  // hangs up on a program that is still there
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  void read_until(std::string_view text, std::chrono::seconds patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!has_ended_ && unread_.find(text) == unread_.npos && std::chrono::steady_clock::now() < end) {
      pollfd wanted{terminal_, POLLIN, 0};
      if (::poll(&wanted, 1, 100) == 0) continue;
      std::array<char, 4096> block{};
      const auto got = ::read(terminal_, block.data(), block.size());
      has_ended_ = got <= 0;
      if (got > 0) unread_.append(block.data(), static_cast<std::size_t>(got));
    }
  }

  int terminal_ = -1;
  pid_t process_ = -1;
  std::string unread_;
  bool has_ended_ = false;
};

}  // namespace corematching::test
