// SPDX-License-Identifier: Apache-2.0
// The driver as its tests start it, and models that they may damage.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/safetensors.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "support/paths.hpp"
#include "support/reference_run.hpp"
#include "support/run_program.hpp"

namespace corematching::test::driver {

namespace fs = std::filesystem;

inline const std::string ids = "1,182,235,220,129,250,235,244,242,22,115,153,72";  // 250 is the image token
inline const std::string text_ids = "1,182,235,220,129,235,244";

inline fs::path data(const std::string& name) {
  return test::reference_directory(name);
}
inline fs::path demo() {
  return support::source_directory() / "models" / "demo";
}
inline fs::path picture_path() {
  return data("tiny_mha") / "picture_0.png";
}

/// Nothing is left out unless the arguments say what is.
inline program_result run_llava(std::vector<std::string> arguments, const std::string& new_tokens = "4") {
  constexpr auto says_what = [](const std::string& argument) {
    return argument == "--sparsity" || argument == "--thin" || argument == "--preset";
  };
  if (std::ranges::none_of(arguments, says_what)) arguments.insert(arguments.end(), {"--preset", "dense"});
  arguments.insert(arguments.end(), {"--threads", "1", "--max-new-tokens", new_tokens});
  return test::run_program(support::llava_program(), arguments);
}

inline program_result ask(const fs::path& model, const fs::path& image, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"--model", model.string(), "--image", image.string(), "--prompt-ids", ids});
  return run_llava(std::move(more));
}

/// One line on stderr that holds every part; nothing on stdout; a failing exit code that is not a signal's.
inline void expect_refused(const program_result& result, const std::vector<std::string>& parts) {
  EXPECT_GT(result.exit_code, 0) << result.err;
  EXPECT_LT(result.exit_code, 128) << result.err;
  EXPECT_EQ(result.out, "");
  for (const std::string& part : parts)
    EXPECT_NE(result.err.find(part), std::string::npos) << "looked for: " << part << "\nin: " << result.err;
  EXPECT_LE(std::ranges::count(result.err, '\n'), 2) << result.err;
}

/// A copy of a model's directory that a test may damage.
class model_copy {
 public:
  explicit model_copy(const std::string& name) {
    const fs::path from = name == "demo" ? demo() : data(name);
    for (const char* file : {"config.json", "preprocessor_config.json", "model.safetensors",
                             "tokenizer.model", "tokenizer_config.json"})
      if (fs::exists(from / file)) fs::copy(from / file, path() / file);
  }
  fs::path path() const { return directory_.path(); }
  fs::path weights() const { return path() / "model.safetensors"; }

  void replace_in_config(const std::string& from, const std::string& to) const {
    std::ifstream in(path() / "config.json");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    std::ofstream(path() / "config.json") << text;
  }

  /// Writes the weights again, each tensor as change(tensor) wants it; a tensor with an empty name is left
  /// out.
  template <class Change>
  void rewrite_weights(Change change) const {
    const auto file = io::checkpoint::open(path());
    std::vector<std::vector<std::byte>> contents;
    std::vector<io::named_tensor> tensors;
    contents.reserve(file.size());
    for (const auto name : file.names()) {
      const io::tensor& from = file.at(name);
      contents.emplace_back(from.bytes.begin(), from.bytes.end());
      io::named_tensor to{from.name, from.type, from.shape, contents.back()};
      change(to, contents.back());
      to.bytes = contents.back();
      if (!to.name.empty()) tensors.push_back(to);
    }
    io::write_safetensors(weights(), tensors);
  }

 private:
  support::temporary_directory directory_;
};

}  // namespace corematching::test::driver
