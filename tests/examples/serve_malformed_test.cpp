// SPDX-License-Identifier: Apache-2.0
// Requests that are broken in every way that we could think of, over sockets, with the driver's picture
// decoders behind them. COREMATCHING_SERVE_FUZZ_SECONDS says for how long; the same seed gives the same
// requests.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/message.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/picture_file.hpp"
#include "support/paths.hpp"
#include "support/running_server.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;
using support::http_client;
using support::http_response;

std::vector<std::string> corpus_files(const std::string& name) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(support::test_directory() / "fuzz" / "corpus" / name))
    paths.push_back(entry.path());
  std::ranges::sort(paths);
  std::vector<std::string> files;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return files;
}

std::string base64_of(std::string_view bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = i; j < i + 3; ++j)
      bits = bits << 8 | (j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      text += i + j > bytes.size() ? '=' : digits[bits >> (18 - 6 * j) & 63];
  }
  return text;
}

class malformed_requests {
 public:
  explicit malformed_requests(std::uint64_t seed) : random_(seed) {}

  std::string next() {
    switch (below(8)) {
      case 0: return support::post_request(broken(body()));
      case 1: return support::post_request(picture_body(broken(one_of(pictures_))));
      case 2: return support::post_request(messages_body());
      case 3: return broken(support::post_request(body()));
      case 4: return broken_head();
      case 5: return chunked();
      case 6: return noise(1 + below(300));
      default: return support::post_request(field_body());
    }
  }
  std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }

 private:
  const std::string& one_of(const std::vector<std::string>& list) { return list[below(list.size())]; }
  std::string noise(std::size_t size) {
    std::string text(size, ' ');
    for (char& c : text) c = static_cast<char>(below(256));
    return text;
  }

  /// `text` with some bytes changed, taken out, doubled or cut off.
  std::string broken(std::string text) {
    for (std::size_t times = 1 + below(4); times > 0 && !text.empty(); --times) {
      const std::size_t at = below(text.size());
      switch (below(6)) {
        case 0: text[at] = static_cast<char>(below(256)); break;
        case 1: text[at] = static_cast<char>(text[at] ^ (1 << below(8))); break;
        case 2: text.erase(at, 1 + below(16)); break;
        case 3: text.insert(at, text.substr(below(text.size()), 1 + below(40))); break;
        case 4: text.insert(at, one_of(odd_)); break;
        default: text.resize(at); break;
      }
    }
    return text;
  }

  static std::string body() {
    return R"({"model":"fake","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"What is \u00fc?"}]}],"max_tokens":5,"temperature":0.5,"stop":["a"],"logprobs":true,"top_logprobs":2,"core_matching":{"sparsity":"both","beta":0.3,"match_layers":[1,2]}})";
  }
  static std::string picture_body(std::string_view picture) {
    return R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,)" +
           base64_of(picture) + R"("}},{"type":"text","text":"?"}]}]})";
  }
  std::string messages_body() { return R"({"messages":)" + broken(one_of(messages_)) + "}"; }
  /// One more field, of any name that there is, with a value that it may not have.
  std::string field_body() {
    std::string text = R"({"messages":[{"role":"user","content":"?"}],)";
    text += "\"" + one_of(names_) + "\":" + one_of(values_) + "}";
    return text;
  }
  std::string broken_head() {
    std::string head = "GET " + one_of(paths_) + " HTTP/1.1\r\nHost: " + one_of(hosts_) + "\r\n";
    for (std::size_t i = below(5); i > 0; --i) head += one_of(fields_) + ": " + one_of(odd_) + "\r\n";
    if (below(2) == 0) head = broken(head);
    return head + "\r\n";
  }
  std::string chunked() {
    const std::string whole = body();
    std::string text =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    for (std::size_t at = 0; at < whole.size(); at += 16) {
      text += at + 16 < whole.size() ? std::string("10") : one_of(sizes_);
      text += "\r\n" + whole.substr(at, 16) + (below(20) == 0 ? "" : "\r\n");
    }
    return text + (below(3) == 0 ? "" : "0\r\n\r\n");
  }

  std::mt19937_64 random_;
  const std::vector<std::string> pictures_ = corpus_files("picture"), messages_ = corpus_files("messages");
  const std::vector<std::string> odd_{"\0",
                                      "\r\n",
                                      "\n",
                                      "\r\n\r\n",
                                      "\xff\xfe",
                                      "{",
                                      "[[[[[[[[",
                                      "\"",
                                      "\\u0000",
                                      "\\ud800",
                                      "1e999",
                                      "-1",
                                      "18446744073709551616",
                                      "null",
                                      "data:",
                                      "data:image/png;base64,",
                                      "%00",
                                      "../../etc/passwd",
                                      "bytes=" + std::string(3000, ',') + "0-",
                                      std::string(5000, 'x'),
                                      std::string(64, '['),
                                      "<image>",
                                      "</s>",
                                      "chunked",
                                      "0",
                                      "close",
                                      "100-continue",
                                      "gzip"};
  const std::vector<std::string> names_{"model",
                                        "messages",
                                        "n",
                                        "tools",
                                        "max_tokens",
                                        "temperature",
                                        "top_p",
                                        "seed",
                                        "stop",
                                        "logprobs",
                                        "top_logprobs",
                                        "stream",
                                        "stream_options",
                                        "response_format",
                                        "core_matching",
                                        "anything"};
  const std::vector<std::string> values_{"null",
                                         "true",
                                         "-1",
                                         "1e308",
                                         "1e-320",
                                         "[]",
                                         "{}",
                                         "[[]]",
                                         "{\"preset\":\"paper\"}",
                                         "\"\"",
                                         "\"\\u0000\"",
                                         "{\"beta\":[1,2,3]}",
                                         "{\"keep\":\"ratio:nan\"}",
                                         "{\"sparsity\":\"both\",\"beta\":1e400}",
                                         "{\"sparsity\":\"tokens\",\"match_layers\":\"0-4096,0-4096\"}",
                                         "18446744073709551615",
                                         "[\"a\",1]"};
  const std::vector<std::string> paths_{"/",
                                        "/v1/models",
                                        "/metrics",
                                        "/health",
                                        "/v1/chat/completions",
                                        "/../../etc/passwd",
                                        "/%2e%2e/",
                                        "/?" + std::string(9000, 'q')};
  const std::vector<std::string> hosts_{"localhost", "127.0.0.1", "[::1",
                                        "a.example", "",          "localhost:99999999999"};
  const std::vector<std::string> fields_{
      "Content-Length", "Transfer-Encoding", "Range",        "Connection", "Expect",
      "Origin",         "Accept-Encoding",   "Content-Type", "Host",       "X"};
  const std::vector<std::string> sizes_{"10", "f",    "ffffffffffffffff", "-1",       "zz",
                                        "",   "0x10", "7fffffff",         "10;ext=1", std::string(500, '0')};
};

