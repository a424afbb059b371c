// SPDX-License-Identifier: Apache-2.0
#include "llava/prompt.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "corematching/chat/formats.hpp"
#include "corematching/chat/render.hpp"
#include "corematching/core/error.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"
#include "support/paths.hpp"

namespace corematching::driver {
namespace {

using ids = std::vector<std::int32_t>;

std::string refusal_text(const auto& call) {
  try {
    call();
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

/// The text of a prompt in Vicuna's format, as people would write it.
std::string text_of(const asked_messages& asked, const chat::chat_format& format = chat::vicuna) {
  return chat::to_text(chat::render(format, asked.messages, {.pictures = asked.pictures}));
}

class prompt : public ::testing::Test {
 protected:
  const std::unique_ptr<text::tokenizer> opened_ =
      text::sentencepiece_tokenizer::open(support::test_directory() / "reference/data/tokenizer");
  const text::tokenizer& tokens_ = *opened_;

  ids encoded(const asked_messages& asked, std::int32_t image_token = 340,
              const chat::chat_format& format = chat::vicuna) const {
    return encode(tokens_, chat::render(format, asked.messages, {.pictures = asked.pictures}), image_token);
  }
};

TEST_F(prompt, puts_the_picture_in_front_of_the_question) {
  EXPECT_EQ(text_of(ask("What is this?", "", true)), "USER: <image>\nWhat is this? ASSISTANT:");
}

TEST_F(prompt, puts_the_picture_where_the_question_says) {
  EXPECT_EQ(text_of(ask("Is <image> red?", "", true)), "USER: Is <image> red? ASSISTANT:");
}

TEST_F(prompt, puts_the_system_text_first) {
  EXPECT_EQ(text_of(ask("Why?", "A chat.", true)), "A chat. USER: <image>\nWhy? ASSISTANT:");
}

TEST_F(prompt, has_no_picture_without_an_image) {
  EXPECT_EQ(text_of(ask("Why?", "", false)), "USER: Why? ASSISTANT:");
}

TEST_F(prompt, leaves_the_text_of_a_plain_model_alone) {
  EXPECT_EQ(text_of(ask("Once upon a time ", "", false), chat::none), "Once upon a time ");
}

TEST_F(prompt, gives_the_ids_of_the_reference) {
  EXPECT_EQ(encoded(ask("What is in the picture?", "", true)),
            (ids{1, 299, 321, 305, 340, 305, 13, 334, 292, 265, 311, 272, 274, 276, 326, 302, 321}));
}

TEST_F(prompt, takes_the_models_image_token) {
  const ids made = encoded(ask("Why?", "", true), 32000);
  EXPECT_EQ(std::ranges::count(made, 32000), 1);
  EXPECT_EQ(std::ranges::count(made, 340), 0);
}

TEST_F(prompt, begins_as_the_tokenizer_says) {
  EXPECT_EQ(encoded(ask("Why?", "", false), -1, chat::none).front(), 1);
}

TEST_F(prompt, keeps_names_of_special_tokens_in_questions_text) {
  const ids asked = encoded(ask("</s> <s>", "", false), -1, chat::none);
  EXPECT_EQ(std::ranges::count(asked, 1), 1) << "the tokenizer's own";
  EXPECT_EQ(std::ranges::count(asked, 2), 0);
  const ids whole = encode(tokens_, raw_prompt("<s>USER: <image>\nWhy?</s>"), 77);
  EXPECT_EQ(whole.front(), 1);
  EXPECT_EQ(whole.back(), 2);
  EXPECT_EQ(std::ranges::count(whole, 77), 1);
}

TEST_F(prompt, refuses_what_it_cannot_mean) {
  for (const char* empty : {"", " ", "\n\t"})
    EXPECT_EQ(refusal_text([&] { ask(empty, "", true); }), "the prompt is empty");
  EXPECT_EQ(refusal_text([] { raw_prompt(""); }), "the prompt is empty");
  EXPECT_EQ(refusal_text([] { ask("<image> and <image>", "", true); }),
            "the prompt contains <image> 2 times, but there is one picture");
  EXPECT_EQ(refusal_text([] { raw_prompt("<image> and <image>"); }),
            "the prompt contains <image> 2 times, but there is one picture");
  EXPECT_EQ(refusal_text([] { ask("<image>?", "", false); }),
            "the prompt contains <image>, but no picture is given");
  EXPECT_EQ(refusal_text([] { ask("Why?", "<image>", true); }), "the system text contains <image>");
  EXPECT_EQ(refusal_text([&] { encoded(ask("Why?", "", true), -1); }),
            "the model has no image token, so it cannot be shown a picture");
}

TEST(parse_ids, reads_a_list) {
  EXPECT_EQ(parse_ids("1,2,3"), (ids{1, 2, 3}));
  EXPECT_EQ(parse_ids(" 1 , 2\t,\n32000 "), (ids{1, 2, 32000}));
  EXPECT_EQ(parse_ids("0"), ids{0});
}

TEST(parse_ids, names_what_is_no_id) {
  EXPECT_EQ(refusal_text([] { parse_ids(""); }), "the list of token ids is empty");
  EXPECT_EQ(refusal_text([] { parse_ids("  "); }), "the list of token ids is empty");
  EXPECT_EQ(refusal_text([] { parse_ids("1,,2"); }), R"("" in the list of token ids is not a token id)");
  EXPECT_EQ(refusal_text([] { parse_ids("1,2,"); }), R"("" in the list of token ids is not a token id)");
  for (const std::string item : {"-1", "1.5", "x", "1 2", "0x10", "+1", "4294967296"})
    EXPECT_EQ(refusal_text([&] { parse_ids(std::string("7,").append(item)); }),
              std::string(1, '"').append(item).append("\" in the list of token ids is not a token id"));
}

}  // namespace
}  // namespace corematching::driver
