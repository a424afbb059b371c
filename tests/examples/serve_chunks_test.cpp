// SPDX-License-Identifier: Apache-2.0
// Bodies in chunks, whole ones and others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "llava/serve/api_error.hpp"
#include "llava/serve/chunked_body.hpp"
#include "support/running_server.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view chunked_head =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

/// What the chunks of `text` hold, up to `at_once` bytes at a time; nothing where they do not end.
std::optional<std::string> unchunked(std::string_view text, std::size_t at_once = 3) {
  std::string body;
  const auto source = [&](char* to, std::size_t size) {
    const std::size_t count = std::min({size, at_once, text.size()});
    text.copy(to, count);
    text.remove_prefix(count);
    return static_cast<std::ptrdiff_t>(count);
  };
  const bool whole = read_chunks(source, [&](std::string_view more) { body += more; });
  return whole ? std::optional(body) : std::nullopt;
}

TEST(serve_chunks, are_put_together) {
  EXPECT_EQ(unchunked("5\r\nTwo r\r\n00A\r\ned cubes.\n\r\n0\r\n\r\n"), "Two red cubes.\n");
  EXPECT_EQ(unchunked("0\r\n\r\n"), "");
  EXPECT_EQ(unchunked("a;name=value\r\n0123456789\r\n0 ;x\r\nTrailer: x\r\n\r\nmore"), "0123456789");
  EXPECT_EQ(unchunked("5\r\nTwo"), std::nullopt);
  EXPECT_EQ(unchunked("5\r\nTwo r\r\n0\r\n"), std::nullopt);
}

TEST(serve_chunks, are_refused_where_they_could_be_read_in_two_ways) {
  const std::string long_line(max_chunk_line_bytes + 1, 'x');
  std::string extensions, trailers = "0\r\n";
  for (std::size_t i = 0; i <= max_chunk_extra_bytes / 100; ++i) {
    extensions += "1;" + std::string(120, 'x') + "\r\n?\r\n";
    trailers += "X: " + std::string(100, 'x') + "\r\n";
  }
  for (const std::string& text :
       {std::string("0x3b\r\n"), std::string(" +3b\r\n"), std::string("+3\r\n"), std::string("-3\r\n"),
        std::string("3bzzz\r\n"), std::string("\r\n"), std::string(";x\r\n"), std::string(" 3\r\n"),
        std::string("3 \r\n"), std::string("3 x\r\n"), std::string("3\n"), std::string("3\r3\r\n"),
        std::string("10000000000000000\r\n"), std::string("3\r\nabcd\r\n"), "5;" + long_line, long_line,
        "0\r\n" + long_line, extensions, trailers})
    EXPECT_THROW(unchunked(text), api_error) << text.substr(0, 40);
}

TEST(serve_chunks, have_lines_of_a_bounded_length_over_sockets) {
  support::running_server server;
  support::http_client client(server.port());
  client.send(std::string(chunked_head) + "5;" + std::string(100'000, 'a'));
  EXPECT_EQ(client.response(true, std::chrono::seconds(3)).status, 400);
  const std::string body = R"({"messages":[{"role":"user","content":"What is this?"}]})";
  for (const char* size : {"0x38", " 38", "38zzz", "+38"}) {
    support::http_client other(server.port());
    other.send(std::string(chunked_head) + size + "\r\n" + body + "\r\n0\r\n\r\n");
    EXPECT_EQ(other.response().status, 400) << size;
  }
  EXPECT_EQ(body.size(), 0x38u);
}

TEST(serve_chunks, leave_the_connection_open_for_what_follows) {
  support::running_server server;
  support::http_client client(server.port());
  client.send(std::string(chunked_head) +
              "38\r\n"
              R"({"messages":[{"role":"user","content":"What is this?"}]})"
              "\r\n0\r\n\r\n" +
              support::get_request("/health"));
  EXPECT_EQ(client.response().status, 200);
  EXPECT_EQ(client.response().body, R"({"status":"ok"})");
}

}  // namespace
}  // namespace corematching::driver
