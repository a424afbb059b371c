// SPDX-License-Identifier: Apache-2.0
// What a request asks, and how an answer is written, without a socket.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "llava/serve/access.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_answer.hpp"
#include "llava/serve/chat_request.hpp"
#include "llava/serve/http_head.hpp"

namespace corematching::driver {
namespace {

const answering_model seeing{
    .name = "m", .sees_pictures = true, .context = 100, .weights = "f32", .computed_by = "c"};

options serve_base() {
  options o;
  o.messages = "messages";
  o.max_new_tokens = 77;
  return o;
}

io::json plain_request() {
  return {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "What is this?"}}}}};
}

/// A request with one more field.
io::json with_field(const std::string& name, const io::json& value) {
  io::json request = plain_request();
  request[name] = value;
  return request;
}

chat_request parse_served(const io::json& request, const answering_model& model = seeing) {
  const options base = serve_base();
  return parse_chat_request(request.dump(), {base, model, 2});
}

/// What a request is refused with; status 0 where it is not.
api_error refused_with(const std::string& body, const answering_model& model = seeing) {
  const options base = serve_base();
  try {
    static_cast<void>(parse_chat_request(body, {base, model, 2}));
  } catch (const api_error& problem) {
    return problem;
  }
  return {0, "", "accepted"};
}

TEST(serve_request, takes_from_the_server_what_it_does_not_say) {
  const chat_request request = parse_served(plain_request());
  EXPECT_EQ(request.asked.how.max_new_tokens, 77);
  EXPECT_EQ(request.asked.how.sampling.temperature, 0);
  EXPECT_FALSE(request.is_streamed || request.includes_usage || request.asked.with_logprobs);
  ASSERT_EQ(request.asked.messages.size(), 1u);
  EXPECT_EQ(std::get<std::string>(request.asked.messages[0].content.at(0)), "What is this?");
  EXPECT_NE(request.asked.how.sampling.seed, parse_served(plain_request()).asked.how.sampling.seed);
}

TEST(serve_request, reads_every_field_of_generation) {
  io::json body = plain_request();
  body.update({{"max_tokens", 5},
               {"temperature", 0.5},
               {"top_p", 0.25},
               {"seed", -1},
               {"stop", {"a", "b"}},
               {"logprobs", true},
               {"top_logprobs", 3},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"n", 1},
               {"tools", io::json::array()},
               {"response_format", {{"type", "text"}}},
               {"user", "somebody"},
               {"a_field_of_next_year", {{"x", 1}}}});
  const chat_request request = parse_served(body);
  const options& how = request.asked.how;
  EXPECT_EQ(how.max_new_tokens, 5);
  EXPECT_EQ(how.sampling.temperature, 0.5);
  EXPECT_EQ(how.sampling.top_p, 0.25);
  EXPECT_EQ(how.sampling.seed, UINT64_MAX);
  EXPECT_EQ(how.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(request.asked.with_logprobs && request.is_streamed && request.includes_usage);
  EXPECT_EQ(request.asked.top_logprobs, 3);
  EXPECT_EQ(parse_served(with_field("stop", "end")).asked.how.stops, std::vector<std::string>{"end"});
  body["max_completion_tokens"] = 6;
  EXPECT_EQ(parse_served(body).asked.how.max_new_tokens, 6);
}

TEST(serve_request, takes_null_for_absence) {
  io::json body = plain_request();
  for (const char* name :
       {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "logprobs",
        "top_logprobs", "stream", "stream_options", "tools", "response_format", "n", "core_matching"})
    body[name] = nullptr;
  EXPECT_EQ(parse_served(body).asked.how.max_new_tokens, 77);
}

