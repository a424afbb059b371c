// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/thought.hpp"

#include <gtest/gtest.h>

#include <string_view>

namespace {

using corematching::chat::taken_apart;
using corematching::chat::thinking_answer;
using corematching::chat::thought_markup;

constexpr thought_markup markup{"<think>", "</think>"};

void expect_apart(std::string_view text, std::string_view thought, std::string_view answer) {
  const thinking_answer parts = taken_apart(text, markup);
  EXPECT_EQ(parts.thought, thought) << text;
  EXPECT_EQ(parts.answer, answer) << text;
}

TEST(thinking_answers, are_taken_apart_without_the_line_feeds_between) {
  expect_apart("<think>\nA cat?\n\nYes.\n</think>\n\nA cat.\n", "A cat?\n\nYes.", "A cat.\n");
  expect_apart("<think>\n\n</think>\n\nA cat.", "", "A cat.");
  expect_apart("A cat?</think>A cat.", "A cat?", "A cat.");
  expect_apart("</think>", "", "");
}

TEST(thinking_answers, are_all_answer_where_no_thought_ends) {
  expect_apart("", "", "");
  expect_apart("\nA cat.\n", "", "\nA cat.\n");
  expect_apart("<think>\nA cat", "", "<think>\nA cat");
}

TEST(thinking_answers, answer_behind_the_last_end_and_think_before_the_first) {
  expect_apart("a<think>b<think>c</think>d</think>e", "c", "e");
}

}  // namespace
