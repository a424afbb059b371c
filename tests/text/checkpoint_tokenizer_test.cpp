// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/checkpoint_tokenizer.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"
#include "support/paths.hpp"
#include "support/raw_gguf.hpp"
#include "support/temporary_directory.hpp"

namespace corematching::text {
namespace {

using ids = std::vector<token_id>;

/// A directory with whatever a test writes; gone after the test.
class checkpoint : public ::testing::Test {
 protected:
  void write(const char* name, std::string_view content) const { files_.write(name, content); }
  void write_tokenizer_json() const {
    write("tokenizer.json", R"({"added_tokens": [{"content": "<s>", "special": true}],
                                "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  }
  void copy_tokenizer_model() const {
    std::filesystem::copy_file(support::test_directory() / "reference/data/tokenizer/tokenizer.model",
                               directory_ / "tokenizer.model");
  }

  support::temporary_directory files_;
  const std::filesystem::path directory_ = files_.path();
};

TEST_F(checkpoint, has_no_tokenizer_where_there_is_no_file) {
  EXPECT_EQ(open_tokenizer(directory_, sentencepiece_tokenizer::open), nullptr);
}

TEST_F(checkpoint, takes_tokenizer_json_before_tokenizer_model) {
  copy_tokenizer_model();
  EXPECT_EQ(open_tokenizer(directory_, sentencepiece_tokenizer::open)->size(), 340);
  write_tokenizer_json();
  EXPECT_EQ(open_tokenizer(directory_, sentencepiece_tokenizer::open)->size(), 2);
  EXPECT_EQ(open_tokenizer(directory_)->name(), (directory_ / "tokenizer.json").string() + " (BPE)");
}

TEST_F(checkpoint, says_that_a_tokenizer_model_needs_sentencepiece) {
  copy_tokenizer_model();
  try {
    open_tokenizer(directory_);
    ADD_FAILURE();
  } catch (const error& problem) {
    EXPECT_EQ(problem.what(), (directory_ / "tokenizer.model").string() +
                                  ": needs SentencePiece, which this program was built without");
  }
}

TEST_F(checkpoint, takes_the_ends_from_either_configuration) {
  write_tokenizer_json();
  write("special_tokens_map.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "a"})");
  EXPECT_EQ(open_tokenizer(directory_)->frame().bos, 1);
  EXPECT_EQ(open_tokenizer(directory_)->frame().eos, 0);
  write("tokenizer_config.json", R"({"bos_token": null, "eos_token": "<s>", "add_bos_token": true})");
  EXPECT_EQ(open_tokenizer(directory_)->frame().eos, 1);
  EXPECT_EQ(open_tokenizer(directory_)->frame().prefix, ids{1});
}

TEST_F(checkpoint, opens_a_gguf_file) {
  const std::string bytes = test::raw_gguf()
                                .text("tokenizer.ggml.model", "gpt2")
                                .texts("tokenizer.ggml.tokens", {"a"})
                                .texts("tokenizer.ggml.merges", {})
                                .bytes();
  write("m.gguf", bytes);
  EXPECT_EQ(open_tokenizer(directory_ / "m.gguf")->encode("aa", special_tokens::are_text), (ids{0, 0}));
}

}  // namespace
}  // namespace corematching::text
