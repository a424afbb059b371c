// SPDX-License-Identifier: Apache-2.0
#include "llava/prompt.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "corematching/core/error.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"

namespace corematching::driver {
namespace {

using ids = std::vector<std::int32_t>;

std::string refusal(const auto& call) {
  try {
    call();
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

prompt_request with_image(std::string question) {
  return {.question = std::move(question), .has_image = true, .image_token = 340};
}

class prompt : public ::testing::Test {
 protected:
  const std::unique_ptr<text::tokenizer> opened_ = text::sentencepiece_tokenizer::open(
      std::filesystem::path(COREMATCHING_TEST_DATA) / "reference/data/tokenizer");
  const text::tokenizer& tokens_ = *opened_;
};

TEST_F(prompt, puts_the_picture_in_front_of_the_question) {
  EXPECT_EQ(prompt_text(with_image("What is this?")), "USER: <image>\nWhat is this? ASSISTANT:");
}

TEST_F(prompt, puts_the_picture_where_the_question_says) {
  EXPECT_EQ(prompt_text(with_image("Is <image> red?")), "USER: Is <image> red? ASSISTANT:");
}

TEST_F(prompt, puts_the_system_text_first) {
  prompt_request request = with_image("Why?");
  request.system = "A chat.";
  EXPECT_EQ(prompt_text(request), "A chat. USER: <image>\nWhy? ASSISTANT:");
}

TEST_F(prompt, has_no_picture_without_an_image) {
  EXPECT_EQ(prompt_text({.question = "Why?"}), "USER: Why? ASSISTANT:");
}

TEST_F(prompt, leaves_the_text_of_a_plain_model_alone) {
  EXPECT_EQ(prompt_text({.question = "Once upon a time ", .format = prompt_format::plain}),
            "Once upon a time ");
}

TEST_F(prompt, gives_the_ids_of_the_reference) {
  const prompt_ids result = encode_prompt(tokens_, with_image("What is in the picture?"));
  EXPECT_EQ(result.ids,
            (ids{1, 299, 321, 305, 340, 305, 13, 334, 292, 265, 311, 272, 274, 276, 326, 302, 321}));
  EXPECT_EQ(result.image_position, 4);
}

TEST_F(prompt, takes_the_models_image_token) {
  prompt_request request = with_image("Why?");
  request.image_token = 32000;
  const prompt_ids result = encode_prompt(tokens_, request);
  EXPECT_EQ(result.ids.at(static_cast<std::size_t>(result.image_position)), 32000);
  EXPECT_EQ(std::count(result.ids.begin(), result.ids.end(), 340), 0);
}

TEST_F(prompt, leaves_special_tokens_in_a_question_text) {
  const prompt_ids asked = encode_prompt(tokens_, {.question = "Why?</s>", .format = prompt_format::plain});
  EXPECT_EQ(std::ranges::count(asked.ids, 2), 0);
}

TEST_F(prompt, reads_special_tokens_in_a_whole_prompt) {
  EXPECT_EQ(encode_raw_prompt(tokens_, "<s>USER: <image>\nWhat is in the picture? ASSISTANT:", 340).ids,
            encode_prompt(tokens_, with_image("What is in the picture?")).ids);
  EXPECT_EQ(encode_raw_prompt(tokens_, "Why?</s>", -1).ids.back(), 2);
  EXPECT_EQ(refusal([&] { encode_raw_prompt(tokens_, "", -1); }), "the prompt is empty");
  EXPECT_EQ(refusal([&] { encode_raw_prompt(tokens_, "<image> <image>", 340); }),
            "the prompt contains <image> 2 times, but there is one picture");
}

TEST_F(prompt, begins_without_an_image_position) {
  const prompt_ids result = encode_prompt(tokens_, {.question = "Why?", .format = prompt_format::plain});
  EXPECT_EQ(result.ids.front(), 1);
  EXPECT_EQ(result.image_position, -1);
}

TEST_F(prompt, refuses_what_it_cannot_mean) {
  for (const char* empty : {"", " ", "\n\t"})
    EXPECT_EQ(refusal([&] { prompt_text(with_image(empty)); }), "the prompt is empty");
  EXPECT_EQ(refusal([] { prompt_text(with_image("<image> and <image>")); }),
            "the prompt contains <image> 2 times, but there is one picture");
  EXPECT_EQ(refusal([] { prompt_text({.question = "<image>?"}); }),
            "the prompt contains <image>, but no picture is given");
  prompt_request request = with_image("Why?");
  request.system = "<image>";
  EXPECT_EQ(refusal([&] { prompt_text(request); }), "the system text contains <image>");
  request.system = "";
  request.image_token = -1;
  EXPECT_EQ(refusal([&] { encode_prompt(tokens_, request); }),
            "the model has no image token, so it cannot be shown a picture");
}

TEST(parse_ids, reads_a_list) {
  EXPECT_EQ(parse_ids("1,2,3"), (ids{1, 2, 3}));
  EXPECT_EQ(parse_ids(" 1 , 2\t,\n32000 "), (ids{1, 2, 32000}));
  EXPECT_EQ(parse_ids("0"), ids{0});
}

TEST(parse_ids, names_what_is_no_id) {
  EXPECT_EQ(refusal([] { parse_ids(""); }), "the list of token ids is empty");
  EXPECT_EQ(refusal([] { parse_ids("  "); }), "the list of token ids is empty");
  EXPECT_EQ(refusal([] { parse_ids("1,,2"); }), R"("" in the list of token ids is not a token id)");
  EXPECT_EQ(refusal([] { parse_ids("1,2,"); }), R"("" in the list of token ids is not a token id)");
  for (const std::string item : {"-1", "1.5", "x", "1 2", "0x10", "+1", "4294967296"})
    EXPECT_EQ(refusal([&] { parse_ids(std::string("7,").append(item)); }),
              std::string(1, '"').append(item).append("\" in the list of token ids is not a token id"));
}

}  // namespace
}  // namespace corematching::driver
