// SPDX-License-Identifier: Apache-2.0
// The command line of a server.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "corematching/core/error.hpp"
#include "llava/serve/options.hpp"
#include "support/driver_program.hpp"
#include "support/temporary_directory.hpp"

namespace corematching::driver {
namespace {

serve_options served_with(std::vector<std::string> words) {
  words.insert(words.begin(), {"serve", "--model", test::driver::demo().string()});
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  return parse_serve_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(serve_options, are_for_this_machine_alone_by_default) {
  const serve_options o = served_with({});
  EXPECT_EQ(o.host, "127.0.0.1");
  EXPECT_TRUE(o.access.api_key.empty());
  EXPECT_EQ(o.access.hosts, std::vector<std::string>{"127.0.0.1"});
  EXPECT_TRUE(o.base.sparsity.sparse_tokens) << "the default preset leaves tokens out";
  EXPECT_FALSE(served_with({"--preset", "dense"}).base.sparsity.sparse_tokens);
}

TEST(serve_options, say_every_limit) {
  const serve_options o = served_with({"--host",
                                       "::1",
                                       "--port",
                                       "0",
                                       "--allow-host",
                                       "Here.Example",
                                       "--max-body",
                                       "2M",
                                       "--max-bodies",
                                       "8M",
                                       "--max-pixels",
                                       "1000",
                                       "--max-pictures",
                                       "3",
                                       "--max-connections",
                                       "9",
                                       "--receive-time",
                                       "1.5",
                                       "--idle-time",
                                       "2",
                                       "--time-limit",
                                       "3",
                                       "--max-queue",
                                       "5",
                                       "--max-batch",
                                       "6",
                                       "--cache-limit",
                                       "1G",
                                       "--picture-cache",
                                       "0",
                                       "--prefix-cache",
                                       "1K",
                                       "--max-new-tokens",
                                       "7",
                                       "--top-p",
                                       "0.5"});
  using namespace std::chrono_literals;
  EXPECT_EQ(o.access.hosts, (std::vector<std::string>{"here.example", "::1"}));
  EXPECT_EQ(o.limits.body_bytes, 2u << 20);
  EXPECT_EQ(o.limits.all_body_bytes, 8u << 20);
  EXPECT_EQ(o.engine.picture_pixels, 1000);
  EXPECT_EQ(o.engine.pictures, 3);
  EXPECT_EQ(o.limits.pictures, 3u);
  EXPECT_EQ(o.limits.connections, 9u);
  EXPECT_EQ(o.limits.receiving, 1500ms);
  EXPECT_EQ(o.limits.idle, 2s);
  EXPECT_EQ(o.limits.answering, 3s);
  EXPECT_EQ(o.engine.waiting, 5);
  EXPECT_EQ(o.engine.running, 6);
  EXPECT_EQ(o.engine.cache_bytes, 1u << 30);
  EXPECT_EQ(o.engine.picture_bytes, 0u);
  EXPECT_EQ(o.engine.prefix_bytes, 1024u);
  EXPECT_EQ(o.base.max_new_tokens, 7);
  EXPECT_EQ(o.base.sampling.top_p, 0.5);
}

TEST(serve_options, read_the_key_from_a_file) {
  const support::temporary_directory directory;
  EXPECT_EQ(served_with({"--api-key-file", directory.write("key", "secret\nmore\n").string()}).access.api_key,
            "secret");
  EXPECT_EQ(served_with({"--api-key", "told"}).access.api_key, "told");
  for (const char* text : {"secret", "secret\r\n", "secret \t\r\nmore"})
    EXPECT_EQ(served_with({"--api-key-file", directory.write("key", text).string()}).access.api_key,
              "secret");
  for (const char* text : {"", "\r\n", "\xef\xbb\xbfsecret\n", "sec\rret\n", "sec\x7fret", " secret\n"})
    EXPECT_THROW(served_with({"--api-key-file", directory.write("bad", text).string()}), error) << text;
  EXPECT_THROW(served_with({"--api-key", "sec\nret"}), error);
  EXPECT_THROW(served_with({"--api-key", "secret "}), error);
  try {
    served_with({"--api-key-file", (directory.path() / "none").string()});
    ADD_FAILURE();
  } catch (const error& problem) {
    EXPECT_TRUE(std::string(problem.what()).ends_with("none: cannot open")) << problem.what();
  }
}

TEST(serve_options, refuse_what_cannot_be) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--port", "65536"},
                                             {"--max-body", "x"},
                                             {"--max-batch", "0"},
                                             {"--max-connections", "0"},
                                             {"--receive-time", "0"},
                                             {"--receive-time", "nan"},
                                             {"--idle-time", "NaN"},
                                             {"--time-limit", "-nan"},
                                             {"--time-limit", "inf"},
                                             {"--prompt", "x"},
                                             {"--image", "x.png"},
                                             {"--api-key", ""}}) {
    testing::internal::CaptureStderr();
    EXPECT_THROW(served_with(words), usage_exit) << words[0];
    testing::internal::GetCapturedStderr();
  }
  EXPECT_THROW(served_with({"--keep", "ratio:0.5"}), error);
}

}  // namespace
}  // namespace corematching::driver
