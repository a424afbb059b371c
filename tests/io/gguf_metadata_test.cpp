// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/gguf_metadata.hpp"

#include <gtest/gtest.h>

#include <string>

#include "corematching/core/error.hpp"
#include "support/raw_gguf.hpp"

namespace corematching::io {
namespace {

using test::bytes_of;
using test::raw_gguf;

std::string gguf_refusal(const std::string& bytes) {
  try {
    gguf_metadata::parse(bytes_of(bytes), "f.gguf");
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

TEST(gguf_metadata, reads_each_type) {
  for (const std::uint32_t version : {2U, 3U}) {
    raw_gguf file(version);
    file.text("text", "value").integer("integer", 7).boolean("yes", true).texts("texts", {"a", ""});
    file.integers("integers", {1, -1})
        .floats("floats", {0.5F})
        .raw("small", 1, "\xfe")
        .raw("long", 11, std::string(8, '\xff'));
    const std::string bytes = file.bytes();
    const gguf_metadata metadata = gguf_metadata::parse(bytes_of(bytes), "f.gguf");
    EXPECT_EQ(metadata.version(), version);
    EXPECT_EQ(metadata.end(), bytes.size());
    EXPECT_EQ(metadata.text("text"), "value");
    EXPECT_EQ(metadata.integer("integer", 0, 7), 7);
    EXPECT_EQ(metadata.integer("small", -8, 8), -2);
    EXPECT_EQ(metadata.integer("long", -8, 8), -1);
    EXPECT_TRUE(metadata.boolean("yes"));
    EXPECT_EQ(metadata.texts("texts"), (std::vector<std::string_view>{"a", ""}));
    EXPECT_EQ(metadata.integers("integers"), (std::vector<std::int64_t>{1, -1}));
    EXPECT_EQ(metadata.numbers("floats"), std::vector<double>{0.5});
    EXPECT_FALSE(metadata.has("absent"));
  }
}

TEST(gguf_metadata, refuses_every_truncation) {
  raw_gguf file;
  file.text("text", "value").texts("texts", {"a", "b"}).integers("integers", {1, 2}).boolean("yes", false);
  const std::string bytes = file.bytes();
  for (std::size_t length = 4; length < bytes.size(); ++length)
    EXPECT_TRUE(gguf_refusal(bytes.substr(0, length)).starts_with("f.gguf: truncated")) << length;
}

TEST(gguf_metadata, refuses_what_is_no_such_file) {
  EXPECT_EQ(gguf_refusal(""), "f.gguf: not a GGUF file");
  EXPECT_EQ(gguf_refusal("GGML"), "f.gguf: not a GGUF file");
  EXPECT_EQ(gguf_refusal(raw_gguf(1).bytes()), "f.gguf: GGUF version 1 is not read; 2 and 3 are");
  EXPECT_EQ(gguf_refusal(raw_gguf().integer("a", 1).integer("a", 2).bytes()), "f.gguf: duplicate key \"a\"");
  EXPECT_EQ(gguf_refusal(raw_gguf().raw("a", 13, "").bytes()),
            "f.gguf: \"a\" has a value of unknown type 13");
  EXPECT_EQ(gguf_refusal(raw_gguf().raw("a", 9, std::string("\x09\0\0\0", 4)).bytes()),
            "f.gguf: \"a\" is a list of lists, which are not read");
}

TEST(gguf_metadata, allocates_for_no_list_that_is_longer_than_the_file) {
  const std::string count(8, '\x7f');
  EXPECT_TRUE(gguf_refusal(raw_gguf().raw("a", 9, std::string("\x08\0\0\0", 4) + count).bytes())
                  .starts_with("f.gguf: truncated: \"a\" is a list"));
}

TEST(gguf_metadata, names_the_key_whose_value_is_another) {
  const std::string bytes = raw_gguf().text("a", "b").integer("n", 9).bytes();
  const gguf_metadata metadata = gguf_metadata::parse(bytes_of(bytes), "f.gguf");
  EXPECT_THROW(metadata.integer("a", 0, 9), error);
  EXPECT_THROW(metadata.text("n"), error);
  try {
    metadata.integer("n", 0, 8);
    ADD_FAILURE();
  } catch (const error& problem) {
    EXPECT_STREQ(problem.what(), "f.gguf: n is not an integer from 0 to 8");
  }
}

}  // namespace
}  // namespace corematching::io
