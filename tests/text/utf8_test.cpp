// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/utf8.hpp"

#include <gtest/gtest.h>

namespace corematching::text {
namespace {

const std::string bad(replacement_character);

TEST(utf8, keeps_what_is_whole) {
  const std::string text = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82";
  EXPECT_EQ(repaired(text), text);
  EXPECT_TRUE(is_whole(text));
  std::string again;
  for_each_character(text, [&](char32_t code, std::string_view) { append_character(again, code); });
  EXPECT_EQ(again, text);
  EXPECT_EQ(last_character(text).code, 0x1f642U);
}

// As from_utf8_lossy of Rust's standard library, whose documentation has the first one.
TEST(utf8, has_one_replacement_for_each_maximal_subpart) {
  EXPECT_EQ(repaired("Hello \xf0\x90\x80World"), "Hello " + bad + "World");
  EXPECT_EQ(repaired("\xff"), bad);
  EXPECT_EQ(repaired("\xc0\xaf"), bad + bad) << "overlong";
  EXPECT_EQ(repaired("\xed\xa0\x80"), bad + bad + bad) << "surrogate";
  EXPECT_EQ(repaired("\xf4\x90\x80\x80"), bad + bad + bad + bad) << "beyond U+10FFFF";
  EXPECT_EQ(repaired("\xe6\x97"), bad) << "cut off";
  EXPECT_EQ(repaired("\xe6\x97"
                     "a"),
            bad + "a");
  EXPECT_EQ(repaired("\x80\xf1\x80\x80\xe1\x80"), bad + bad + bad);
}

}  // namespace
}  // namespace corematching::text
