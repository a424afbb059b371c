// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/json.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "io/raw_safetensors.hpp"
#include "support/error_text.hpp"

namespace {

using corematching::io::as_utf8;
using corematching::io::in_quotes;
using corematching::io::json;
using corematching::io::json_object;
using corematching::io::max_json_depth;
using corematching::io::parse_json;
using support::bytes_of;
using support::error_text;
using support::expect_parts;

json parse(std::string_view text) {
  return parse_json(bytes_of(text), "some.json");
}

std::string refusal(std::string_view text) {
  return error_text([&] { parse(text); });
}

std::string nested(std::size_t depth, const std::string& open, const std::string& inner,
                   const std::string& close) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += open;
  text += inner;
  for (std::size_t i = 0; i < depth; ++i) text += close;
  return text;
}

TEST(parse_json, reads_strict_json) {
  EXPECT_EQ(parse(R"({"a": [1, 2.5, null, true, "x"]})"), json({{"a", {1, 2.5, nullptr, true, "x"}}}));
}

TEST(parse_json, names_file_and_offset_of_a_syntax_error) {
  for (const char* text : {"", "{", "{\"a\" 1}", "[1,]", "nul", "{} x", "{'a': 1}", "[Infinity]", "\"\xff\""})
    expect_parts(refusal(text), "some.json: not valid JSON at byte ");
}

TEST(parse_json, does_not_take_a_nul_byte_for_the_end) {
  expect_parts(refusal(std::string_view("{}\0{\"hidden\": 1}", 16)), "some.json", "NUL byte at offset 2");
}

TEST(parse_json, refuses_numbers_that_no_double_holds) {
  expect_parts(refusal("[1e999]"), "out of range");
}

