// SPDX-License-Identifier: Apache-2.0
// The server as clients see it, over sockets.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "support/running_server.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;
using support::comes_true;
using support::get_request;
using support::http_client;
using support::http_response;
using support::post_request;
using support::running_server;

std::string asked_text(const std::string& more = "") {
  return R"({"model":"fake","messages":[{"role":"user","content":"What is this?"}])" + more + "}";
}

/// The data of each event of a stream.
std::vector<std::string> events_of(std::string_view body) {
  std::vector<std::string> events;
  while (!body.empty()) {
    const auto end = body.find("\n\n");
    EXPECT_NE(end, body.npos) << body;
    if (end == body.npos) break;
    if (body.starts_with("data: ")) events.emplace_back(body.substr(6, end - 6));
    body.remove_prefix(end + 2);
  }
  return events;
}

io::json error_in(const http_response& response) {
  return io::json::parse(response.body).at("error");
}

TEST(serve, gives_a_whole_answer) {
  running_server server;
  const http_response response = server.post(asked_text(R"(,"logprobs":true,"top_logprobs":2)"));
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.fields.at("content-type"), "application/json");
  const io::json answer = io::json::parse(response.body);
  const io::json& choice = answer.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "Two red cubes.");
  EXPECT_EQ(choice.at("logprobs").at("content").size(), 4u);
  EXPECT_EQ(choice.at("logprobs").at("content").at(1).at("top_logprobs").size(), 2u);
  EXPECT_EQ(answer.at("usage").at("completion_tokens"), 4);
  EXPECT_EQ(answer.at("core_matching").at("seconds").at("waiting"), 0.25);
  EXPECT_GT(answer.at("core_matching").at("seconds").at("first_token"), 0);
}

TEST(serve, streams_an_answer) {
  running_server server;
  const http_response response =
      server.post(asked_text(R"(,"stream":true,"stream_options":{"include_usage":true})"));
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_TRUE(response.is_complete);
  EXPECT_EQ(response.fields.at("content-type"), "text/event-stream");
  const auto events = events_of(response.body);
  ASSERT_EQ(events.size(), 8u) << response.body;
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  for (std::size_t i = 0; i < 5; ++i)
    text += io::json::parse(events[i]).at("choices").at(0).at("delta").at("content").get<std::string>();
  EXPECT_EQ(text, "Two red cubes.");
  EXPECT_EQ(io::json::parse(events[5]).at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(io::json::parse(events[5]).at("core_matching").at("pictures").size(), 2u);
  EXPECT_EQ(io::json::parse(events[6]).at("usage").at("total_tokens"), 19);
}

TEST(serve, answers_several_requests_of_a_connection) {
  running_server server;
  http_client client(server.port());
  client.send(post_request(asked_text()) + get_request("/health") +
              post_request(asked_text(R"(,"stream":true)")));
  EXPECT_EQ(client.response().status, 200);
  EXPECT_EQ(client.response().body, R"({"status":"ok"})");
  EXPECT_TRUE(client.response().body.ends_with("data: [DONE]\n\n"));
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string body = asked_text();
  client.send("10\r\n" + body.substr(0, 16) + "\r\n" + "1000\r\n");
  client.send(body.substr(16));
  EXPECT_TRUE(client.receive(1s));  // goes on
  client.leave();
}

TEST(serve, reads_bodies_in_chunks) {
  running_server server;
  http_client client(server.port());
  const std::string body = asked_text();
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; "
      "charset=utf-8\r\n"
      "Transfer-Encoding: chunked\r\n\r\n10\r\n" +
      body.substr(0, 16) + "\r\n");
  std::ostringstream size;
  size << std::hex << body.size() - 16;
  client.send(size.str() + "\r\n" + body.substr(16) + "\r\n0\r\n\r\n");
  EXPECT_EQ(client.response().status, 200);
}

