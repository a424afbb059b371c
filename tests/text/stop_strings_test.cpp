// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/stop_strings.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support/error_text.hpp"

namespace corematching::text {
namespace {

/// What is shown of pieces, up to the end of the answer.
std::string shown(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  stop_strings stop(stops);
  std::string text;
  for (const std::string& piece : pieces) text += stop.push(piece);
  return text + stop.finish();
}

std::vector<std::string> letters(const std::string& text) {
  std::vector<std::string> result;
  for (const char c : text) result.emplace_back(1, c);
  return result;
}

TEST(stop_strings, end_the_answer_in_front_of_them_however_it_is_cut) {
  const std::vector<std::string> stops{"USER:", "\n\n", "ER"};
  for (const auto& [answer, expected] :
       std::vector<std::pair<std::string, std::string>>{{"Two stars.", "Two stars."},
                                                        {"Two stars.\n\nUSER: and?", "Two stars."},
                                                        {"One.\nUSE: Two.", "One.\nUSE: Two."},
                                                        {"ends with US", "ends with US"},
                                                        {"THE RIVER", "THE RIV"},
                                                        {"USER:", "US"},
                                                        {"", ""}}) {
    EXPECT_EQ(shown(stops, {answer}), expected);
    EXPECT_EQ(shown(stops, letters(answer)), expected);
  }
}

TEST(stop_strings, prefer_the_longer_of_two_that_are_complete_at_once) {
  for (const auto& stops : {std::vector<std::string>{"b", "ab"}, {"ab", "b"}}) {
    EXPECT_EQ(shown(stops, {"xab"}), "x");
    EXPECT_EQ(shown(stops, letters("xab")), "x");
  }
}

TEST(stop_strings, hold_back_no_more_than_may_become_one) {
  stop_strings stop({"</s>", "aab"});
  EXPECT_EQ(stop.push("yes <"), "yes ");
  EXPECT_EQ(stop.push("/"), "");
  EXPECT_EQ(stop.push("p>"), "</p>");
  EXPECT_EQ(stop.push("aaa"), "a");
  EXPECT_FALSE(stop.found());
  EXPECT_EQ(stop.push("b and more"), "");
  EXPECT_TRUE(stop.found());
  EXPECT_EQ(stop.push("nothing"), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(stop_strings, are_none_by_default_and_never_empty) {
  EXPECT_EQ(shown({}, {"a", "", "b"}), "ab");
  support::expect_parts(support::error_text([] { stop_strings({"x", ""}); }), "stop string is empty");
}

}  // namespace
}  // namespace corematching::text
