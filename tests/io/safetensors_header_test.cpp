// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/safetensors_header.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/io/safetensors.hpp"
#include "io/raw_safetensors.hpp"
#include "support/error_text.hpp"

namespace {

using corematching::io::element_type;
using corematching::io::parse_safetensors_header;
using corematching::io::safetensors_header;
using support::bytes_of;
using support::error_text;
using support::expect_parts;
using support::raw_safetensors;

safetensors_header parse_header(std::string_view file) {
  return parse_safetensors_header(bytes_of(file), "some.safetensors");
}

std::string with_length(std::uint64_t length, std::string_view rest) {
  std::string file = raw_safetensors("", rest);
  for (unsigned i = 0; i < 8; ++i) file[i] = static_cast<char>((length >> (8 * i)) & 0xff);
  return file;
}

TEST(safetensors_header, lists_tensors_in_the_order_of_their_data) {
  const auto header = parse_header(raw_safetensors(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},"__metadata__":{"format":"pt"},)"
      R"("b":{"dtype":"BF16","shape":[1,3],"data_offsets":[0,6],"unknown":1}}  )",
      std::string(14, '\0')));
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "b");
  EXPECT_EQ(header.tensors[0].type, element_type::bf16);
  EXPECT_EQ(header.tensors[0].shape, (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(header.tensors[1].begin, 6u);
  EXPECT_EQ(header.tensors[1].end, 14u);
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(safetensors_header, accepts_scalars_empty_tensors_and_no_tensors) {
  const auto header = parse_header(raw_safetensors(
      R"({"e":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]},"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
      R"("z":{"dtype":"F16","shape":[0],"data_offsets":[1,1]}})",
      "x"));
  EXPECT_EQ(header.tensors.size(), 3u);
  EXPECT_TRUE(parse_header(raw_safetensors("{}", "")).tensors.empty());
}

TEST(safetensors_header, knows_every_element_type_by_name_and_size) {
  for (const auto& [name, size] : corematching::io::detail::element_table) {
    const std::string header = R"({"t":{"dtype":")" + std::string(name) +
                               R"(","shape":[3],"data_offsets":[0,)" + std::to_string(3 * size) + "]}}";
    const auto parsed = parse_header(raw_safetensors(header, std::string(3 * size, '\0')));
    EXPECT_EQ(name_of(parsed.tensors.at(0).type), name);
    EXPECT_EQ(size_of(parsed.tensors.at(0).type), size);
  }
}

TEST(safetensors_header, refuses_files_that_end_before_their_header) {
  expect_parts(error_text([] { parse_header(""); }), "some.safetensors", "0 bytes, too short");
  expect_parts(error_text([] { parse_header(std::string(7, '\0')); }), "7 bytes, too short");
  expect_parts(error_text([] { parse_header(with_length(3, "{}")); }),
               "truncated: header of 3 bytes in a file of 10");
}

TEST(safetensors_header, refuses_lengths_that_no_header_has) {
  expect_parts(error_text([] { parse_header(with_length(0, "")); }), "not a safetensors file");
  expect_parts(error_text([] { parse_header(with_length(100'000'001, "{}")); }),
               "100000001 bytes, more than");
  expect_parts(error_text([] { parse_header(with_length(std::numeric_limits<std::uint64_t>::max(), "{}")); }),
               "more than the format's limit");
  // A gzip or zip archive: its first bytes read as a length.
  expect_parts(error_text([] { parse_header("PK\x03\x04\x14\x10\x10\x10\x10\x10"); }),
               "not a safetensors file");
}

TEST(safetensors_header, refuses_a_header_that_is_not_a_json_object) {
  for (const char* text : {"[]", " {}", "null", "\xEF\xBB\xBF{}"})
    expect_parts(error_text([&] { parse_header(raw_safetensors(text, "")); }), "no JSON object at byte 8");
  for (const char* text : {"{", "{\"a\"}", "{} {}", "{]"})
    expect_parts(error_text([&] { parse_header(raw_safetensors(text, "")); }),
                 "some.safetensors: not valid JSON at byte");
}