TEST(serve, speaks_with_clients_of_http_1_0) {
  running_server server;
  const std::string body = asked_text(R"(,"stream":true)");
  http_client client(server.port());
  client.send(
      "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  const http_response response = client.response();
  EXPECT_FALSE(response.fields.contains("transfer-encoding"));
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n")) << response.body;
}

TEST(serve, describes_its_model_health_and_figures) {
  running_server server;
  EXPECT_EQ(server.post(asked_text()).status, 200);
  const io::json models = io::json::parse(server.get("/v1/models").body);
  EXPECT_EQ(models.at("object"), "list");
  EXPECT_EQ(models.at("data").at(0).at("id"), "fake");
  EXPECT_EQ(io::json::parse(server.get("/v1/models/fake").body), models.at("data").at(0));
  EXPECT_EQ(server.get("/v1/models/other").status, 404);
  EXPECT_EQ(server.get("/health").status, 200);
  const http_response figures = server.get("/metrics");
  EXPECT_TRUE(figures.fields.at("content-type").starts_with("text/plain; version=0.0.4"));
  for (const char* line :
       {"llava_answers_total 1\n", "# TYPE llava_answers_total counter\n",
        "llava_first_token_seconds_count 1\n", "llava_http_requests_total{status=\"200\"} ",
        "llava_http_requests_total{status=\"404\"} 1\n",
        "llava_info{model=\"fake\",weights=\"f32\",computed_by=\"nobody\"} 1\n"})
    EXPECT_NE(figures.body.find(line), std::string::npos) << line << figures.body;
  const http_response page = server.get("/");
  EXPECT_EQ(page.fields.at("content-type"), "text/html; charset=utf-8");
  EXPECT_TRUE(page.body.ends_with("</html>\n"));
  EXPECT_NE(page.fields.at("content-security-policy").find("default-src 'none'"), std::string::npos);
  http_client head(server.port());
  head.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n" + get_request("/health"));
  EXPECT_EQ(head.response(false).fields.at("content-length"), std::to_string(page.body.size()));
  EXPECT_EQ(head.response().body, R"({"status":"ok"})");
}

TEST(serve, refuses_with_the_status_that_says_why) {
  running_server server({}, {.body_bytes = 2000}, {.api_key = "key"});
  const std::string key = "Authorization: Bearer key\r\n";
  const auto status_of = [&](const std::string& request) {
    http_client client(server.port());
    client.send(request);
    const http_response response = client.response();
    EXPECT_TRUE(io::json::parse(response.body).contains("error")) << request;
    return response.status;
  };
  EXPECT_EQ(server.get("/v1/models").status, 401);
  EXPECT_EQ(server.get("/v1/models").fields.at("www-authenticate"), "Bearer");
  EXPECT_EQ(server.get("/metrics").status, 401);
  EXPECT_EQ(server.get("/health").status, 200);
  EXPECT_EQ(server.get("/").status, 200);
  EXPECT_EQ(status_of(post_request("{}")), 401);
  EXPECT_EQ(status_of(post_request("{}", key)), 400);
  EXPECT_EQ(status_of(post_request("{", key)), 400);
  EXPECT_EQ(status_of(get_request("/v1/completions", key)), 404);
  EXPECT_EQ(status_of(get_request("/v1/chat/completions", key)), 405);
  EXPECT_EQ(status_of("DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
  EXPECT_EQ(
      status_of(
          "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n"),
      405);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: attacker.example\r\n\r\n"), 403);
  EXPECT_EQ(status_of(post_request("{}", key + "Origin: http://attacker.example\r\n")), 403);
  EXPECT_EQ(
      status_of("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n" +
                key + "Content-Length: 2\r\n\r\n{}"),
      415);
  EXPECT_EQ(status_of(post_request("{}", key + "Content-Encoding: gzip\r\n")), 415);
  EXPECT_EQ(
      status_of(
          "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
          key + "\r\n"),
      411);
  EXPECT_EQ(status_of("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n"),
            431);
  EXPECT_EQ(server.model.asked(), 0);
}

TEST(serve, refuses_bodies_that_are_too_long_before_they_are_sent) {
  running_server server({}, {.body_bytes = 2000});
  const std::string body = asked_text(",\"user\":\"" + std::string(3000, 'u') + "\"");
  http_client client(server.port());
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n");
  const http_response early = client.response();
  EXPECT_EQ(early.status, 413);
  EXPECT_EQ(early.fields.at("connection"), "close");
  http_client insistent(server.port());  // and sends it all the same
  insistent.send(post_request(std::string(20'000'000, ' ')));
  EXPECT_EQ(insistent.response().status, 413);
  http_client chunked(server.port());
  chunked.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n1000\r\n" +
      body);
  EXPECT_EQ(chunked.response().status, 413);
}

TEST(serve, bounds_what_all_bodies_take_together) {
  running_server server({}, {.all_body_bytes = 1000});
  const auto holds = support::client_in_the_way(server);
  ASSERT_NE(holds, nullptr);
  holds->leave();
  EXPECT_TRUE(comes_true([&] { return server.post(support::question_of(300)).status == 200; }));
}

TEST(serve, tells_why_a_question_is_refused_before_the_status_line) {
  const std::pair<refusal, int> statuses[] = {{refusal::bad_question, 400},
                                              {refusal::too_large, 413},
                                              {refusal::too_busy, 429},
                                              {refusal::failed, 500}};
  for (const auto& [why, status] : statuses) {
    running_server server(
        {.refuse = [why = why](const question&) { throw question_refused(why, "not that"); }});
    for (const char* more : {"", R"(,"stream":true)"}) {
      const http_response response = server.post(asked_text(more));
      EXPECT_EQ(response.status, status);
      EXPECT_EQ(error_in(response).at("message"), "not that");
      EXPECT_EQ(response.fields.contains("retry-after"), status == 429);
    }
  }
  for (const auto& [text, param] :
       {std::pair("--match-layers: beyond the model", "core_matching.match_layers"),
        std::pair("no image tokens", "core_matching")}) {
    running_server server(
        {.refuse = [text = text](const question&) { throw question_refused(refusal::bad_settings, text); }});
    const http_response response = server.post(asked_text());
    EXPECT_EQ(response.status, 400);
    EXPECT_EQ(error_in(response).at("param"), param);
  }
  running_server broken({.refuse = [](const question&) { fail("messages: a picture: is no picture"); }});
  EXPECT_EQ(broken.post(asked_text()).status, 400);
  running_server odd({.refuse = [](const question&) { throw std::logic_error("a mistake"); }});
  EXPECT_EQ(odd.post(asked_text()).status, 500);
  EXPECT_EQ(odd.get("/health").status, 200);
}

TEST(serve, tells_where_an_answer_broke_off) {
  running_server server({.fails = answer_failed{refusal::failed, "out of luck"}});
  EXPECT_EQ(server.post(asked_text()).status, 500);
  const auto events = events_of(server.post(asked_text(R"(,"stream":true)")).body);
  EXPECT_EQ(io::json::parse(events.back()).at("error").at("message"), "out of luck");
}

TEST(serve, ends_answers_that_take_too_long) {
  running_server server({.words = std::vector<std::string>(1000, "x"), .step = 5ms}, {.answering = 100ms});
  const http_response whole = server.post(asked_text());
  EXPECT_EQ(whole.status, 503);
  EXPECT_EQ(error_in(whole).at("code"), "too_late");
  const auto events = events_of(server.post(asked_text(R"(,"stream":true)")).body);
  EXPECT_EQ(io::json::parse(events.back()).at("error").at("code"), "too_late");
  EXPECT_TRUE(comes_true([&] { return server.model.cancelled() == 2; }));
}

TEST(serve, stops_answering_within_a_step_when_nobody_waits) {
  for (const bool streamed : {false, true})
    for (const bool farewell : {false, true}) {
      running_server server({.words = std::vector<std::string>(1000, "x"), .step = 150ms});
      http_client client(server.port());
      client.send(post_request(asked_text(streamed ? R"(,"stream":true)" : "")));
      ASSERT_TRUE(comes_true([&] { return server.model.steps() > 0; }));
      const int before = server.model.steps();
      farewell ? client.leave() : client.vanish();
      ASSERT_TRUE(comes_true([&] { return server.model.running() == 0; }));
      EXPECT_EQ(server.model.cancelled(), 1);
      EXPECT_LE(server.model.steps(), before + 2) << streamed << farewell;
      EXPECT_TRUE(comes_true([&] { return server.clients.open() == 0; }));
    }
}

TEST(serve, forgets_clients_that_vanish) {
  running_server server({.words = std::vector<std::string>(50, "x"), .step = 5ms});
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<http_client>> clients;
    for (int i = 0; i < 16; ++i) {
      clients.push_back(std::make_unique<http_client>(server.port()));
      clients.back()->send(post_request(asked_text(i % 2 == 0 ? R"(,"stream":true)" : "")));
    }
    ASSERT_TRUE(comes_true([&] { return server.model.running() == 16; }));
    for (const auto& client : clients) client->vanish();
    EXPECT_TRUE(comes_true([&] { return server.model.running() == 0 && server.clients.open() == 0; }));
  }
  EXPECT_EQ(server.model.cancelled(), 32);
  EXPECT_EQ(server.post(asked_text()).status, 200);
}

TEST(serve, answers_64_clients_at_once) {
  running_server server({.words = std::vector<std::string>(20, "x"), .step = 5ms});
  std::vector<std::unique_ptr<http_client>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<http_client>(server.port()));
    clients.back()->send(post_request(asked_text(i % 2 == 0 ? R"(,"stream":true)" : "")));
  }
  EXPECT_TRUE(comes_true([&] { return server.model.asked() == 64; }));
  for (const auto& client : clients) {
    const http_response response = client->response();
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.is_complete);
  }
  EXPECT_EQ(server.model.answered(), 64);
}

