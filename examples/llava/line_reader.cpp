// SPDX-License-Identifier: Apache-2.0
#include "llava/line_reader.hpp"

#include <editline/readline.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "corematching/core/error.hpp"

namespace corematching::driver {

line_reader::line_reader() : terminal_(isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {}

std::optional<std::string> line_reader::next() {
  for (;;) {
    const std::optional<std::string> line = next_line();
    if (!line || line->find_first_not_of(" \t\r\n\v\f") != line->npos) return line;
  }
}

std::optional<std::string> line_reader::next_line() {
  if (!terminal_) {
    std::string line;
    if (std::getline(std::cin, line)) return line;
    require(std::ferror(stdin) == 0, "standard input cannot be read");  // which std::cin reads
    return std::nullopt;
  }
  const auto release = [](char* memory) { std::free(memory); };
  const std::unique_ptr<char, decltype(release)> typed(readline("> "), release);
  if (!typed) {
    std::cout << '\n' << std::flush;  // the line of the prompt ends with the conversation
    return std::nullopt;
  }
  if (*typed != '\0') add_history(typed.get());
  return std::string(typed.get());
}

}  // namespace corematching::driver
