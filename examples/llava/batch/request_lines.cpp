// SPDX-License-Identifier: Apache-2.0
#include "llava/batch/request_lines.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "corematching/core/error.hpp"

namespace corematching::driver {
namespace {

/// Calls body(line, its number) for every line of `text` that ends, and returns what is behind the last one.
template <class Body>
std::string_view for_each_line(std::string_view text, const Body& body) {
  std::size_t number = 1;
  for (std::size_t end; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1), ++number)
    if (text.substr(0, end).find_first_not_of(" \t\r") != text.npos) body(text.substr(0, end), number);
  return text;
}

std::string_view text_of_file(const io::mapped_file& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// The "id" of a line.
std::string id_of(std::string_view line, const std::string& place) {
  const io::json parsed = io::parse_json(std::as_bytes(std::span(line)), place);
  const std::string id = io::json_object(parsed, place).string("id");
  require(!id.empty(), place, ": id is empty");
  return id;
}

}  // namespace

request_lines::request_lines(const std::filesystem::path& path) : file_(io::mapped_file::open(path)) {
  std::set<std::string> ids;
  const auto take = [&](std::string_view line, std::size_t number) {
    const std::string place = path.string() + ":" + std::to_string(number);
    lines_.push_back({id_of(line, place), line});
    require(ids.insert(lines_.back().id).second, place, ": another line has the id ",
            io::in_quotes(lines_.back().id));
  };
  std::size_t count = 1;
  const std::string_view rest =
      for_each_line(text_of_file(file_), [&](std::string_view line, std::size_t number) {
        take(line, number);
        count = number + 1;
      });
  if (rest.find_first_not_of(" \t\r") != rest.npos) take(rest, count);
}

answer_lines::answer_lines(const std::filesystem::path& path, const request_lines& asked)
    : path_(path), lock_(path) {
  std::set<std::string> known;
  for (const request_line& line : asked.all()) known.insert(line.id);
  const auto file = io::mapped_file::open(path);
  const std::string_view text = text_of_file(file);
  const std::string_view rest = for_each_line(text, [&](std::string_view line, std::size_t number) {
    const std::string place = path.string() + ":" + std::to_string(number);
    const std::string id = id_of(line, place);
    require(known.contains(id), place, ": answers ", io::in_quotes(id), ", which the input does not ask");
    ids_.insert(id);
  });
  if (!rest.empty()) std::filesystem::resize_file(path, text.size() - rest.size());
}

void answer_lines::add(const io::json& line) {
  const std::string text = io::json_text(line) + "\n";
  const std::lock_guard guard(mutex_);
  const int file = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  require(file >= 0, path_.string(), ": cannot be written: ", io::errno_text(errno));
  const off_t before = ::lseek(file, 0, SEEK_END);
  const auto written = ::write(file, text.data(), text.size());
  const int problem = errno;
  // Half a line would become one with the next.
  if (written > 0 && written < static_cast<ssize_t>(text.size()))
    static_cast<void>(::ftruncate(file, before));
  ::close(file);
  require(written == static_cast<ssize_t>(text.size()), path_.string(),
          ": an answer could not be written: ", written < 0 ? io::errno_text(problem) : "no room");
}

}  // namespace corematching::driver
