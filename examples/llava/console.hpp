// SPDX-License-Identifier: Apache-2.0
// Notices on stderr, and progress, shown only where stderr is a terminal: one line that is rewritten and
// finally erased.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <set>
#include <string>

namespace corematching::driver {

class console {
 public:
  console() : terminal_(isatty(STDERR_FILENO) == 1) {}
  console(const console&) = delete;
  console& operator=(const console&) = delete;
  ~console() { clear(); }

  /// Shows that `done` of `total` of a stage are done.
  void progress(const std::string& stage, double done, double total) {
    if (!terminal_) return;
    const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
    if (percent == shown_percent_ && stage == shown_stage_) return;
    std::fprintf(stderr, "\r\033[K%s %d %%", stage.c_str(), percent);
    std::fflush(stderr);
    shown_percent_ = percent;
    shown_stage_ = stage;
  }

  /// One line that stays.
  void notice(const std::string& text) {
    clear();
    std::fprintf(stderr, "llava: %s\n", text.c_str());
  }

  /// The same, unless it was said before: by a run that loads a model several times.
  void notice_once(const std::string& text) {
    if (said_once_.insert(text).second) notice(text);
  }

  void clear() {
    if (!terminal_ || shown_stage_.empty()) return;
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
    shown_stage_.clear();
  }

 private:
  bool terminal_;
  int shown_percent_ = -1;
  std::string shown_stage_;
  std::set<std::string> said_once_;
};

}  // namespace corematching::driver