/// Looks at pictures as whoever answers does.
void look_at_pictures(const question& asked) {
  try {
    for (const chat::message& message : asked.messages)
      for (const chat::part& part : message.content)
        if (const auto* shown = std::get_if<chat::picture>(&part))
          static_cast<void>(decode_picture(shown->bytes, "messages: a picture", 1'000'000));
  } catch (const error& problem) {
    throw question_refused(refusal::bad_question, problem.what());
  }
}

/// Whether that is how the server may reply to anything.
bool is_sound(const http_response& response) {
  static const std::set<int> refusals{400, 401, 403, 404, 405, 408, 411, 413, 415, 431, 499, 503};
  if (response.status == 0 || response.status == 200) return true;  // nothing, where the request never ended
  return refusals.contains(response.status) && (response.body.empty() || io::json::accept(response.body));
}

TEST(serve, survives_malformed_requests) {
  support::running_server server({.step = 0ms, .refuse = look_at_pictures},
                                 {.receiving = 150ms, .idle = 300ms});
  const char* asked = std::getenv("COREMATCHING_SERVE_FUZZ_SECONDS");
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::seconds(asked != nullptr ? std::atoi(asked) : 2);
  std::atomic<int> sent = 0, replied = 0, unsound = 0;
  std::vector<std::thread> clients;
  for (std::uint64_t seed = 1; seed <= 4; ++seed)
    clients.emplace_back([&, seed] {
      malformed_requests requests(seed);
      while (std::chrono::steady_clock::now() < until) {
        http_client client(server.port());
        const std::string request = requests.next();
        client.send(request);
        ++sent;
        const std::size_t end = requests.below(8);
        if (end == 0) client.vanish();
        if (end > 0 && end < 7) client.say_no_more();  // otherwise it waits
        const http_response response = end == 0 ? http_response{} : client.response(true, 1000ms);
        replied += response.status > 0 ? 1 : 0;
        if (is_sound(response)) continue;
        ++unsound;
        ADD_FAILURE() << response.status << ' ' << response.body << " to " << io::in_quotes(request);
      }
    });
  for (std::thread& one : clients) one.join();
  std::cout << sent << " requests, " << replied << " replies\n";
  EXPECT_GT(replied, sent / 4);
  // Nobody is left behind, and every thread is free.
  EXPECT_TRUE(support::comes_true([&] { return server.clients.open() == 0 && server.model.running() == 0; }));
  std::vector<std::unique_ptr<http_client>> others;
  for (int i = 0; i < 64; ++i) {
    others.push_back(std::make_unique<http_client>(server.port()));
    others.back()->send(support::post_request(R"({"messages":[{"role":"user","content":"?"}]})"));
  }
  for (const auto& one : others) EXPECT_EQ(one->response().status, 200);
}

}  // namespace
}  // namespace corematching::driver