TEST(serve, answers_others_while_32_clients_trickle) {
  running_server server({}, {.connections = 40, .receiving = 600ms});
  std::vector<std::unique_ptr<http_client>> slow;
  const std::string request = post_request(asked_text());
  for (int i = 0; i < 32; ++i) {  // half of them trickle the body
    slow.push_back(std::make_unique<http_client>(server.port()));
    slow.back()->send(request.substr(0, i % 2 == 0 ? 4 : request.size() - 60));
  }
  std::atomic<bool> ends = false;
  std::thread trickling([&] {
    for (std::size_t at = 0; !ends; ++at, std::this_thread::sleep_for(20ms))
      for (std::size_t i = 0; i < slow.size(); ++i)
        slow[i]->send(request.substr((i % 2 == 0 ? 4 : request.size() - 60) + at % 30, 1));
  });
  for (int i = 0; i < 20; ++i, std::this_thread::sleep_for(20ms))
    EXPECT_EQ(server.post(asked_text()).status, 200);
  ends = true;
  trickling.join();
  for (const auto& one : slow) EXPECT_TRUE(one->is_closed(3s));  // each had its time
  EXPECT_TRUE(comes_true([&] { return server.clients.open() == 0; }));
}

TEST(serve, gives_the_thread_of_a_slow_client_to_another) {
  running_server server({}, {.connections = 4, .receiving = 60s});
  std::vector<std::unique_ptr<http_client>> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(std::make_unique<http_client>(server.port()));
    slow.back()->send("POST /v1/chat");
  }
  ASSERT_TRUE(comes_true([&] { return server.clients.open() == 4; }));
  EXPECT_TRUE(comes_true([&] { return server.get("/health").status == 200; }, 5s));
  EXPECT_GE(server.clients.total_cut(), 1u);
}

