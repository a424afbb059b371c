// SPDX-License-Identifier: Apache-2.0
// `llava inspect`, as its users meet it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/driver_program.hpp"
#include "support/paths.hpp"

namespace corematching {
namespace {

using namespace test::driver;

test::program_result inspect(const std::filesystem::path& path) {
  return test::run_program(support::llava_program(), {"inspect", path.string()});
}

void expect_lines(const test::program_result& result, int exit_code, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  for (const std::string& part : parts)
    EXPECT_NE(result.out.find(part), std::string::npos) << "looked for: " << part << "\nin: " << result.out;
}

TEST(llava_inspect, says_what_a_checkpoint_holds) {
  expect_lines(inspect(demo()), 0,
               {"6 layers of ", "100 tokens of 80 x 80 pixels", "in F16", "tokenizer.json", "vicuna",
                "runs              yes, by names, types and shapes: numbers are not looked at\n"});
  expect_lines(inspect(data("tiny_window")), 0,
               {"each sees the last 24", "none: a text model", "--prompt-ids"});
}

TEST(llava_inspect, names_everything_that_is_wrong) {
  const model_copy model("tiny_mha");
  model.rewrite_weights([](io::named_tensor& t, auto&) {
    if (t.name.ends_with("layers.2.mlp.up_proj.weight")) t.name.clear();
  });
  model.replace_in_config("\"intermediate_size\": 176", "\"intermediate_size\": 160");
  std::ofstream(model.path() / "tokenizer.json") << "{";
  const auto result = inspect(model.path());
  expect_lines(result, 1,
               {"runs              no\n", "layers.2.mlp.up_proj.weight", "[176, 64]", "tokenizer.json"});
  EXPECT_EQ(result.err, "");
}

TEST(llava_inspect, says_why_there_is_nothing_to_run) {
  expect_lines(inspect(data("preprocess")), 1, {"config.json", "model.safetensors"});
  expect_refused(inspect("/nowhere"), {"/nowhere"});
  expect_lines(inspect(picture_path()), 1, {"runs              no\n", "picture_0.png"});
}

}  // namespace
}  // namespace corematching