TEST(safetensors_header, refuses_json_bombs) {
  expect_parts(error_text([] { parse_header(raw_safetensors("{\"a\":" + std::string(5'000'000, '['), "")); }),
               "nested deeper than");
}

TEST(safetensors_header, refuses_one_name_twice) {
  const std::string entry = R"(:{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_parts(
      error_text([&] { parse_header(raw_safetensors("{\"a\"" + entry + ",\"a\"" + entry + "}", "")); }),
      "some.safetensors", "duplicate key \"a\"");
}

TEST(safetensors_header, refuses_metadata_that_is_not_text_to_text) {
  expect_parts(error_text([] { parse_header(raw_safetensors(R"({"__metadata__":[]})", "")); }),
               "some.safetensors: __metadata__ is not an object");
  expect_parts(error_text([] { parse_header(raw_safetensors(R"({"__metadata__":{"k":1}})", "")); }),
               "__metadata__ \"k\" is not a string");
}

// One entry of a file with 8 bytes of data, and what is wrong with it.
struct bad_entry {
  const char* label;
  const char* entry;
  const char* complaint;
};
std::ostream& operator<<(std::ostream& out, const bad_entry& bad) {
  return out << bad.label;
}

class malformed_entry : public testing::TestWithParam<bad_entry> {};

TEST_P(malformed_entry, is_refused_with_file_and_tensor) {
  const std::string header = std::string(R"({"layer.weight":)") + GetParam().entry + "}";
  const auto text = error_text([&] { parse_header(raw_safetensors(header, "12345678")); });
  expect_parts(text, "some.safetensors: tensor \"layer.weight\": ", GetParam().complaint);
}

INSTANTIATE_TEST_SUITE_P(
    fields, malformed_entry,
    testing::Values(
        bad_entry{"not_an_object", R"([1])", "its entry is not an object"},
        bad_entry{"no_dtype", R"({"shape":[2],"data_offsets":[0,8]})", "dtype is missing"},
        bad_entry{"no_shape", R"({"dtype":"F32","data_offsets":[0,8]})", "shape is missing"},
        bad_entry{"no_offsets", R"({"dtype":"F32","shape":[2]})", "data_offsets is missing"},
        bad_entry{"numeric_dtype", R"({"dtype":1,"shape":[2],"data_offsets":[0,8]})",
                  "dtype is not a string"},
        bad_entry{"unknown_dtype", R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})",
                  "unknown dtype \"F33\""},
        bad_entry{"sub_byte_dtype", R"({"dtype":"F4","shape":[16],"data_offsets":[0,8]})",
                  "unknown dtype \"F4\""},
        bad_entry{"scalar_shape", R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", "shape is not a list"},
        bad_entry{"negative_shape", R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})",
                  "shape holds a value"},
        bad_entry{"fraction_shape", R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})",
                  "shape holds a value"},
        bad_entry{"text_shape", R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})",
                  "shape holds a value"},
        bad_entry{"huge_shape", R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})",
                  "shape holds a value"},
        bad_entry{"overflow", R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})",
                  "overflows"},
        bad_entry{"overflow_before_zero",
                  R"({"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})", "overflows"},
        bad_entry{"overflow_to_size", R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})",
                  "overflows"},
        bad_entry{"one_offset", R"({"dtype":"F32","shape":[2],"data_offsets":[0]})",
                  "data_offsets has 1 values"},
        bad_entry{"three_offsets", R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})", "has 3 values"},
        bad_entry{"negative_offset", R"({"dtype":"F32","shape":[2],"data_offsets":[-1,7]})",
                  "data_offsets holds"},
        bad_entry{"reversed", R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "[8, 0] are reversed"},
        bad_entry{"beyond_file", R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})",
                  "beyond the 8 bytes"},
        bad_entry{"far_beyond_file",
                  R"({"dtype":"U8","shape":[8],"data_offsets":[9223372036854775799,9223372036854775807]})",
                  "beyond the 8 bytes"},
        bad_entry{"too_few_bytes", R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})",
                  "span 8 bytes, but F32 [3] takes 12"},
        bad_entry{"too_many_bytes", R"({"dtype":"F32","shape":[],"data_offsets":[0,8]})", "F32 [] takes 4"},
        bad_entry{"hole_before", R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})",
                  "4 bytes before it belong to no tensor"}),
    [](const auto& tested) { return std::string(tested.param.label); });

