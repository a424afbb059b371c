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
#include <vector>

#include "support/temporary_directory.hpp"

namespace corematching::testing {

struct program_result {
  int exit_code = -1;  // -1: killed by a signal
  std::string out;
  std::string err;
};

inline std::string quoted(const std::string& argument) {
  std::string text = "'";
  for (const char c : argument) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

/// Runs `program` with `arguments`, no terminal on any side.
inline program_result run_program(const std::string& program, const std::vector<std::string>& arguments) {
  const support::temporary_directory directory;
  const auto err = directory.path() / "stderr";
  std::string command = quoted(program);
  for (const std::string& argument : arguments) command += " " + quoted(argument);
  command += " 2>" + quoted(err.string()) + " </dev/null";
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

}  // namespace corematching::testing
