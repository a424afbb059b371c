// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/render.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "corematching/chat/formats.hpp"
#include "support/error_text.hpp"

namespace {

using namespace corematching::chat;
using support::error_text;
using support::expect_parts;
using kind = segment_kind;
using segments = std::vector<segment>;

message from(role who, std::string text) {
  return {who, {std::move(text)}};
}

const message question{role::user, {"What?"}};
const message picture_question{role::user, {"What is", picture{.path = "a.png"}, "this?"}};

TEST(render, tells_markup_from_text_and_pictures) {
  const std::vector<message> messages{{role::user, {picture{}, "What?"}}};
  EXPECT_EQ(render(llava_1_5, messages), (segments{{kind::prefix},
                                                   {kind::markup, "USER: "},
                                                   {kind::picture},
                                                   {kind::markup, "\n"},
                                                   {kind::text, "What?"},
                                                   {kind::markup, " ASSISTANT:"}}));
  EXPECT_EQ(
      render(llama_2, std::vector{question}),
      (segments{{kind::bos}, {kind::markup, "[INST] "}, {kind::text, "What?"}, {kind::markup, " [/INST]"}}));
}

TEST(render, asks_a_single_question_of_llava_as_of_vicuna) {
  for (const auto& messages : {std::vector{question},
                               {from(role::system, "Be brief."), question},
                               {message{role::user, {picture{}, "What?"}}}})
    EXPECT_EQ(render(llava_1_5, messages), render(vicuna, messages));
}

TEST(render, puts_pictures_in_front_unless_they_stay_where_they_were_written) {
  const std::vector<message> messages{picture_question};
  EXPECT_EQ(to_text(render(vicuna, messages)), "USER: <image>\nWhat is\nthis? ASSISTANT:");
  EXPECT_EQ(to_text(render(llava_1_5, messages)), "USER: <image>\nWhat is this? ASSISTANT:");
  const render_options as_written{.pictures = picture_place::as_written};
  for (const chat_format* format : {&vicuna, &llava_1_5})
    EXPECT_EQ(to_text(render(*format, messages, as_written)), "USER: What is<image>this? ASSISTANT:");
}

TEST(render, leaves_the_prompt_away_where_no_answer_is_asked_for) {
  EXPECT_EQ(to_text(render(chatml, std::vector{question}, {.prompt = false})),
            "<|im_start|>user\nWhat?<|im_end|>\n");
}

TEST(render, sets_texts_after_each_other_without_a_format) {
  const std::vector<message> messages{from(role::system, "Be brief."), question};
  EXPECT_EQ(
      render(none, messages),
      (segments{{kind::prefix}, {kind::text, "Be brief."}, {kind::markup, " "}, {kind::text, "What?"}}));
  EXPECT_EQ(to_text(render_further(none, answer_end::missing, std::vector{question})), "What?");
}

TEST(render, takes_the_blanks_of_a_message_off_around_its_picture_only) {
  const std::vector<message> messages{{role::user, {picture{}, " What? "}}};
  EXPECT_EQ(to_text(render(llama_2, messages)), "<s>[INST] <image>\n What? [/INST]");
}

TEST(render, tells_today_unless_told_the_date) {
  expect_parts(to_text(render(llama_3_2, std::vector{question})), "Today Date: " + date_today() + "\n");
  expect_parts(to_text(render(llama_3_2, std::vector{question}, {.date = "01 Jan 2000"})),
               "Today Date: 01 Jan 2000\n");
  expect_parts(to_text(render(llama_3_1, std::vector{question})), "Today Date: 26 Jul 2024\n");
}

TEST(render, refuses_with_the_message_that_is_wrong) {
  const message answer = from(role::assistant, "That."), told = from(role::system, "Be brief.");
  const auto refusal = [](const chat_format& format, const std::vector<message>& messages) {
    return error_text([&] { render(format, messages); });
  };
  expect_parts(refusal(chatml, {}), "there are no messages");
  expect_parts(refusal(chatml, {told}), "no message but the system's");
  expect_parts(refusal(mistral_v0, {told, question}), "mistral-v0 has no place for a system text");
  expect_parts(refusal(llama_2, {question, question}),
               "messages[1], the user's, is out of turn: the chat format llama-2");
  expect_parts(refusal(llama_2, {told, answer}), "messages[1], the assistant's, is out of turn");
  expect_parts(refusal(llama_2, {question, told, question}),
               "messages[1], the system's, is not the first: the chat format llama-2");
  expect_parts(refusal(chatml, {question, {role::assistant, {picture{}}}}),
               "messages[1], the assistant's, holds a picture");
  expect_parts(refusal(chatml, {{role::system, {picture{}}}, question}),
               "messages[0], the system's, holds a picture");
}

TEST(render_further, ends_the_answer_before_as_far_as_it_is_not_ended) {
  const std::vector<message> next{question};
  const auto further = [&](const chat_format& format, answer_end end) {
    return to_text(render_further(format, end, next));
  };
  EXPECT_EQ(further(chatml, answer_end::missing),
            "<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(further(chatml, answer_end::read),
            "\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(further(llama_2, answer_end::missing), " </s><s>[INST] What? [/INST]");
  EXPECT_EQ(further(llama_2, answer_end::read), "<s>[INST] What? [/INST]");
  EXPECT_EQ(further(vicuna, answer_end::missing), "</s>USER: What? ASSISTANT:");
  EXPECT_EQ(further(vicuna, answer_end::read), "USER: What? ASSISTANT:");
  EXPECT_EQ(further(llava_1_5, answer_end::missing), " USER: What? ASSISTANT:");
  EXPECT_EQ(further(llava_1_5, answer_end::read), "USER: What? ASSISTANT:");
}

TEST(render_further, shows_further_pictures) {
  EXPECT_EQ(to_text(render_further(llava_1_5, answer_end::missing, std::vector{picture_question})),
            " USER: <image>\nWhat is this? ASSISTANT:");
}

TEST(render_further, refuses_what_does_not_follow_an_answer) {
  const auto refusal = [](const chat_format& format, const std::vector<message>& messages) {
    return error_text([&] { render_further(format, answer_end::missing, messages); });
  };
  expect_parts(refusal(chatml, {}), "there are no messages");
  expect_parts(refusal(chatml, {from(role::assistant, "That.")}), "the answer before messages[0]");
  expect_parts(refusal(llama_2, {from(role::system, "Be brief."), question}),
               "messages[0], the system's, is not the first");
}

TEST(format_of, knows_every_name_and_lists_them_for_others) {
  for (const chat_format* format : formats) EXPECT_EQ(&format_of(format->name), format);
  expect_parts(error_text([] { format_of("alpaca"); }), "'alpaca'", format_names(), "llava-1.5, vicuna, ",
               ", none");
}

}  // namespace
