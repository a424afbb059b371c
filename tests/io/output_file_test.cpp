// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/output_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/raw_safetensors.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::io::output_file;
using corematching::io::refuse_special_file;
using support::bytes_of;
using support::error_text;
using support::expect_parts;

constexpr const char* refused_as_special = ": is not a regular file, so it is not overwritten";

class output_files : public testing::Test {
 protected:
  std::string content() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::ptrdiff_t entries() const {
    const auto begin = std::filesystem::directory_iterator(directory.path());
    return std::distance(begin, std::filesystem::directory_iterator());
  }

  support::temporary_directory directory;
  std::filesystem::path path = directory.path() / "out";
};

TEST_F(output_files, appear_when_they_are_committed) {
  output_file file(path);
  file.write(bytes_of("one "));
  file.write({});
  file.write(bytes_of("two"));
  EXPECT_FALSE(std::filesystem::exists(path));
  file.commit();
  EXPECT_EQ(content(), "one two");
  EXPECT_EQ(entries(), 1);
}

TEST_F(output_files, leave_nothing_behind_where_the_program_is_killed) {
  const int unnamed = ::open(directory.path().c_str(), O_TMPFILE | O_WRONLY, 0600);
  if (unnamed < 0) GTEST_SKIP() << "this file system has no files without names";
  ::close(unnamed);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    output_file file(path);
    file.write(bytes_of("half of"));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(entries(), 0);
}

TEST_F(output_files, may_begin_anew_before_they_go_on) {
  output_file file(path);
  file.write(bytes_of("____ and"));
  file.rewrite_start(bytes_of("this"));
  file.write(bytes_of(" that"));
  file.commit();
  EXPECT_EQ(content(), "this and that");
}

TEST_F(output_files, may_be_named_without_a_directory) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  output_file file("out");
  file.write(bytes_of("here"));
  file.commit();
  std::filesystem::current_path(before);
  EXPECT_EQ(content(), "here");
}

TEST_F(output_files, leave_nothing_behind_where_they_are_not_committed) {
  {
    output_file file(path);
    file.write(bytes_of("half of"));
  }
  EXPECT_EQ(entries(), 0);
}

TEST_F(output_files, replace_a_file_of_their_name_only_in_the_end) {
  directory.write("out", "old");
  output_file(path).write(bytes_of("dropped"));
  EXPECT_EQ(content(), "old");
  output_file file(path);
  file.write(bytes_of("new"));
  EXPECT_EQ(content(), "old");
  file.commit();
  EXPECT_EQ(content(), "new");
  EXPECT_EQ(entries(), 1);
}

TEST_F(output_files, of_one_destination_do_not_meet) {
  output_file first(path), second(path);
  first.write(bytes_of("first"));
  second.write(bytes_of("second"));
  second.commit();
  EXPECT_EQ(content(), "second");
  first.commit();
  EXPECT_EQ(content(), "first");
  EXPECT_EQ(entries(), 1);
}

TEST_F(output_files, have_the_mode_of_any_new_file) {
  const auto other = directory.write("other", "");
  output_file(path).commit();
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::status(other).permissions());
}

TEST_F(output_files, refuse_what_is_no_regular_file_and_leave_it_alone) {
  std::filesystem::create_directory(directory.path() / "directory");
  std::filesystem::create_symlink(directory.write("target", "kept"), directory.path() / "link");
  std::filesystem::create_symlink(directory.path() / "absent", directory.path() / "dangling");
  ASSERT_EQ(::mkfifo((directory.path() / "pipe").c_str(), 0600), 0);
  const auto before = entries();
  for (const char* name : {"directory", "link", "dangling", "pipe"}) {
    const auto special = directory.path() / name;
    EXPECT_EQ(error_text([&] { output_file file(special); }), special.string() + refused_as_special);
    EXPECT_EQ(error_text([&] { refuse_special_file(special); }), special.string() + refused_as_special);
  }
  EXPECT_EQ(entries(), before);
}

TEST_F(output_files, may_replace_regular_files_and_be_new) {
  EXPECT_NO_THROW(refuse_special_file(path));
  EXPECT_NO_THROW(refuse_special_file(directory.path() / "absent" / "out"));
  EXPECT_NO_THROW(refuse_special_file(directory.write("out", "old")));
}

TEST_F(output_files, say_why_they_cannot_be_created) {
  const auto in_none = directory.path() / "absent" / "out";
  EXPECT_EQ(error_text([&] { output_file file(in_none); }),
            in_none.string() + ": cannot create a file beside it: No such file or directory");
}

TEST_F(output_files, say_why_they_cannot_be_finished_and_keep_the_old_one) {
  directory.write("out", "old");
  const std::vector<std::byte> much(100'000);
  std::string text;
  {
    const support::file_size_limit limit(4096);
    text = error_text([&] { output_file(path).write(much); });
  }
  EXPECT_EQ(text, path.string() + ": cannot write: File too large");
  EXPECT_EQ(content(), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(output_files, leave_nothing_behind_where_the_destination_became_a_directory) {
  {
    output_file file(path);
    std::filesystem::create_directory(path);
    expect_parts(error_text([&] { file.commit(); }), path.string() + ": cannot rename the finished file: ");
  }
  EXPECT_EQ(entries(), 1);
}

}  // namespace