TEST(serve, says_so_when_all_connections_are_answered) {
  running_server server({.words = std::vector<std::string>(300, "x"), .step = 5ms}, {.connections = 3});
  std::vector<std::unique_ptr<http_client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<http_client>(server.port()));
    clients.back()->send(post_request(asked_text()));
  }
  ASSERT_TRUE(comes_true([&] { return server.model.running() == 3; }));
  http_client fourth(server.port());
  const http_response refused = fourth.response();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(error_in(refused).at("code"), "too_many_connections");
  for (const auto& client : clients) EXPECT_EQ(client->response().status, 200);
}

// The thread that refuses is the one that all others are waiting for.
TEST(serve, hears_no_more_than_a_little_of_whom_it_refuses) {
  running_server server({.words = std::vector<std::string>(1000, "x"), .step = 5ms}, {.connections = 1});
  http_client answered(server.port());
  answered.send(post_request(asked_text()));
  ASSERT_TRUE(comes_true([&] { return server.model.running() == 1; }));
  const std::string more(std::size_t{1} << 20, 'x');
  for (int attempt = 0; attempt < 50; ++attempt) {
    http_client refused(server.port());
    int taken = 0;  // MiB, by the server and the system
    while (taken < 32 && refused.send(more)) ++taken;
    EXPECT_LT(taken, 32);
  }
  answered.leave();
}

