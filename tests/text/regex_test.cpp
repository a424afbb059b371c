// SPDX-License-Identifier: Apache-2.0
#include <regex.h>  // has names in common with Oniguruma's header

#include "corematching/text/regex.hpp"

#include <gtest/gtest.h>

#include <random>

#include "corematching/core/error.hpp"
#include "corematching/text/pattern.hpp"
#include "corematching/text/unicode.hpp"

namespace corematching::text {
namespace {

std::vector<std::string> split_by(const std::string& expression, const std::string& text) {
  effort allowed(text.size());
  std::vector<std::string> parts;
  for (const piece& p : regex(expression, "f").split(text, allowed))
    parts.push_back((p.matched ? "+" : "-") + text.substr(p.begin, p.end - p.begin));
  return parts;
}

std::string regex_refusal(const std::string& expression, const std::string& text) {
  try {
    split_by(expression, text);
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

using parts = std::vector<std::string>;

TEST(regex, covers_the_text) {
  EXPECT_EQ(split_by("b+", "abbcb"), (parts{"-a", "+bb", "-c", "+b"}));
  EXPECT_EQ(split_by("b", ""), parts{});
  EXPECT_EQ(split_by("x", "abc"), parts{"-abc"});
  EXPECT_EQ(split_by("\\p{L}+", "\xc3\xa9t\xc3\xa9 1"), (parts{"+\xc3\xa9t\xc3\xa9", "- 1"}));
}

TEST(regex, moves_on_behind_empty_matches) {
  EXPECT_EQ(split_by("", "ab"), (parts{"+", "-a", "+", "-b", "+"}));
  EXPECT_EQ(split_by("b*", "abc"), (parts{"+", "-a", "+b", "-c", "+"}));
}

TEST(regex, refuses_what_is_no_expression) {
  EXPECT_EQ(regex_refusal("(a", "a"),
            "f: the expression \"(a\" cannot be compiled: end pattern with unmatched parenthesis");
  EXPECT_TRUE(
      regex_refusal(std::string(300, '(') + std::string(300, ')'), "a").starts_with("f: the expression"));
  EXPECT_EQ(regex_refusal(std::string(20000, 'a'), "a"),
            "f: an expression of 20000 bytes; at most 16384 are compiled");
}

TEST(regex, ends_where_a_text_would_take_it_years) {
  const std::string long_run(60, 'a');
  EXPECT_TRUE(regex_refusal("(a+)+b", long_run).ends_with("it takes too many steps"));
  EXPECT_TRUE(regex_refusal("(a|aa)+$b", long_run).ends_with("it takes too many steps"));
}

TEST(regex, ends_where_it_reads_ahead_without_going_back) {
  const std::string text(150'000, 'a');
  EXPECT_TRUE(regex_refusal("a(?=.*z)", text).ends_with("it takes too many steps"));
}

TEST(regex, takes_long_texts_and_long_matches) {
  const std::string text(1'000'000, ' ');
  EXPECT_EQ(split_by("\\s+(?!\\S)|\\s+", text).size(), 1U);
  EXPECT_EQ(split_by("x", text).size(), 1U);
}

/// Texts of what the expressions tell apart, and of anything else that tables of any age know.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> some = {"'s",
                                                "'T",
                                                "'re",
                                                "'VE",
                                                "'ll",
                                                "'lL",
                                                "'d",
                                                "'",
                                                "a",
                                                "Z",
                                                "\xc3\xa9",
                                                "\xe4\xb8\xad",
                                                "\xcc\x81",
                                                "1",
                                                "23",
                                                "4567",
                                                "\xc2\xb2",
                                                "\xd9\xa3",
                                                " ",
                                                "  ",
                                                "\n",
                                                "\r\n",
                                                "\t",
                                                "\xc2\xa0",
                                                "\xe3\x80\x80",
                                                "\xc2\x85",
                                                ".",
                                                "!?",
                                                "_",
                                                "$",
                                                "\xe2\x82\xac",
                                                "\xf0\x9f\x98\x80",
                                                "'\xc5\xbf",
                                                "\xe2\x84\xaa",
                                                "\xe2\x80\x8d",
                                                std::string(1, '\0'),
                                                "\x7f",
                                                "/"};
  std::string text;
  for (auto count = random() % 12; count-- > 0;) {
    if (random() % 8 != 0) {
      text += some[random() % some.size()];
      continue;
    }
    char32_t code = 0;  // Unicode 3.2 and older: blocks that are full, or were never filled
    do code = static_cast<char32_t>(random() % 0xffff);
    while (code < 0x20 || (code >= 0xd800 && code < 0xe000) || category_of(code) == UTF8PROC_CATEGORY_CN ||
           (code > 0x2ff && code < 0x4e00) || (code > 0x9fa5 && code < 0xac00));
    append_character(text, code);
  }
  return text;
}

TEST(known_splits, are_what_the_engine_makes_of_the_expressions) {
  std::mt19937 random(1);
  for (const std::string_view expression : {gpt2_expression, llama3_expression, qwen2_expression}) {
    const pattern known = pattern::of_expression(std::string(expression), "f");
    ASSERT_TRUE(known.known());
    const regex engine(std::string(expression), "f");
    for (int i = 0; i < 20000; ++i) {
      const std::string text = random_text(random);
      effort allowed(text.size());
      const auto ours = known.split(text, allowed), theirs = engine.split(text, allowed);
      const bool same = std::ranges::equal(ours, theirs, [](const piece& a, const piece& b) {
        return a.begin == b.begin && a.end == b.end && a.matched == b.matched;
      });
      ASSERT_TRUE(same) << io::in_quotes(text) << " by " << expression;
    }
  }
}

}  // namespace
}  // namespace corematching::text
