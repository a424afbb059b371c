// SPDX-License-Identifier: Apache-2.0
#include "llava/batch/request_lines.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::driver {
namespace {

std::string named(const std::filesystem::path& path, line_place place) {
  return path.string() + ":" + std::to_string(place.number);
}

/// The "id" of a line.
std::string id_of(const io::json& line, const std::string& place) {
  const std::string id = io::json_object(line, place).string("id");
  require(!id.empty(), place, ": id is empty");
  return id;
}

io::json parsed_line(std::string_view line, const std::string& place) {
  return io::parse_json(std::as_bytes(std::span(line)), place);
}

/// How a line of answers begins, up to its second value.
std::string beginning(const std::string& id, std::string_view name) {
  return R"({"id":)" + io::json_text(io::json(id)) + ",\"" + std::string(name) + "\":";
}

/// Whether `text` may be what is there of a line that was being written.
bool is_cut_answer(std::string_view text, const std::set<std::string>& ids) {
  return std::ranges::any_of(ids, [&](const std::string& id) {
    return std::ranges::any_of(std::initializer_list<const char*>{"answer", "error"}, [&](const char* name) {
      const std::string begin = beginning(id, name);
      return text.starts_with(begin) || std::string_view(begin).starts_with(text);
    });
  });
}

}  // namespace

request_lines::request_lines(const std::filesystem::path& path)
    // O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
    : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  require(file_ >= 0, path.string(), ": cannot open: ", io::errno_text(errno));
  std::set<std::string> ids;
  const auto take = [&](std::string_view line, line_place place) {
    const std::string where = named(path, place);
    lines_.push_back(
        {id_of(parsed_line(line, where), where), place, line.size(), std::hash<std::string_view>()(line)});
    require(ids.insert(lines_.back().id).second, where, ": another line has the id ",
            io::in_quotes(lines_.back().id));
  };
  try {
    const last_line rest = for_each_line(file_, path, take);
    if (!is_blank(rest.text)) take(rest.text, rest.place);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

request_lines::~request_lines() {
  ::close(file_);
}

std::string request_lines::text_of(const request_line& line) const {
  std::string text = read_at(file_, path_, line.place.offset, line.size);
  require(text.size() == line.size && std::hash<std::string_view>()(text) == line.hash,
          named(path_, line.place),
          ": is another line now: the file was changed while it was worked through");
  return text;
}

answer_lines::answer_lines(const std::filesystem::path& path, const request_lines& asked)
    : path_(path), lock_(path) {
  std::set<std::string> known;
  for (const request_line& line : asked.all()) known.insert(line.id);
  const last_line rest = for_each_line(
      lock_.descriptor(), path, [&](std::string_view line, line_place place) { take(line, place, known); });
  if (!rest.text.empty()) end_last_line(rest, known);
}

void answer_lines::take(std::string_view line, line_place place, const std::set<std::string>& known) {
  const std::string where = named(path_, place);
  const io::json parsed = parsed_line(line, where);
  const std::string id = id_of(parsed, where);
  require(known.contains(id), where, ": answers ", io::in_quotes(id), ", which the input does not ask");
  require(parsed.contains("answer") || parsed.contains("error"), where,
          R"(: has neither "answer" nor "error", so that it is no line of answers)");
  ids_.insert(id);
}

void answer_lines::end_last_line(const last_line& rest, const std::set<std::string>& known) {
  if (io::json::accept(rest.text)) {  // whole, of an editor that ends no last line
    take(rest.text, rest.place, known);
    return append("\n");
  }
  require(is_cut_answer(rest.text, known), named(path_, rest.place),
          ": the end of the file is no line of answers, and no part of one");
  require(::ftruncate(lock_.descriptor(), static_cast<off_t>(rest.place.offset)) == 0, path_.string(),
          ": cannot be written: ", io::errno_text(errno));
}

void answer_lines::add(const std::string& id, std::string_view name, std::string_view value) {
  append(beginning(id, name).append(value) + "}\n");
}

void answer_lines::append(std::string_view text) {
  const std::lock_guard guard(mutex_);
  const int file = lock_.descriptor();
  struct stat info {};
  require(::fstat(file, &info) == 0 && info.st_nlink > 0, path_.string(), ": was removed");
  const auto written = ::pwrite(file, text.data(), text.size(), info.st_size);
  const int problem = errno;
  // Half a line would become one with the next.
  if (written > 0 && written < static_cast<ssize_t>(text.size()))
    static_cast<void>(::ftruncate(file, info.st_size));
  require(written == static_cast<ssize_t>(text.size()), path_.string(),
          ": an answer could not be written: ", written < 0 ? io::errno_text(problem) : "no room");
}

}  // namespace corematching::driver