TEST(serve, closes_connections_that_say_nothing) {
  running_server server({}, {.receiving = 200ms, .idle = 200ms});
  http_client silent(server.port()), late(server.port());
  late.send("GET / HT");
  EXPECT_EQ(late.response().status, 408);
  EXPECT_TRUE(silent.is_closed(2s));
  EXPECT_EQ(silent.read(), "");
}

TEST(serve, answers_what_it_took_before_it_ends) {
  running_server server({.words = std::vector<std::string>(40, "x"), .step = 10ms});
  http_client whole(server.port()), streamed(server.port()), idle(server.port()), slow(server.port());
  whole.send(post_request(asked_text()));
  streamed.send(post_request(asked_text(R"(,"stream":true)")));
  slow.send("POST /v1");
  ASSERT_TRUE(comes_true([&] { return server.model.running() == 2 && server.clients.open() == 4; }));
  server.stop();
  EXPECT_EQ(server.model.state().answered, 2u);
  EXPECT_EQ(whole.response().status, 200);
  EXPECT_TRUE(streamed.response().body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(idle.is_closed(1s));
  EXPECT_THROW(http_client another(server.port()), std::runtime_error);
}

TEST(serve, ends_answers_when_it_is_told_to_give_them_up) {
  running_server server({.words = std::vector<std::string>(10'000, "x"), .step = 10ms});
  http_client whole(server.port()), streamed(server.port());
  whole.send(post_request(asked_text()));
  streamed.send(post_request(asked_text(R"(,"stream":true)")));
  ASSERT_TRUE(comes_true([&] { return server.model.running() == 2; }));
  server.to.refuse_further();
  EXPECT_EQ(server.post(asked_text()).status, 503);
  EXPECT_EQ(server.get("/health").status, 503);
  server.to.abandon();
  server.stop();
  EXPECT_EQ(whole.response().status, 503);
  EXPECT_EQ(io::json::parse(events_of(streamed.response().body).back()).at("error").at("code"),
            "shutting_down");
}

TEST(serve, does_not_share_its_port) {
  running_server server;
  connections clients;
  try {
    http_server(server.to, clients, server.limits, "127.0.0.1", server.port());
    FAIL();
  } catch (const error& problem) {
    EXPECT_EQ(problem.what(), "cannot listen on port " + std::to_string(server.port()) + " of 127.0.0.1");
  }
}

}  // namespace
}  // namespace corematching::driver
