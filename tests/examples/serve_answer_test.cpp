// SPDX-License-Identifier: Apache-2.0
// Heads of requests, who may ask, and how an answer is written, without a socket.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "llava/serve/access.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_answer.hpp"
#include "llava/serve/http_head.hpp"

namespace corematching::driver {
namespace {

TEST(serve_head, reads_what_a_client_sends) {
  const http_head head =
      parse_head("POST /v1/models?x=1 HTTP/1.1\r\nHost: a:1\r\nContent-Length:  12 \r\nX-Y:\r\n\r\n");
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.path, "/v1/models");
  EXPECT_EQ(head.length, 12u);
  EXPECT_EQ(*head.find("host"), "a:1");
  EXPECT_EQ(*head.find("x-y"), "");
  EXPECT_TRUE(head.stays && !head.is_old && !head.is_chunked);
  EXPECT_FALSE(parse_head("GET / HTTP/1.0\r\n\r\n").stays);
  EXPECT_TRUE(parse_head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").stays);
  EXPECT_FALSE(parse_head("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").stays);
  EXPECT_TRUE(parse_head("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_chunked);
}

TEST(serve_head, refuses_what_two_readers_could_understand_differently) {
  for (const std::string text : {"",
                                 "\r\n",
                                 "GET /\r\n\r\n",
                                 "GET / HTTP/2\r\n\r\n",
                                 "GET  / HTTP/1.1\r\n\r\n",
                                 "G(T / HTTP/1.1\r\n\r\n",
                                 "GET http://a/ HTTP/1.1\r\n\r\n",
                                 "GET /a b HTTP/1.1\r\n\r\n",
                                 "GET / HTTP/1.1\r\nno field\r\n\r\n",
                                 "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
                                 "GET / HTTP/1.1\r\nA : x\r\n\r\n",
                                 "GET / HTTP/1.1\r\nA: x\ny\r\n\r\n",
                                 "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                                 "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                 "GET / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n",
                                 "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                                 "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                                 "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                                 "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                                 "GET / HTTP/1.1\r\nA: x\r\n"})
    EXPECT_THROW(parse_head(text), api_error) << text;
}

int access_status(const std::string& fields, const access_rules& rules) {
  try {
    const http_head head = parse_head("GET / HTTP/1.1\r\n" + fields + "\r\n");
    check_host(head, rules);
    check_key(head, rules);
    return 200;
  } catch (const api_error& problem) {
    return problem.status();
  }
}

TEST(serve_access, goes_by_addresses_and_by_names_that_it_was_given) {
  const access_rules rules{.hosts = {"here.example"}};
  for (const char* host :
       {"localhost", "LOCALHOST:8080", "127.0.0.1", "10.1.2.3:80", "[::1]", "[::1]:8080", "Here.Example:1"})
    EXPECT_EQ(access_status(std::string("Host: ") + host + "\r\n", rules), 200) << host;
  for (const char* host : {"attacker.example", "localhost.attacker.example", "127.0.0.1.nip.io", "[::1]x",
                           "[::1", "localhost:x", ""})
    EXPECT_EQ(access_status(std::string("Host: ") + host + "\r\n", rules), 403) << host;
  EXPECT_EQ(access_status("", rules), 400);
  EXPECT_EQ(access_status("Host: localhost\r\nHost: localhost\r\n", rules), 400);
}

TEST(serve_access, takes_requests_of_its_own_page_alone) {
  const auto of_page = [](const std::string& origin) {
    return access_status("Host: localhost:8080\r\nOrigin: " + origin + "\r\n", {});
  };
  EXPECT_EQ(of_page("http://localhost:8080"), 200);
  EXPECT_EQ(of_page("https://localhost:8080"), 200);
  for (const char* origin :
       {"null", "http://localhost", "http://localhost:8081", "http://attacker.example", ""})
    EXPECT_EQ(of_page(origin), 403) << origin;
}

TEST(serve_access, asks_for_the_key) {
  const access_rules rules{.api_key = "secret"};
  const auto with_key = [&](const std::string& field) {
    return access_status("Host: localhost\r\n" + field, rules);
  };
  EXPECT_EQ(with_key("Authorization: Bearer secret\r\n"), 200);
  EXPECT_EQ(with_key("Authorization: bEARER secret\r\n"), 200) << "RFC 9110, 11.1";
  for (const char* field : {"", "Authorization: Bearer secre\r\n", "Authorization: Bearer secret2\r\n",
                            "Authorization: Bearer \r\n", "Authorization: secret\r\n",
                            "Authorization: Bearer secret\r\nAuthorization: Bearer secret\r\n"})
    EXPECT_EQ(with_key(field), 401) << field;
}

TEST(serve_answer, has_the_form_of_the_api) {
  answer_heading heading{.id = "chatcmpl-1", .created = 5, .model = "m", .with_logprobs = true};
  answer_complete end;
  end.report.answer = "A \xff";
  end.report.finished = "context";
  end.report.prompt_tokens = 10;
  end.report.generated_ids = {1, 2};
  end.cached_tokens = 4;
  const std::vector<said_token> tokens{
      {{1, "A ", -0.5}, {{1, "A ", -0.5}, {3, "\xff", -1e300}, {4, "</s>", -2, false}}}};
  const io::json answer = io::json::parse(whole_answer(heading, end, tokens, {.first_token = 2}));
  EXPECT_EQ(answer.at("object"), "chat.completion");
  const io::json& choice = answer.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "A \xef\xbf\xbd");
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_EQ(
      answer.at("usage"),
      io::json::parse(
          R"({"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4}})"));
  const io::json& token = choice.at("logprobs").at("content").at(0);
  EXPECT_EQ(token.at("token"), "A ");
  EXPECT_EQ(token.at("bytes"), io::json::parse("[65,32]"));
  EXPECT_EQ(token.at("top_logprobs").at(1).at("logprob"), -9999);
  EXPECT_EQ(token.at("top_logprobs").at(1).at("bytes"), io::json::parse("[255]"));
  EXPECT_EQ(token.at("top_logprobs").at(1).at("token"), "\xef\xbf\xbd");
  EXPECT_EQ(token.at("top_logprobs").at(2).at("token"), "</s>");
  EXPECT_TRUE(token.at("top_logprobs").at(2).at("bytes").is_null());
  EXPECT_EQ(answer.at("core_matching").at("seconds").at("first_token"), 2);
}

TEST(serve_answer, says_what_was_kept_of_each_picture) {
  answer_complete end;
  end.report.image_tokens = 8;
  end.report.thinned = thinned_tokens{"duplication", 8, {3, 4, 6, 9, 12}};
  end.report.matches.push_back(
      {.layer = 1, .kept_positions = {}, .kept_image_positions = {4, 6, 9}, .image_tokens = 5});
  end.picture_positions = {3, 9};
  const io::json answer = io::json::parse(whole_answer({}, end, {}, {}));
  EXPECT_EQ(
      answer.at("core_matching").at("pictures"),
      io::json::parse(R"([{"position":3,"tokens":4,"entered":[0,1,3],"layers":[{"layer":1,"kept":[1,3]}]},
                                {"position":9,"tokens":4,"entered":[0,3],"layers":[{"layer":1,"kept":[0]}]}])"));
  EXPECT_TRUE(answer.at("core_matching").at("neurons").is_null());
}

TEST(serve_answer, holds_scores_where_they_are_asked_for) {
  answer_complete end;
  end.report.image_tokens = 6;
  end.report.matches.push_back({.layer = 1,
                                .kept_positions = {},
                                .kept_image_positions = {4},
                                .image_tokens = 4,
                                .image_scores = {{3, 7}, {4, 9007199254740992}, {9, 0.25}, {11, -2}}});
  end.picture_positions = {3, 9};
  for (const bool with : {false, true}) {
    answer_heading heading;
    heading.with_scores = with;
    const io::json pictures =
        io::json::parse(whole_answer(heading, end, {}, {})).at("core_matching").at("pictures");
    for (const int i : {0, 1}) {
      const io::json& layer = pictures.at(i).at("layers").at(0);
      ASSERT_EQ(layer.contains("scores"), with);
      if (!with) continue;
      EXPECT_EQ(layer.at("scores").dump(), i == 0 ? "[7,9007199254740992,null]" : "[0.25,null,-2]");
    }
  }
}

TEST(serve_answer, comes_in_chunks_with_usage_where_it_is_asked_for) {
  answer_heading heading{.id = "chatcmpl-1", .created = 5, .model = "m"};
  EXPECT_FALSE(io::json::parse(first_chunk(heading)).contains("usage"));
  heading.includes_usage = true;
  const io::json first = io::json::parse(first_chunk(heading));
  EXPECT_TRUE(first.at("usage").is_null());
  EXPECT_EQ(first.at("choices").at(0).at("delta"), io::json::parse(R"({"role":"assistant","content":""})"));
  EXPECT_TRUE(first.at("choices").at(0).at("finish_reason").is_null());
  EXPECT_EQ(io::json::parse(text_chunk(heading, {.text = "x"})).at("choices").at(0).at("delta"),
            io::json::parse(R"({"content":"x"})"));
  answer_complete end;
  end.report.finished = "stop";
  const io::json last = io::json::parse(last_chunk(heading, end, {}));
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(last.at("choices").at(0).at("delta"), io::json::object());
  const io::json usage = io::json::parse(usage_chunk(heading, end));
  EXPECT_EQ(usage.at("choices"), io::json::array());
  EXPECT_EQ(usage.at("usage").at("total_tokens"), 0);
}

}  // namespace
}  // namespace corematching::driver