TEST(parse_json, refuses_duplicate_keys_at_every_level) {
  expect_parts(refusal(R"({"a": 1, "b": 2, "a": 3})"), "some.json", "duplicate key \"a\"");
  expect_parts(refusal(R"({"x": [{"a": 1, "\u0061": 2}]})"), "duplicate key \"a\"");
  EXPECT_NO_THROW(parse(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"));
}

TEST(parse_json, accepts_nesting_up_to_the_limit) {
  EXPECT_NO_THROW(parse(nested(max_json_depth, "[", "", "]")));
  EXPECT_NO_THROW(parse(nested(max_json_depth, "{\"a\":", "1", "}")));
}

TEST(parse_json, refuses_nesting_beyond_the_limit) {
  expect_parts(refusal(nested(max_json_depth + 1, "[", "", "]")), "some.json", "nested deeper than 64");
  expect_parts(refusal(nested(max_json_depth + 1, "{\"a\":", "1", "}")), "nested deeper");
  expect_parts(refusal(std::string(10'000'000, '[')), "nested deeper");
}

TEST(as_utf8, replaces_what_is_none_and_nothing_else) {
  EXPECT_EQ(as_utf8("a\n\"\\ n\xc3\xb3.gguf"), "a\n\"\\ n\xc3\xb3.gguf");
  EXPECT_EQ(as_utf8("n\xff.gguf"), "n\xef\xbf\xbd.gguf");
}

TEST(in_quotes, keeps_any_text_on_one_short_line) {
  EXPECT_EQ(in_quotes("a\nb\"c"), R"("a\nb\"c")");
  EXPECT_EQ(in_quotes("\xff").find('\xff'), std::string::npos);
  EXPECT_LT(in_quotes(std::string(1'000'000, 'x')).size(), 300u);
}

class json_fields : public testing::Test {
 protected:
  json document = parse(R"({"int": 5, "big": 18446744073709551615, "half": 0.5, "flag": true, "text": "t",
                            "none": null, "list": [1, 2], "inner": {"deep": {"x": -1}}, "mixed": [1, "2"]})");
  json_object fields{document, "some.json"};
};

TEST_F(json_fields, are_read_with_their_type) {
  EXPECT_EQ(fields.integer("int", 0, 10), 5);
  EXPECT_EQ(fields.number("half", 0, 1), 0.5);
  EXPECT_EQ(fields.number("int", 0, 10), 5);
  EXPECT_TRUE(fields.boolean_or("flag", false));
  EXPECT_EQ(fields.string("text"), "t");
  EXPECT_EQ(fields.object("inner").object("deep").integer("x", -1, 0), -1);
  EXPECT_EQ(fields.integers("list", 0, 9, 2), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(fields.integers("int", 0, 9, 2), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(fields.numbers("list", 0, 9, 2), (std::vector<double>{1, 2}));
}

TEST_F(json_fields, fall_back_when_absent_or_null) {
  EXPECT_EQ(fields.integer_or("absent", 7, 0, 9), 7);
  EXPECT_EQ(fields.number_or("absent", 0.25, 0, 9), 0.25);
  EXPECT_TRUE(fields.boolean_or("absent", true));
  EXPECT_EQ(fields.string_or("absent", "x"), "x");
  EXPECT_EQ(fields.integer_or("none", 7, 0, 9), 7);
  EXPECT_EQ(fields.number_or("none", 0.25, 0, 9), 0.25);
  EXPECT_TRUE(fields.boolean_or("none", true));
  EXPECT_EQ(fields.string_or("none", "x"), "x");
  expect_parts(error_text([&] { fields.integer_or("text", 7, 0, 9); }), "some.json: text is \"t\"");
  expect_parts(error_text([&] { fields.integer("none", 0, 9); }), "some.json: none is null");
}

TEST_F(json_fields, tell_null_from_absent) {
  EXPECT_TRUE(fields.has("int"));
  EXPECT_FALSE(fields.has("none"));
  EXPECT_FALSE(fields.has("absent"));
  EXPECT_NE(fields.find("none"), nullptr);
  EXPECT_EQ(fields.find("absent"), nullptr);
}

TEST_F(json_fields, name_file_key_value_and_expectation_when_refused) {
  expect_parts(error_text([&] { fields.integer("int", 0, 4); }),
               "some.json: int is 5, expected an integer from 0 to 4");
  expect_parts(error_text([&] { fields.integer("half", 0, 4); }), "half is 0.5");
  expect_parts(error_text([&] { fields.integer("text", 0, 4); }), "text is \"t\"");
  expect_parts(error_text([&] { fields.integer("absent", 0, 4); }), "absent is missing");
  expect_parts(error_text([&] { fields.number("half", 1, 2); }),
               "half is 0.5, expected a number from 1 to 2");
  expect_parts(error_text([&] { fields.number("text", 1, 2); }), "text is \"t\"");
  expect_parts(error_text([&] { fields.boolean_or("int", true); }), "int is 5, expected true or false");
  expect_parts(error_text([&] { fields.string("flag"); }), "flag is true, expected a string");
  expect_parts(error_text([&] { fields.object("list"); }), "list is a list of 2 values, expected an object");
  expect_parts(error_text([&] { fields.object("inner").object("deep").integer("x", 0, 1); }),
               "inner.deep.x is -1");
  expect_parts(error_text([&] { fields.integers("mixed", 0, 9, 2); }), "mixed is \"2\"");
  expect_parts(error_text([&] { fields.integers("list", 0, 9, 1); }), "at most 1");
  expect_parts(error_text([&] { fields.numbers("list", 0, 9, 3); }),
               "list is a list of 2 values, expected 3 numbers");
  expect_parts(error_text([&] { fields.numbers("mixed", 0, 9, 2); }), "mixed", "2 numbers from 0 to 9");
  expect_parts(error_text([&] { fields.contradict("int", "five ", 5); }), "some.json: int: five 5");
}

TEST_F(json_fields, do_not_wrap_integers_beyond_64_bits) {
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  expect_parts(error_text([&] { fields.integer("big", least, most); }), "big is 18446744073709551615");
}

TEST(json_object, needs_an_object) {
  const json list = json::array({1});
  expect_parts(error_text([&] { json_object(list, "some.json"); }),
               "some.json: the document is a list of 1 values");
}

}  // namespace
