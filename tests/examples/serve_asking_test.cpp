// SPDX-License-Identifier: Apache-2.0
// Questions whose pictures take long to decode, or that wait for others to be decoded.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/running_server.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;

const std::string short_question = R"({"messages":[{"role":"user","content":"What is this?"}]})";

/// Has as many pictures to decode as there may be, each of which takes `step`, until `ends`.
struct slow_decoding {
  std::chrono::milliseconds step;
  std::shared_ptr<std::atomic<int>> decoded = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<std::atomic<bool>> ends = std::make_shared<std::atomic<bool>>(false);

  void operator()(const question& asked) const {
    for (int i = 0; i < 400 && !*ends; ++i) {
      if (asked.go_on) asked.go_on();
      std::this_thread::sleep_for(step);
      ++*decoded;
    }
  }
};

/// Clients that keep everybody decoding who may.
std::vector<std::unique_ptr<support::http_client>> busy_clients(const support::running_server& server) {
  std::vector<std::unique_ptr<support::http_client>> clients;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    clients.push_back(std::make_unique<support::http_client>(server.port()));
    clients.back()->send(support::post_request(short_question));
  }
  return clients;
}

TEST(serve_asking, ends_where_nobody_waits_any_more) {
  const slow_decoding decoding{10ms};
  support::running_server server({.refuse = decoding});
  {
    const auto clients = busy_clients(server);
    ASSERT_TRUE(support::comes_true([&] { return *decoding.decoded > 0; }));
  }  // all leave
  EXPECT_TRUE(support::comes_true([&] { return server.clients.open() == 0; }, 1500ms));
  EXPECT_EQ(server.model.asked(), 0);
  *decoding.ends = true;
}

TEST(serve_asking, takes_no_longer_than_an_answer_may) {
  const slow_decoding decoding{10ms};
  support::running_server server({.refuse = decoding}, {.answering = 100ms});
  const auto clients = busy_clients(server);
  for (const auto& one : clients) {
    const support::http_response response = one->response(true, 1500ms);
    EXPECT_EQ(response.status, 503);
    EXPECT_NE(response.body.find("too_late"), std::string::npos) << response.body;
  }
  *decoding.ends = true;
}

TEST(serve_asking, waits_for_its_turn_no_longer_than_an_answer_may) {
  const slow_decoding decoding{900ms};
  support::running_server server({.refuse = decoding}, {.answering = 300ms});
  const auto clients = busy_clients(server);
  ASSERT_TRUE(support::comes_true([&] { return server.clients.open() == clients.size(); }));
  std::this_thread::sleep_for(100ms);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(server.post(short_question).status, 503);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 700ms);
  *decoding.ends = true;
}

TEST(serve_asking, ends_when_the_server_gives_up) {
  const slow_decoding decoding{10ms};
  support::running_server server({.refuse = decoding});
  const auto clients = busy_clients(server);
  ASSERT_TRUE(support::comes_true([&] { return *decoding.decoded > 0; }));
  server.to.refuse_further();
  server.to.abandon();
  for (const auto& one : clients) EXPECT_EQ(one->response(true, 1500ms).status, 503);
  *decoding.ends = true;
}

}  // namespace
}  // namespace corematching::driver
