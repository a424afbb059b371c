// SPDX-License-Identifier: Apache-2.0
// What a request asks, without a socket.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_request.hpp"

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
  EXPECT_EQ(parse_served(with_field("stop", std::string(1024, 'a'))).asked.how.stops.size(), 1u);
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
                                                            {"stop", std::string(1025, 'a')},
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

}  // namespace
}  // namespace corematching::driver
