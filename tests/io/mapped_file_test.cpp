// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/mapped_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <type_traits>
#include <utility>

#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::io::mapped_file;
using support::error_text;
using support::expect_parts;

static_assert(!std::is_copy_constructible_v<mapped_file> && !std::is_copy_assignable_v<mapped_file>);
static_assert(std::is_nothrow_move_constructible_v<mapped_file>);

std::string text_of(const mapped_file& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(mapped_file, shows_the_bytes_of_the_file) {
  const support::temporary_directory directory;
  const auto path = directory.write("a", std::string("one\0two", 7));
  const auto file = mapped_file::open(path);
  EXPECT_EQ(text_of(file), std::string("one\0two", 7));
  EXPECT_EQ(file.path(), path);
}

TEST(mapped_file, is_empty_for_an_empty_file) {
  const support::temporary_directory directory;
  const auto file = mapped_file::open(directory.write("a", ""));
  EXPECT_TRUE(file.bytes().empty());
  corematching::io::will_need(file.bytes());
}

TEST(mapped_file, keeps_its_bytes_through_every_hint) {
  const support::temporary_directory directory;
  const auto file = mapped_file::open(directory.write("a", std::string(10000, 'x')));
  for (const auto hint : {corematching::io::will_need, corematching::io::give_back}) {
    hint(file.bytes().subspan(1));
    EXPECT_EQ(text_of(file), std::string(10000, 'x'));
  }
}

TEST(mapped_file, hands_over_its_mapping_when_moved) {
  const support::temporary_directory directory;
  auto first = mapped_file::open(directory.write("a", "first"));
  const std::byte* data = first.bytes().data();
  mapped_file moved(std::move(first));
  EXPECT_EQ(moved.bytes().data(), data);
  auto other = mapped_file::open(directory.write("b", "other"));
  other = std::move(moved);
  EXPECT_EQ(text_of(other), "first");
}

TEST(mapped_file, outlives_the_name_of_its_file) {
  const support::temporary_directory directory;
  const auto path = directory.write("a", "still here");
  const auto file = mapped_file::open(path);
  std::filesystem::remove(path);
  EXPECT_EQ(text_of(file), "still here");
}

TEST(mapped_file, names_path_and_reason_when_it_cannot_open) {
  const support::temporary_directory directory;
  const auto path = directory.path() / "absent";
  expect_parts(error_text([&] { mapped_file::open(path); }), path.string(), "No such file or directory");
}

TEST(mapped_file, refuses_what_is_not_a_regular_file) {
  const support::temporary_directory directory;
  expect_parts(error_text([&] { mapped_file::open(directory.path()); }), directory.path().string(),
               "not a regular file");
  // A pipe without a writer would otherwise block for ever.
  const auto pipe = directory.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_parts(error_text([&] { mapped_file::open(pipe); }), pipe.string(), "not a regular file");
}

}  // namespace