TEST(serve_request, names_the_field_that_it_refuses) {
  const std::vector<std::pair<std::string, io::json>> wrong{{"max_tokens", 0},
                                                            {"max_tokens", "5"},
                                                            {"max_completion_tokens", -1},
                                                            {"temperature", 2.5},
                                                            {"temperature", -0.1},
                                                            {"top_p", 0},
                                                            {"top_p", 1.5},
                                                            {"seed", 1.5},
                                                            {"stop", ""},
                                                            {"stop", {1}},
                                                            {"stop", {"a", "b", "c", "d", "e"}},
                                                            {"logprobs", 1},
                                                            {"top_logprobs", 2},
                                                            {"top_logprobs", 21},
                                                            {"stream", "yes"},
                                                            {"stream_options", io::json::object()},
                                                            {"tools", {{{"type", "function"}}}},
                                                            {"tool_choice", "required"},
                                                            {"functions", {1}},
                                                            {"response_format", {{"type", "json_object"}}},
                                                            {"n", 2},
                                                            {"n", "1"},
                                                            {"logit_bias", {{"5", 1}}},
                                                            {"frequency_penalty", 0.5},
                                                            {"presence_penalty", 1},
                                                            {"audio", {{"voice", "x"}}},
                                                            {"modalities", {"text", "audio"}},
                                                            {"messages", nullptr},
                                                            {"messages", "hello"},
                                                            {"messages", io::json::array()}};
  for (const auto& [name, value] : wrong) {
    const api_error problem = refused_with(with_field(name, value).dump());
    EXPECT_EQ(problem.status(), 400) << name << " " << value;
    EXPECT_EQ(problem.param(), name) << value;
    EXPECT_NE(std::string(problem.what()).find(name), std::string::npos) << problem.what();
    EXPECT_STREQ(problem.type(), "invalid_request_error");
  }
  EXPECT_EQ(refused_with(with_field("n", 2).dump()).code(), "unsupported_parameter");
  EXPECT_EQ(refused_with(with_field("model", "gpt-4o").dump()).status(), 404);
  EXPECT_EQ(refused_with(with_field("model", "gpt-4o").dump()).code(), "model_not_found");
}

