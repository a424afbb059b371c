// SPDX-License-Identifier: Apache-2.0
// `llava measure` as its users start it, on texts and questions that are stored.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/driver_program.hpp"
#include "support/paths.hpp"
#include "support/temporary_directory.hpp"

namespace corematching::test::driver {

using arguments = std::vector<std::string>;

inline std::string content_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class llava_measure : public testing::Test {
 protected:
  support::temporary_directory directory;
  fs::path json = directory.path() / "figures.json", state = directory.path() / "state.jsonl";
  fs::path sample = data("measure") / "text.txt";
  fs::path model = demo();

  test::program_result measure(const arguments& more) const {
    arguments all{"measure", "--model", model.string(), "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return test::run_program(support::llava_program(), all);
  }
  /// Figures of chunks of 64 tokens, the first half of each its prompt.
  io::json figures_of_text(arguments more) const {
    more.insert(more.begin(), {"--text", sample.string(), "--chunk", "64"});
    return figures(more);
  }
  io::json figures(arguments more) const {
    more.insert(more.end(), {"--json", json.string()});
    const auto result = measure(more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return result.exit_code == 0 ? io::json::parse(content_of(json)) : io::json();
  }

  /// Figures that tell how long something took differ from run to run.
  static io::json without_speed(io::json report) {
    for (io::json& run : report.at("runs")) run.erase("decode_tokens_per_second");
    return report;
  }
};

}  // namespace corematching::test::driver
