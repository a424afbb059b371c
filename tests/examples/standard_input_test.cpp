// SPDX-License-Identifier: Apache-2.0
#include "llava/standard_input.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "support/error_text.hpp"

namespace corematching::driver {
namespace {

/// What `read_to_end` makes of a pipe through which `size` bytes come.
std::size_t read_through_pipe(std::size_t size, std::size_t most) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  std::thread writer([&] {
    const std::string text(size, 'x');
    for (std::size_t done = 0; done < size;) {
      const auto written = ::write(ends[1], text.data() + done, size - done);
      if (written <= 0) break;
      done += static_cast<std::size_t>(written);
    }
    ::close(ends[1]);
  });
  struct finish {
    std::thread& writer;
    int end;
    ~finish() {
      char rest[4096];
      while (::read(end, rest, sizeof rest) > 0) {
      }
      writer.join();
      ::close(end);
    }
  } const finally{writer, ends[0]};
  return read_to_end(ends[0], "standard input", most).size();
}

TEST(standard_input, is_read_to_its_end) {
  for (const std::size_t size : {0, 1, 65'535, 65'536, 65'537, 300'000})
    EXPECT_EQ(read_through_pipe(size, 1'000'000), size);
}

TEST(standard_input, is_refused_where_it_is_longer_than_the_limit) {
  EXPECT_EQ(read_through_pipe(100'000, 100'000), 100'000u);
  EXPECT_EQ(support::error_text([] { read_through_pipe(100'001, 100'000); }),
            "standard input: is longer than 100000 bytes");
  EXPECT_EQ(support::error_text([] { read_through_pipe(1, 0); }), "standard input: is longer than 0 bytes");
}

TEST(standard_input, names_the_reason_why_it_cannot_be_read) {
  EXPECT_EQ(support::error_text([] { read_to_end(-1, "standard input", 10); }),
            "standard input: cannot read: Bad file descriptor");
}

}  // namespace
}  // namespace corematching::driver
