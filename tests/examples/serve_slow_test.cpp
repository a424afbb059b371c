// SPDX-License-Identifier: Apache-2.0
// Clients that take slowly what they are sent, or hold what others need.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "llava/serve/connection.hpp"
#include "support/running_server.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;
using clock_of_test = std::chrono::steady_clock;

/// Asks for the page more often than sockets have room for, and reads nothing.
std::unique_ptr<support::http_client> greedy_client(const support::running_server& server) {
  auto client = std::make_unique<support::http_client>(server.port());
  std::string requests;
  for (int i = 0; i < 1500; ++i) requests += support::get_request("/");
  client->send(requests);
  return client;
}

bool is_sending(const support::running_server& server) {
  return server.clients.at(connection::stage::sending) == server.clients.open();
}

TEST(serve_slow, a_write_has_its_time_however_much_of_it_is_taken) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const int small = 4096;
  ASSERT_EQ(::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  const serve_limits limits{.sending = 200ms};
  auto client = std::make_unique<connection>(ends[0], limits);
  std::thread taking([&] {
    std::array<char, 1024> block;
    while (::recv(ends[1], block.data(), block.size(), 0) > 0) std::this_thread::sleep_for(5ms);
  });
  const std::string reply(400'000, 'x');
  EXPECT_FALSE(client->write(reply.data(), reply.size()));
  client = nullptr;
  taking.join();
  ::close(ends[1]);
}

TEST(serve_slow, who_takes_nothing_gives_way) {
  support::running_server server({}, {.connections = 2, .sending = 60s});
  const auto first = greedy_client(server), second = greedy_client(server);
  ASSERT_TRUE(support::comes_true([&] { return server.clients.open() == 2 && is_sending(server); }));
  EXPECT_TRUE(support::comes_true([&] { return server.get("/health").status == 200; }, 5s));
  EXPECT_GE(server.clients.total_cut(), 1u);
}

TEST(serve_slow, who_takes_nothing_is_not_waited_for_when_the_server_gives_up) {
  support::running_server server({}, {.sending = 20s});
  const auto client = greedy_client(server);
  ASSERT_TRUE(support::comes_true([&] { return server.clients.open() == 1 && is_sending(server); }));
  server.to.refuse_further();
  server.to.abandon();
  const auto begin = clock_of_test::now();
  server.stop();
  EXPECT_LT(clock_of_test::now() - begin, 3s);
}

TEST(serve_slow, a_request_that_has_begun_is_not_waited_for_when_the_server_ends) {
  support::running_server server({.words = std::vector<std::string>(20, "x"), .step = 10ms},
                                 {.receiving = 10s});
  support::http_client client(server.port());
  client.send(support::post_request(R"({"messages":[{"role":"user","content":"What is this?"}]})") +
              "GET /heal");
  ASSERT_TRUE(support::comes_true([&] { return server.model.running() == 1; }));
  const auto begin = clock_of_test::now();
  server.stop();
  EXPECT_LT(clock_of_test::now() - begin, 5s);
  const support::http_response response = client.response();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.is_complete);
}

TEST(serve_slow, a_body_that_stays_out_gives_way_to_another) {
  support::running_server server({}, {.all_body_bytes = 1000});
  const auto holds = support::client_in_the_way(server);
  ASSERT_NE(holds, nullptr) << "it gave way within its first second";
  EXPECT_TRUE(support::comes_true([&] { return server.post(support::question_of(300)).status == 200; }, 4s));
  EXPECT_TRUE(holds->is_closed(1s));
}

}  // namespace
}  // namespace corematching::driver
