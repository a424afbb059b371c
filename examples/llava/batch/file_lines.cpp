// SPDX-License-Identifier: Apache-2.0
#include "llava/batch/file_lines.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::driver {

std::string read_at(int file, const std::filesystem::path& path, std::uint64_t offset, std::size_t size) {
  std::string text(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const auto got = ::pread(file, text.data() + have, size - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    require(got >= 0, path.string(), ": cannot be read: ", io::errno_text(errno));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  text.resize(have);
  return text;
}

last_line for_each_line(int file, const std::filesystem::path& path,
                        const std::function<void(std::string_view, line_place)>& body) {
  struct stat info {};
  require(::fstat(file, &info) == 0 && S_ISREG(info.st_mode), path.string(), ": not a regular file");
  constexpr std::size_t at_once = std::size_t{1} << 20;
  std::string held;      // from the line at `place` on
  std::size_t seen = 0;  // so much of it has no end of a line
  line_place place;
  for (;;) {
    std::string more = read_at(file, path, place.offset + held.size(), at_once);
    if (more.empty()) return {std::move(held), place};
    held += more;
    std::size_t begin = 0;
    for (std::size_t end; (end = held.find('\n', seen)) != held.npos; begin = seen = end + 1) {
      const std::string_view line = std::string_view(held).substr(begin, end - begin);
      if (!is_blank(line)) body(line, place);
      place.offset += line.size() + 1;
      ++place.number;
    }
    held.erase(0, begin);
    seen = held.size();
  }
}

}  // namespace corematching::driver
