// SPDX-License-Identifier: Apache-2.0
// Runs a program as a user's shell would and keeps what it says.
#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/temporary_directory.hpp"

namespace corematching::test {

struct program_result {
  int exit_code = -1;  // -1: killed by a signal
  std::string out;
  std::string err;
};

/// `argument` as one word of a shell's command line.
inline std::string shell_word(std::string_view argument) {
  std::string text(1, '\'');
  for (const char c : argument) {
    if (c == '\'') {
      text.append("'\\''");
    } else {
      text.push_back(c);
    }
  }
  text.push_back('\'');
  return text;
}

/// Runs `program` with `arguments`, no terminal on any side.
inline program_result run_program(const std::string& program, const std::vector<std::string>& arguments) {
  const support::temporary_directory directory;
  const auto err = directory.path() / "stderr";
  std::string command = "exec " + shell_word(program);  // without a process of the shell's in between
  for (const std::string& argument : arguments) command.append(" ").append(shell_word(argument));
  command.append(" 2>").append(shell_word(err.string())).append(" </dev/null");
  program_result result;
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> block{};
  for (std::size_t got; (got = std::fread(block.data(), 1, block.size(), pipe)) > 0;)
    result.out.append(block.data(), got);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  std::ostringstream text;
  text << std::ifstream(err).rdbuf();
  result.err = text.str();
  return result;
}

}  // namespace corematching::test
