// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/llama/word_embeddings.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "corematching/io/safetensors_writer.hpp"
#include "corematching/model/llama/llama.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

/// Values of a tensor, of which a checkpoint has an embedding, a head, or both.
using matrix = std::vector<float>;
const matrix none{}, some{1, 2}, others{1, 3};

word_embeddings stored(bool tied, const matrix& embedding, const matrix& head, const std::string& of = "") {
  const support::temporary_directory directory;
  std::vector<io::named_tensor> tensors;
  const matrix norm{1};
  const auto add = [&](const std::string& name, const matrix& values) {
    if (!values.empty()) tensors.push_back(io::as_tensor(of + name, {std::ssize(values)}, values));
  };
  add("model.norm.weight", norm);
  add("model.embed_tokens.weight", embedding);
  add("lm_head.weight", head);
  io::write_safetensors(directory.path() / "model.safetensors", tensors);
  llama_config config;
  config.tie_word_embeddings = tied;
  return stored_word_embeddings(config, io::checkpoint::open(directory.path()));
}

TEST(stored_word_embeddings, are_as_config_json_says_where_both_agree) {
  const auto apart = stored(false, some, others);
  EXPECT_EQ(apart.embedding, "model.embed_tokens.weight");
  EXPECT_EQ(apart.head, "lm_head.weight");
  EXPECT_EQ(apart.notice, "");
  EXPECT_FALSE(stored(false, some, some).tied());
  for (const word_embeddings& one : {stored(true, some, none), stored(true, some, some)}) {
    EXPECT_TRUE(one.tied());
    EXPECT_EQ(one.embedding, "model.embed_tokens.weight");
    EXPECT_EQ(one.notice, "");
  }
}

TEST(stored_word_embeddings, are_two_where_two_that_differ_are_stored) {
  const auto found = stored(true, some, others);
  EXPECT_FALSE(found.tied());
  support::expect_parts(found.notice, "tie_word_embeddings is true in config.json, but ", "lm_head.weight",
                        "not tied");
}

TEST(stored_word_embeddings, stand_for_each_other_where_one_is_stored) {
  const auto head_alone = stored(true, none, some, "language_model.");
  EXPECT_EQ(head_alone.embedding, "language_model.lm_head.weight");
  EXPECT_TRUE(head_alone.tied());
  EXPECT_EQ(head_alone.notice, "");
  const auto no_head = stored(false, some, none);
  EXPECT_EQ(no_head.head, "model.embed_tokens.weight");
  support::expect_parts(no_head.notice, "tie_word_embeddings is false in config.json, but ",
                        "lm_head.weight is not stored");
}

TEST(stored_word_embeddings, are_named_where_neither_is_stored) {
  const auto missing = stored(true, none, none);
  EXPECT_EQ(missing.embedding, "model.embed_tokens.weight");
  EXPECT_EQ(missing.head, "lm_head.weight");
}

using tiny = support::tiny_llama<support::test_backend>;

std::vector<float> logits_of(tiny&& model) {
  auto sequence = model.model.start(model.be, 4);
  return model.model.decode(model.be, sequence, 3);
}

TEST(llama, computes_with_the_embeddings_that_are_stored_whatever_config_json_says) {
  const llama_config apart = support::tiny_config();
  llama_config tied = apart;
  tied.tie_word_embeddings = true;
  const auto both = support::random_tensors(apart, 1);
  EXPECT_FALSE(tiny(tied, both).model.config().tie_word_embeddings);
  EXPECT_EQ(logits_of({tied, both}), logits_of({apart, both}));

  auto one = both;
  one.at("lm_head.weight") = one.at("model.embed_tokens.weight");
  const std::vector<float> expected = logits_of({apart, one});
  for (const char* missing : {"lm_head.weight", "model.embed_tokens.weight"}) {
    auto stored = one;
    stored.erase(missing);
    for (const llama_config& said : {tied, apart}) {
      EXPECT_TRUE(tiny(said, stored).model.config().tie_word_embeddings);
      EXPECT_EQ(logits_of({said, stored}), expected) << missing;
    }
  }
}

}  // namespace
}  // namespace corematching