TEST(serve_request, refuses_what_is_no_json_object) {
  for (const std::string body :
       {"", "{", "[]", "null", "{\"a\":1}{", "{\"a\":1,\"a\":2}", "{\"a\":1e999}", "\xff\xfe"})
    EXPECT_EQ(refused_with(body).code(), "invalid_json") << body;
  EXPECT_EQ(refused_with(std::string(1000, '[')).code(), "invalid_json");
  std::string many = "[0";
  for (int i = 0; i < 100'001; ++i) many += ",0";
  EXPECT_EQ(refused_with("{\"ignored\":" + many + "]}").code(), "invalid_json");
  const std::string commas(200'000, ',');
  io::json long_text = plain_request();
  long_text["messages"][0]["content"] = commas + "\\\"[";
  EXPECT_EQ(refused_with(long_text.dump()).status(), 0) << "commas of a text are no values";
}

io::json picture_request(const io::json& part) {
  io::json request = plain_request();
  request["messages"][0]["content"] = {part, {{"type", "text"}, {"text", "?"}}};
  return request;
}
io::json url_part(const std::string& url) {
  return {{"type", "image_url"}, {"image_url", {{"url", url}, {"detail", "low"}}}};
}

TEST(serve_request, takes_pictures_as_data_urls_alone) {
  const chat_request request = parse_served(picture_request(url_part("data:image/png;base64,AAEC")));
  EXPECT_EQ(std::get<chat::picture>(request.asked.messages[0].content.at(0)).bytes.size(), 3u);
  for (const char* url : {"/etc/passwd", "photo.jpg", "file:///etc/passwd", "http://localhost/",
                          "https://a.b/c.png", "data:text/plain;base64,AAEC", "data:image/png;base64,",
                          "data:image/png,abc", "data:image/png;base64,A", ""})
    EXPECT_EQ(refused_with(picture_request(url_part(url)).dump()).status(), 400) << url;
  const io::json nothing{{"type", "image"}};
  const io::json file{{"type", "image"}, {"path", "/etc/passwd"}};
  for (const io::json& part : {nothing, file})
    EXPECT_EQ(refused_with(picture_request(part).dump()).param(), "messages[0].content[0]") << part;
}

TEST(serve_request, limits_pictures_to_what_server_and_model_take) {
  answering_model blind = seeing;
  blind.sees_pictures = false;
  const io::json shown = url_part("data:image/png;base64,AAEC");
  EXPECT_EQ(refused_with(picture_request(shown).dump(), blind).status(), 400);
  io::json three = picture_request(shown);
  three["messages"][0]["content"] = {shown, shown, shown, {{"type", "text"}, {"text", "?"}}};
  EXPECT_EQ(refused_with(three.dump()).status(), 413);
}

TEST(serve_request, wants_a_question_of_the_users_at_the_end) {
  const auto message = [](const char* who, const char* text) {
    return io::json::object({{"role", who}, {"content", text}});
  };
  io::json request = plain_request();
  io::json& list = request["messages"];
  list.push_back(message("assistant", "A cube."));
  EXPECT_EQ(refused_with(request.dump()).param(), "messages");
  list.push_back(message("user", "And that?"));
  list.insert(list.begin(), message("developer", "Be brief."));
  EXPECT_EQ(parse_served(request).asked.messages.at(0).from, chat::role::system);
  list[0]["role"] = "tool";
  EXPECT_EQ(refused_with(request.dump()).param(), "messages");
}

TEST(serve_request, takes_sparsity_as_the_command_line_does) {
  const auto asked = [](const io::json& field) {
    return parse_served(with_field("core_matching", field)).asked.how;
  };
  const options paper = asked({{"preset", "paper"}});
  EXPECT_TRUE(paper.sparsity.sparse_neurons && paper.sparsity.sparse_tokens);
  const options own = asked({{"sparsity", "both"},
                             {"keep", "ratio:0.5"},
                             {"match_layers", {2, 10}},
                             {"beta", 0.3},
                             {"criterion", "rarity"},
                             {"neurons", "gate"},
                             {"min_tokens", 4}});
  EXPECT_EQ(own.sparsity.match_layers, (std::vector<index>{2, 10}));
  EXPECT_EQ(own.sparsity.beta, 0.3);
  EXPECT_EQ(own.sparsity.keep.ratio, 0.5);
  EXPECT_EQ(own.sparsity.keep.min_tokens, 4);
  EXPECT_EQ(own.neurons.policy, neuron_policy::gate);
  EXPECT_EQ(own.max_new_tokens, 77);
  EXPECT_TRUE(asked({{"thin", "duplication"}, {"thin_keep", "top_k:9"}}).thin.has_value());
  const options dense = asked({{"preset", "dense"}});
  EXPECT_FALSE(dense.sparsity.sparse_neurons || dense.sparsity.sparse_tokens || dense.thin);
}

TEST(serve_request, a_field_of_sparsity_replaces_that_of_the_server) {
  options base = serve_base();
  base.sparsity.sparse_tokens = true;
  base.sparsity.keep.rule = select::keep_rule::top_k;
  base.thin.emplace();
  const auto asked = [&](const io::json& field) {
    return parse_chat_request(with_field("core_matching", field).dump(), {base, seeing, 2}).asked.how;
  };
  EXPECT_TRUE(asked(io::json::object()).thin.has_value());
  EXPECT_TRUE(asked({{"scores", true}}).thin.has_value());
  const options neurons = asked({{"sparsity", "neurons"}});
  EXPECT_FALSE(neurons.sparsity.sparse_tokens || neurons.thin);
}

TEST(serve_request, asks_for_scores_beside_sparsity) {
  const auto asked = [](const io::json& field) {
    return parse_served(with_field("core_matching", field)).asked;
  };
  EXPECT_FALSE(asked({{"preset", "paper"}}).with_scores);
  EXPECT_FALSE(asked({{"scores", false}}).with_scores);
  const question both = asked({{"preset", "paper"}, {"scores", true}});
  EXPECT_TRUE(both.with_scores && both.how.sparsity.sparse_tokens);
}

TEST(serve_request, names_what_is_wrong_with_sparsity) {
  const std::vector<std::pair<io::json, std::string>> wrong{
      {{{"presets", "paper"}}, "core_matching"},
      {{{"model", "x"}}, "core_matching"},
      {{{"help", 1}}, "core_matching"},
      {{{"match-layers", "2"}}, "core_matching"},
      {"paper", "core_matching"},
      {{{"keep", "ratio:0.5"}}, "core_matching.keep"},
      {{{"sparsity", "both"}, {"keep", "best"}}, "core_matching.keep"},
      {{{"sparsity", "both"}, {"match_layers", {"2"}}}, "core_matching.match_layers"},
      {{{"sparsity", "both --preset paper"}}, "core_matching.sparsity"},
      {{{"sparsity", "a\"b"}}, "core_matching.sparsity"},
      {{{"sparsity", true}}, "core_matching.sparsity"},
      {{{"scores", 1}}, "core_matching.scores"},
      {{{"sparsity", ""}}, "core_matching.sparsity"}};
  for (const auto& [field, param] : wrong) {
    const api_error problem = refused_with(with_field("core_matching", field).dump());
    EXPECT_EQ(problem.status(), 400) << field;
    EXPECT_EQ(problem.param(), param) << field << " " << problem.what();
  }
}

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
