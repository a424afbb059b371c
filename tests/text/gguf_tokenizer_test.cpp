// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/gguf_tokenizer.hpp"

#include <gtest/gtest.h>

#include <string>

#include "corematching/core/error.hpp"
#include "support/raw_gguf.hpp"

namespace corematching::text {
namespace {

using ids = std::vector<token_id>;
using test::bytes_of;
using test::raw_gguf;

std::unique_ptr<pipeline_tokenizer> tokens_of(const raw_gguf& file) {
  const std::string bytes = file.bytes();
  return read_gguf_tokenizer(io::gguf_metadata::parse(bytes_of(bytes), "f.gguf"));
}

std::string refusal(const raw_gguf& file) {
  try {
    tokens_of(file);
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

/// Tokens 0 to 9: <unk>, <s>, ▁, a, b, c, ab, bc, ▁a, and <0x21>.
raw_gguf sentencepiece_file() {
  raw_gguf file;
  file.text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "▁", "a", "b", "c", "ab", "bc", "▁a", "<0x21>"})
      .floats("tokenizer.ggml.scores", {0, 0, -9, -9, -9, -9, -2, -1, -3, 0})
      .integers("tokenizer.ggml.token_type", {2, 3, 1, 1, 1, 1, 1, 1, 1, 6})
      .integer("tokenizer.ggml.unknown_token_id", 0)
      .integer("tokenizer.ggml.bos_token_id", 1);
  return file;
}

TEST(gguf_tokenizer, merges_the_piece_with_the_best_score_first) {
  const auto tokens = tokens_of(sentencepiece_file());
  EXPECT_EQ(tokens->encode("abc", special_tokens::are_text), (ids{8, 7})) << "bc, then the space and a";
  EXPECT_EQ(tokens->encode("ab", special_tokens::are_text), (ids{2, 6}));
  EXPECT_EQ(tokens->encode("!z", special_tokens::are_text), (ids{2, 9, 0})) << "a byte's token, and none";
  EXPECT_EQ(tokens->encode("<s>a", special_tokens::are_tokens), (ids{1, 8}));
  EXPECT_EQ(tokens->frame().prefix, ids{1});
  EXPECT_EQ(tokens->decode(ids{1, 8, 7, 9}), "abc!");
}

TEST(gguf_tokenizer, puts_no_space_in_front_where_the_file_says_so) {
  const auto tokens = tokens_of(sentencepiece_file().boolean("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(tokens->encode("a a", special_tokens::are_text), (ids{3, 8}));
}

/// Tokens 0 to 7: <s>, h, i, hi, Ġ, Ġhi, 1, hi1.
raw_gguf byte_level_file(const char* pre) {
  raw_gguf file;
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", pre)
      .texts("tokenizer.ggml.tokens", {"<s>", "h", "i", "hi", "Ġ", "Ġhi", "1", "hi1"})
      .integers("tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 1, 1, 1})
      .texts("tokenizer.ggml.merges", {"h i", "Ġ hi", "hi 1"})
      .integer("tokenizer.ggml.bos_token_id", 0);
  return file;
}

TEST(gguf_tokenizer, cuts_as_the_name_says) {
  for (const char* pre : {"llama-bpe", "tekken", "qwen2", "smollm", "gpt-2", "default"}) {
    const auto tokens = tokens_of(byte_level_file(pre));
    EXPECT_EQ(tokens->encode("hi hi1<s>", special_tokens::are_tokens), (ids{3, 5, 6, 0})) << pre;
    EXPECT_EQ(tokens->decode(ids{3, 5, 6, 0}), "hi hi1") << pre;
  }
}

TEST(gguf_tokenizer, knows_which_models_begin_with_a_token) {
  EXPECT_EQ(tokens_of(byte_level_file("llama-bpe"))->frame().prefix, ids{0});
  EXPECT_EQ(tokens_of(byte_level_file("qwen2"))->frame().prefix, ids{});
  EXPECT_EQ(tokens_of(byte_level_file("qwen2").boolean("tokenizer.ggml.add_bos_token", true))->frame().prefix,
            ids{0});
}

TEST(gguf_tokenizer, names_what_it_does_not_know) {
  EXPECT_EQ(refusal(raw_gguf().text("tokenizer.ggml.model", "bert")),
            "f.gguf: the tokenizer model \"bert\" is not supported; llama and gpt2 are");
  EXPECT_TRUE(
      refusal(byte_level_file("odd")).starts_with("f.gguf: the pre-tokenizer \"odd\" is not supported"));
  EXPECT_EQ(refusal(raw_gguf()), "f.gguf: tokenizer.ggml.model is missing");
  EXPECT_EQ(refusal(raw_gguf()
                        .text("tokenizer.ggml.model", "llama")
                        .texts("tokenizer.ggml.tokens", {"a"})
                        .floats("tokenizer.ggml.scores", {})),
            "f.gguf: tokenizer.ggml.scores has 0 values for 1 tokens");
}

}  // namespace
}  // namespace corematching::text
