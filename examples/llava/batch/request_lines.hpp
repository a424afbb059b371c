// SPDX-License-Identifier: Apache-2.0
// A file of requests, a line each, and the file of their answers, of which some may be there already.
#pragma once

#include <cstddef>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "llava/batch/file_lines.hpp"
#include "llava/measure/file_lock.hpp"

namespace corematching::driver {

struct request_line {
  std::string id;
  line_place place;
  std::size_t size = 0;  // bytes, without its end
  std::size_t hash = 0;  // of its text
};

class request_lines {
 public:
  /// Reads a file; lines of blanks are passed over. Throws `error` naming the line that is no JSON object
  /// with an "id" of its own.
  explicit request_lines(const std::filesystem::path& path);
  request_lines(const request_lines&) = delete;
  request_lines& operator=(const request_lines&) = delete;
  ~request_lines();

  const std::vector<request_line>& all() const { return lines_; }
  /// Reads the line's JSON. May be called by any thread; throws `error` where the file has changed.
  std::string text_of(const request_line& line) const;

 private:
  std::filesystem::path path_;
  int file_;
  std::vector<request_line> lines_;
};

/// Only one program at a time writes to it. A line is there as a whole or not at all: what a start that was
/// ended left of one is taken away.
class answer_lines {
 public:
  /// Throws `error`, and leaves the file as it is, where it cannot be written or has anything in it that is
  /// no answer to `asked` nor the beginning of one.
  answer_lines(const std::filesystem::path& path, const request_lines& asked);

  bool has(const std::string& id) const { return ids_.contains(id); }
  std::size_t size() const { return ids_.size(); }
  /// Appends the line {"id": ..., "answer": ...} or {"id": ..., "error": ...}, whose second value is JSON.
  /// May be called by any thread; throws `error` where it cannot be written.
  void add_answer(const std::string& id, std::string_view answer) { add(id, "answer", answer); }
  void add_error(const std::string& id, std::string_view problem) { add(id, "error", problem); }

 private:
  void take(std::string_view line, line_place place, const std::set<std::string>& known);
  void end_last_line(const last_line& rest, const std::set<std::string>& known);
  void add(const std::string& id, std::string_view name, std::string_view value);
  void append(std::string_view text);

  std::filesystem::path path_;
  file_lock lock_;
  std::set<std::string> ids_;  // that were there at the start
  std::mutex mutex_;
};

}  // namespace corematching::driver
