// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/safetensors_writer.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "corematching/io/safetensors.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::io::as_tensor;
using corematching::io::checkpoint;
using corematching::io::element_type;
using corematching::io::named_tensor;
using corematching::io::safetensors_file;
using corematching::io::write_safetensors;
using support::error_text;
using support::expect_parts;

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::size_t files_in(const std::filesystem::path& directory) {
  const auto begin = std::filesystem::directory_iterator(directory);
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

template <class T>
class written : public testing::Test {};

using stored_types = testing::Types<float, double, corematching::f16, corematching::bf16, std::int64_t,
                                    std::int32_t, std::int8_t, std::uint8_t>;
TYPED_TEST_SUITE(written, stored_types);

TYPED_TEST(written, values_come_back_bit_for_bit_and_aligned) {
  std::array<TypeParam, 6> values;
  const auto bytes = std::as_writable_bytes(std::span(values));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(200 + i % 7);
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::array<std::uint8_t, 1> other{1};
  write_safetensors(path, std::array{as_tensor("a", {1}, other), as_tensor("x", {2, 3}, values)});
  const auto read = checkpoint::open(path);
  EXPECT_EQ(read.at("x").type, corematching::io::element_type_of<TypeParam>());
  EXPECT_EQ(read.at("x").shape, (std::vector<std::int64_t>{2, 3}));
  ASSERT_EQ(read.at("x").bytes.size(), sizeof values);
  EXPECT_EQ(std::memcmp(read.at("x").bytes.data(), values.data(), sizeof values), 0);
  EXPECT_TRUE(read.at("x").is_aligned());
}

TEST(write_safetensors, keeps_metadata_scalars_and_empty_tensors) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::vector<float> one{1.5f}, none;
  write_safetensors(path, std::array{as_tensor("scalar", {}, one), as_tensor("empty \"\n", {4, 0}, none)},
                    {{"format", "pt"}, {"text", "\"quoted\"\nlines"}});
  const auto file = safetensors_file::open(path);
  EXPECT_EQ(file.metadata().at("text"), "\"quoted\"\nlines");
  EXPECT_EQ(file.tensors().size(), 2u);
  EXPECT_TRUE(checkpoint::open(path).at("scalar").shape.empty());
  EXPECT_EQ(checkpoint::open(path).at("empty \"\n").shape, (std::vector<std::int64_t>{4, 0}));
}

TEST(write_safetensors, writes_a_file_without_tensors) {
  const support::temporary_directory directory;
  write_safetensors(directory.path() / "m.safetensors", {});
  EXPECT_EQ(checkpoint::open(directory.path() / "m.safetensors").size(), 0u);
}

TEST(write_safetensors, writes_the_bytes_that_the_reference_writes) {
  // safetensors.numpy.save({"b": uint8 [1], "a": float32 [1.0]}), version 0.8.0
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})";
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::vector<float> a{1.0f};
  const std::vector<std::uint8_t> b{7};
  write_safetensors(path, std::array{as_tensor("b", {1}, b), as_tensor("a", {1}, a)});
  const std::string content = content_of(path);
  EXPECT_EQ(content.size() % 8, 5u);
  EXPECT_EQ(content.substr(content.size() - 5), std::string("\0\0\x80\x3f\x07", 5));
  EXPECT_EQ(corematching::io::json::parse(content.substr(8, content.size() - 13)),
            corematching::io::json::parse(header));
}

TEST(write_safetensors, replaces_an_older_file) {
  const support::temporary_directory directory;
  const auto path = directory.write("m.safetensors", "something old");
  const std::vector<float> values{1.0f};
  write_safetensors(path, std::array{as_tensor("a", {1}, values)});
  EXPECT_EQ(checkpoint::open(path).size(), 1u);
  EXPECT_EQ(files_in(directory.path()), 1u);
}

TEST(write_safetensors, leaves_an_open_checkpoint_of_that_name_intact) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::vector<std::uint8_t> before{1, 2, 3}, after{4};
  write_safetensors(path, std::array{as_tensor("a", {3}, before)});
  const auto opened = checkpoint::open(path);
  write_safetensors(path, std::array{as_tensor("a", {1}, after)});
  EXPECT_EQ(std::to_integer<int>(opened.at("a").bytes[2]), 3);
}

TEST(write_safetensors, refuses_tensors_that_no_reader_would_accept) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::vector<float> values{1.0f, 2.0f};
  const auto refusal = [&](const std::vector<named_tensor>& tensors) {
    return error_text([&] { write_safetensors(path, tensors); });
  };
  const auto a = as_tensor("a", {2}, values);
  expect_parts(refusal({a, a}), path.string() + ": tensor \"a\": two tensors of this name");
  expect_parts(refusal({as_tensor("a", {3}, values)}), "tensor \"a\": 8 bytes, but F32 [3] takes 12");
  expect_parts(refusal({as_tensor("a", {-2}, values)}), "tensor \"a\": negative dimension in shape [-2]");
  expect_parts(refusal({as_tensor("a", {INT64_MAX, 2}, values)}), "overflows");
  expect_parts(refusal({as_tensor("__metadata__", {2}, values)}), "the format reserves this name");
  expect_parts(refusal({as_tensor("a\xff", {2}, values)}), path.string(), "not valid UTF-8");
  expect_parts(refusal({as_tensor("a", std::vector<std::int64_t>(65, 1), values)}),
               "more than 64 dimensions");
  EXPECT_EQ(files_in(directory.path()), 0u);
}

TEST(write_safetensors, names_file_and_reason_when_it_cannot_create_it) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "absent" / "m.safetensors";
  expect_parts(error_text([&] { write_safetensors(path, {}); }), path.string(), "No such file or directory");
}

TEST(write_safetensors, leaves_nothing_behind_when_the_destination_is_a_directory) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "m.safetensors";
  std::filesystem::create_directory(path);
  expect_parts(error_text([&] { write_safetensors(path, {}); }), path.string(),
               "is not a regular file, so it is not overwritten");
  EXPECT_EQ(files_in(directory.path()), 1u);
}

TEST(write_safetensors, keeps_the_old_file_when_the_new_one_cannot_be_finished) {
  const support::temporary_directory directory;
  const auto path = directory.write("m.safetensors", "old");
  const std::vector<float> values(100'000);
  std::string text;
  {
    const support::file_size_limit limit(4096);
    text = error_text([&] { write_safetensors(path, std::array{as_tensor("a", {100'000}, values)}); });
  }
  expect_parts(text, path.string() + ": cannot write: File too large");
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(files_in(directory.path()), 1u);
}

}  // namespace
