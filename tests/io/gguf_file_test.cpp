// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/gguf_file.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "support/error_text.hpp"
#include "support/raw_gguf.hpp"
#include "support/temporary_directory.hpp"

namespace corematching::io {
namespace {

using support::error_text;
using test::bytes_of;
using test::raw_gguf;

constexpr std::uint32_t f32 = 0, q8_0 = 8, q4_k = 12;

/// What is wrong with a file of these bytes.
std::string refusal_of(const std::string& bytes) {
  return error_text([&] { gguf_file::parse(bytes_of(bytes), "f.gguf"); });
}

TEST(gguf_file, finds_tensors_where_they_are) {
  for (const std::uint32_t version : {2u, 3u}) {
    const std::string bytes = raw_gguf(version)
                                  .text("general.architecture", "llama")
                                  .tensor("norm", {3}, f32, std::string(12, 'n'))
                                  .tensor("rows", {32, 2}, q8_0, std::string(68, 'r'))
                                  .bytes();
    const auto file = gguf_file::parse(bytes_of(bytes), "f.gguf");
    EXPECT_EQ(file.tensors().size(), 2);
    EXPECT_EQ(file.total_bytes(), 80);
    EXPECT_EQ(file.metadata().text("general.architecture"), "llama");
    const auto& norm = file.at("norm");
    EXPECT_EQ(norm.type, ggml_type::f32);
    EXPECT_EQ(norm.shape, std::vector<std::int64_t>{3});
    EXPECT_EQ(std::to_integer<char>(norm.bytes.back()), 'n');
    const auto& rows = file.at("rows");
    EXPECT_EQ(rows.type, ggml_type::q8_0);
    EXPECT_EQ(rows.shape, (std::vector<std::int64_t>{2, 32}));
    EXPECT_EQ(rows.bytes.size(), 68);
    EXPECT_EQ(std::to_integer<char>(rows.bytes.front()), 'r');
    EXPECT_EQ(error_text([&] { file.at("other"); }), "f.gguf: no tensor \"other\"");
  }
}

TEST(gguf_file, takes_the_alignment_that_the_file_says) {
  const auto with = [](std::uint32_t alignment) {
    return raw_gguf()
        .integer("general.alignment", alignment)
        .tensor("a", {1}, f32, "aaaa")
        .tensor("b", {1}, f32, "bbbb")
        .bytes();
  };
  const std::string bytes = with(8);
  const auto file = gguf_file::parse(bytes_of(bytes), "f.gguf");
  EXPECT_EQ(file.at("b").bytes.data() - file.at("a").bytes.data(), 32);
  EXPECT_EQ(refusal_of(with(24)), "f.gguf: general.alignment is 24, expected a power of two");
  EXPECT_EQ(refusal_of(with(0)), "f.gguf: general.alignment is not an integer from 1 to 1048576");
  EXPECT_EQ(refusal_of(with(64)), "f.gguf: tensor \"b\" begins at 32, no multiple of the alignment 64");
}

TEST(gguf_file, refuses_every_truncation) {
  const std::string bytes = raw_gguf()
                                .text("k", "v")
                                .tensor("a", {8}, f32, std::string(32, 'a'))
                                .tensor("b", {1}, f32, "bbbb")
                                .bytes();
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_TRUE(refusal_of(bytes.substr(0, length)).starts_with("f.gguf: ")) << length;
}

TEST(gguf_file, refuses_descriptions_that_lie) {
  const auto described = [](const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                            std::uint64_t offset) {
    return refusal_of(raw_gguf()
                          .tensor("a", {8}, f32, std::string(32, 'a'))
                          .describe("b", dimensions, type, offset)
                          .bytes());
  };
  const std::uint64_t huge = std::uint64_t{1} << 63;
  EXPECT_EQ(described({1}, f32, 0), "f.gguf: tensor \"b\" overlaps \"a\"");
  EXPECT_EQ(described({1}, f32, 4), "f.gguf: tensor \"b\" begins at 4, no multiple of the alignment 32");
  EXPECT_EQ(described({1}, 4, 32), "f.gguf: tensor \"b\" is of type 4, which is not known");
  EXPECT_EQ(described({}, f32, 32), "f.gguf: tensor \"b\": has 0 dimensions, expected 1 to 4");
  EXPECT_EQ(described({1, 1, 1, 1, 1}, f32, 32), "f.gguf: tensor \"b\": has 5 dimensions, expected 1 to 4");
  EXPECT_EQ(described({0}, f32, 32), "f.gguf: tensor \"b\": has a dimension of 0, expected 1 to 2^63-1");
  EXPECT_EQ(described({huge}, f32, 32),
            "f.gguf: tensor \"b\": has a dimension of 9223372036854775808, expected 1 to 2^63-1");
  EXPECT_EQ(described({std::uint64_t{1} << 32, std::uint64_t{1} << 32}, f32, 32),
            "f.gguf: tensor \"b\": the size of shape [4294967296, 4294967296] overflows");
  EXPECT_EQ(described({33}, q8_0, 32),
            "f.gguf: tensor \"b\": Q8_0 has blocks of 32, of which rows of 33 are no whole number");
  EXPECT_EQ(described({128, 2}, q4_k, 32),
            "f.gguf: tensor \"b\": Q4_K has blocks of 256, of which rows of 128 are no whole number");
  support::expect_parts(described({1000}, f32, 32),
                        "f.gguf: tensor \"b\": its 4000 bytes from 32 on do not fit");
  support::expect_parts(described({1}, f32, huge),
                        "f.gguf: tensor \"b\": its 4 bytes from 9223372036854775808");
  support::expect_parts(described({8}, f32, 32), "f.gguf: tensor \"b\": truncated: its data end at ");
}

TEST(gguf_file, refuses_names_that_are_there_twice_and_counts_that_lie) {
  raw_gguf file;
  file.tensor("a", {1}, f32, "aaaa").tensor("a", {1}, f32, "bbbb");
  EXPECT_EQ(refusal_of(file.bytes()), "f.gguf: tensor \"a\" is there twice");
  support::expect_parts(refusal_of(file.count_tensors(~std::uint64_t{0}).bytes()),
                        "f.gguf: truncated: 18446744073709551615 tensors in ");
  EXPECT_TRUE(refusal_of(raw_gguf().count_tensors(1).bytes()).starts_with("f.gguf: truncated"));
}

TEST(gguf_file, refuses_what_lies_in_its_stead) {
  support::expect_parts(refusal_of("version https://git-lfs.github.com/spec/v1\n"),
                        "f.gguf: is a Git LFS pointer");
}

/// One of the files of a model that is split, with one tensor.
std::string split_file(std::uint32_t number, std::uint32_t count, const std::string& tensor,
                       std::uint32_t tensors = 2) {
  return raw_gguf()
      .integer("split.no", number)
      .integer("split.count", count)
      .integer("split.tensors.count", tensors)
      .tensor(tensor, {1}, f32, tensor + tensor + tensor + tensor)
      .bytes();
}

TEST(gguf_file, names_parts_after_any_of_them) {
  EXPECT_EQ(gguf_part_name("m-00002-of-00003.gguf", 0, 3), "m-00001-of-00003.gguf");
  EXPECT_EQ(gguf_part_name("m.gguf", 0, 3), "");
  EXPECT_EQ(gguf_part_name("m-0000x-of-00003.gguf", 0, 3), "");
}

TEST(gguf_file, joins_what_is_split) {
  const support::temporary_directory directory;
  const auto first = directory.write("m-00001-of-00002.gguf", split_file(0, 2, "a"));
  const auto second = directory.write("m-00002-of-00002.gguf", split_file(1, 2, "b"));
  for (const auto& path : {first, second}) {
    const auto file = gguf_file::open(path);
    EXPECT_EQ(file.tensors().size(), 2);
    EXPECT_EQ(file.at("a").file, first);
    EXPECT_EQ(file.at("b").file, second);
    EXPECT_EQ(std::to_integer<char>(file.at("b").bytes.front()), 'b');
    EXPECT_EQ(file.metadata().integer("split.no", 0, 9), 0);
  }
}

TEST(gguf_file, refuses_parts_that_are_no_whole) {
  const support::temporary_directory directory;
  const auto first = directory.write("m-00001-of-00002.gguf", split_file(0, 2, "a"));
  const auto second = directory.path() / "m-00002-of-00002.gguf";
  const auto opened = [&] { return error_text([&] { gguf_file::open(first); }); };
  EXPECT_EQ(opened(),
            second.string() + ": does not exist; it is file 2 of the 2 that the model is split into");
  std::filesystem::create_symlink(first, second);  // a cycle
  EXPECT_EQ(opened(), second.string() + ": says that it is file 1 of 2, but its name says file 2 of 2");
  std::filesystem::remove(second);
  directory.write("m-00002-of-00002.gguf", split_file(1, 3, "b"));
  EXPECT_EQ(opened(), second.string() + ": says that it is file 2 of 3, but its name says file 2 of 2");
  directory.write("m-00002-of-00002.gguf", split_file(1, 2, "a"));
  EXPECT_EQ(opened(), second.string() + ": tensor \"a\" is also in " + first.string());
  directory.write("m-00002-of-00002.gguf", split_file(1, 2, "b"));
  directory.write("m-00001-of-00002.gguf", split_file(0, 2, "a", 3));
  EXPECT_EQ(opened(),
            first.string() + ": the files of the model have 2 tensors, but split.tensors.count is 3");
  const auto other = directory.write("other.gguf", split_file(0, 2, "a"));
  EXPECT_EQ(error_text([&] { gguf_file::open(other); }),
            other.string() + ": says that it is file 1 of 2, so its name should end in -00001-of-00002.gguf");
  const auto wrong = directory.write("wrong.gguf", split_file(2, 2, "a"));
  EXPECT_EQ(error_text([&] { gguf_file::open(wrong); }),
            wrong.string() + ": split.no is not an integer from 0 to 1");
}

}  // namespace
}  // namespace corematching::io
