// SPDX-License-Identifier: Apache-2.0
// GGUF files in the driver, as its users meet them.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "support/driver_program.hpp"
#include "support/paths.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_gguf.hpp"

namespace corematching {
namespace {

using namespace test::driver;

/// A file without a tokenizer, in types that are moved.
class gguf_model_file : public testing::Test {
 protected:
  static std::string bytes(const char* architecture) {
    return support::tiny_gguf(architecture, support::gguf_config(),
                              {{"ffn_down", io::ggml_type::q6_k},
                               {"ffn_gate", io::ggml_type::q4_k},
                               {"ffn_up", io::ggml_type::q4_k},
                               {"token_embd", io::ggml_type::q8_0},
                               {"output.", io::ggml_type::q5_k}})
        .file.bytes();
  }
  test::program_result answered(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"--model", path.string(), "--prompt-ids", "3,1,60,7,12,9"});
    return run_llava(std::move(more), "8");
  }

  support::temporary_directory directory;
  std::filesystem::path path = directory.write("m.gguf", bytes("llama"));
};

TEST_F(gguf_model_file, answers_and_answers_alike_when_it_is_packed) {
  const auto from_file = answered();
  EXPECT_EQ(from_file.exit_code, 0) << from_file.err;
  EXPECT_FALSE(from_file.out.empty());
  const auto packing = test::run_program(support::llava_program(), {"pack", "--model", path.string()});
  EXPECT_EQ(packing.exit_code, 0) << packing.err;
  const auto packed = answered();
  EXPECT_EQ(packed.out, from_file.out);
  EXPECT_NE(packed.err.find("using " + path.string() + ".packed"), std::string::npos) << packed.err;
  const auto inspected = test::run_program(support::llava_program(), {"inspect", path.string()});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.out;
  EXPECT_NE(answered({"--stats"}).err.find("stored weights, "), std::string::npos);
  for (const char* part : {"version 3, ", "llama", " in Q4_K", "2 layers of 512 neurons", "m.gguf.packed",
                           "none: prompts are given as --prompt-ids", "runs              yes, by names"})
    EXPECT_NE(inspected.out.find(part), std::string::npos) << part << "\nin: " << inspected.out;
  expect_refused(answered({"--memory-limit", "1M"}),
                 {"--memory-limit: reads neurons one by one, and those of ", ".packed share scales"});
  directory.write("m.gguf", bytes("qwen2"));
  EXPECT_NE(answered().err.find("not used: "), std::string::npos);
}

TEST_F(gguf_model_file, is_packed_whatever_bytes_its_name_has) {
  const fs::path other = directory.path() / "n\xff.gguf";
  fs::rename(path, other);
  path = other;
  const auto packing = test::run_program(support::llava_program(), {"pack", "--model", path.string()});
  EXPECT_EQ(packing.exit_code, 0) << packing.err;
  const auto packed = answered();
  EXPECT_EQ(packed.exit_code, 0);
  EXPECT_NE(packed.err.find("using " + path.string() + ".packed"), std::string::npos) << packed.err;
}

TEST_F(gguf_model_file, is_converted_where_a_type_is_asked_for) {
  const auto answer = answered({"--weights", "f32"});
  EXPECT_EQ(answer.exit_code, 0) << answer.err;
  const auto packing =
      test::run_program(support::llava_program(), {"pack", "--model", path.string(), "--weights", "f32"});
  EXPECT_EQ(packing.exit_code, 0) << packing.err;
  const auto packed = answered({"--weights", "f32", "--memory-limit", "1G"});
  EXPECT_EQ(packed.out, answer.out) << packed.err;
}

TEST_F(gguf_model_file, foretells_neurons_from_planes_that_are_split_from_it) {
  const auto dense = answered({"--sparsity", "none"});
  const auto split = answered({"--weights", "q4_k_planes", "--sparsity", "none"});
  EXPECT_EQ(split.exit_code, 0) << split.err;
  EXPECT_EQ(split.out, dense.out);
  const std::vector<std::string> all{"--sparsity", "neurons", "--neurons", "predicted", "--beta", "1"};
  expect_refused(answered(all), {"--neurons: predicted needs weights in two planes", "q4_k_planes"});
  std::vector<std::string> planes = all;
  planes.insert(planes.end(), {"--weights", "q4_k_planes"});
  const auto foretold = answered(planes);
  EXPECT_EQ(foretold.exit_code, 0) << foretold.err;
  EXPECT_EQ(foretold.out, dense.out);
  const auto packing = test::run_program(support::llava_program(),
                                         {"pack", "--model", path.string(), "--weights", "q4_k_planes"});
  EXPECT_EQ(packing.exit_code, 0) << packing.err;
  const auto packed = answered(planes);
  EXPECT_EQ(packed.out, dense.out);
  EXPECT_NE(packed.err.find("using " + path.string() + "-q4_k_planes.packed"), std::string::npos)
      << packed.err;
  planes.insert(planes.end(), {"--memory-limit", "1M"});
  expect_refused(answered(planes),
                 {"--memory-limit: reads neurons one by one, and those of ", " share scales"});
  const std::string other = demo().string();
  const std::vector<std::string> said{"--weights: q4_k_planes are split from those of a GGUF file, which " +
                                      other};
  expect_refused(run_llava({"--model", other, "--weights", "q4_k_planes", "--prompt", "Hello"}, "1"), said);
  expect_refused(
      test::run_program(support::llava_program(), {"pack", "--model", other, "--weights", "q4_k_planes",
                                                   "--output", (directory.path() / "none.packed").string()}),
      said);
}

TEST_F(gguf_model_file, is_not_overwritten) {
  const auto part = directory.write("s-00002-of-00002.gguf", "the second of two");
  const auto first = directory.write("s-00001-of-00002.gguf", bytes("llama"));
  const auto text = directory.write("t.txt", "some text").string();
  const auto refused = [](const std::vector<std::string>& arguments, const std::filesystem::path& file) {
    expect_refused(test::run_program(support::llava_program(), arguments), {file.string()});
  };
  for (const auto& [model, output] : {std::pair(path, path), std::pair(first, part)}) {
    const auto size = std::filesystem::file_size(output);
    refused({"--model", model.string(), "--prompt-ids", "3", "--dump", output.string()}, output);
    refused({"measure", "--model", model.string(), "--text", text, "--json", output.string()}, output);
    refused({"calibrate", "--model", model.string(), "--text", text, "--output", output.string()}, output);
    EXPECT_EQ(std::filesystem::file_size(output), size);
  }
}

TEST_F(gguf_model_file, is_refused_in_one_line) {
  const auto other = directory.write("g.gguf", bytes("gemma3"));
  expect_refused(
      run_llava({"--model", other.string(), "--prompt-ids", "1"}),
      {other.string() + ": the architecture \"gemma3\" is not supported; llama, qwen2 and qwen3 are"});
  expect_refused(run_llava({"--model", path.string(), "--prompt", "hello"}), {"--prompt-ids"});
  expect_refused(answered({"--image", picture_path().string()}), {"a text model cannot look at a picture"});
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  expect_refused(answered(), {path.string(), "do not fit a file"});
}

}  // namespace
}  // namespace corematching
