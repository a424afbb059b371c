// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/base64.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "support/error_text.hpp"

namespace {

using corematching::io::decode_base64;
using support::error_text;
using support::expect_parts;

std::string decoded(std::string_view text) {
  std::string characters;
  for (const std::byte value : decode_base64(text)) characters += static_cast<char>(value);
  return characters;
}

TEST(decode_base64, decodes_the_examples_of_the_standard) {
  EXPECT_EQ(decoded(""), "");
  EXPECT_EQ(decoded("Zg=="), "f");
  EXPECT_EQ(decoded("Zm8="), "fo");
  EXPECT_EQ(decoded("Zm9v"), "foo");
  EXPECT_EQ(decoded("Zm9vYg=="), "foob");
  EXPECT_EQ(decoded("Zm9vYmE="), "fooba");
  EXPECT_EQ(decoded("Zm9vYmFy"), "foobar");
  EXPECT_EQ(decoded("+/+/AP8="), std::string("\xfb\xff\xbf\x00\xff", 5));
}

TEST(decode_base64, says_where_a_text_is_none) {
  expect_parts(error_text([] { decoded("Zm9"); }), "length of 3");
  expect_parts(error_text([] { decoded("Zm9v\nZg="); }), "character 4");
  expect_parts(error_text([] { decoded("Zm-_"); }), "character 2");
  expect_parts(error_text([] { decoded("Zg==Zg=="); }), "character 2");
  expect_parts(error_text([] { decoded("===="); }), "character 0");
  expect_parts(error_text([] { decoded("Zh=="); }), "bits that belong to no byte");
  expect_parts(error_text([] { decoded("Zm9="); }), "bits that belong to no byte");
}

}  // namespace