TEST(safetensors_header, refuses_overlaps_and_gaps) {
  const auto file = [](const char* second) {
    return raw_safetensors(
        std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":)") + second + "}",
        "12345678");
  };
  expect_parts(error_text([&] { parse_header(file(R"({"dtype":"U8","shape":[6],"data_offsets":[2,8]})")); }),
               "some.safetensors: tensor \"b\": overlaps the tensor before it by 2 bytes");
  expect_parts(error_text([&] { parse_header(file(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})")); }),
               "overlaps");
  expect_parts(error_text([&] { parse_header(file(R"({"dtype":"U8","shape":[3],"data_offsets":[5,8]})")); }),
               "tensor \"b\": 1 bytes before it belong to no tensor");
  expect_parts(error_text([&] { parse_header(file(R"({"dtype":"U8","shape":[3],"data_offsets":[4,7]})")); }),
               "some.safetensors: the last 1 bytes belong to no tensor");
}

TEST(safetensors_header, refuses_more_dimensions_than_anything_has) {
  std::string shape = "1";
  for (int i = 0; i < 64; ++i) shape += ",1";
  expect_parts(error_text([&] {
                 parse_header(raw_safetensors(
                     R"({"t":{"dtype":"U8","data_offsets":[0,1],"shape":[)" + shape + "]}}", "x"));
               }),
               "tensor \"t\"", "at most 64 integers");
}

TEST(safetensors_header, escapes_names_in_messages) {
  const auto text = error_text([] { parse_header(raw_safetensors(R"({"a\nb\u001b":1})", "")); });
  expect_parts(text, R"(tensor "a\nb\u001b")");
}

// A small valid file with two tensors and metadata.
std::string valid_file() {
  return raw_safetensors(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"I16","shape":[1,3],"data_offsets":[8,14]}})",
      "abcdefghijklmn");
}

// Reads every byte that the parsed tensors claim, for the sanitizers to watch.
std::size_t touch_everything(const std::string& file) {
  // A copy of the exact size, so that a read beyond the end is one beyond an allocation.
  const std::vector<char> copy(file.begin(), file.end());
  const auto parsed = corematching::io::safetensors_file::parse(std::as_bytes(std::span(copy)), "f", nullptr);
  std::size_t sum = 0;
  for (const auto& t : parsed.tensors())
    for (const std::byte b : t.bytes) sum += std::to_integer<std::size_t>(b);
  return sum;
}

TEST(safetensors_header, refuses_every_truncation_of_a_valid_file) {
  const std::string file = valid_file();
  EXPECT_GT(touch_everything(file), 0u);
  for (std::size_t length = 0; length < file.size(); ++length)
    EXPECT_THROW(touch_everything(file.substr(0, length)), corematching::error) << length;
}

TEST(safetensors_header, survives_bit_flips_and_misplaced_characters) {
  const std::string file = valid_file();
  const std::string misplaced("\0\xff\"{}[],:-09e.\\", 15);
  std::size_t refused = 0;
  const auto try_byte = [&](std::size_t at, char value) {
    std::string changed = file;
    changed[at] = value;
    try {
      touch_everything(changed);
    } catch (const corematching::error&) {
      ++refused;
    }
  };
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) try_byte(at, static_cast<char>(file[at] ^ (1 << bit)));
    for (const char value : misplaced) try_byte(at, value);
  }
  EXPECT_GT(refused, file.size() * 10);
}

}  // namespace
