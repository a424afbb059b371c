// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/message_list.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error_text.hpp"

namespace {

using namespace corematching::chat;
using support::error_text;
using support::expect_parts;

std::vector<message> parse(std::string_view text) {
  return parse_messages(std::as_bytes(std::span(text)), "chat.json");
}

// Of a list with one message from the user and this content.
message with_content(const std::string& content) {
  return parse(R"([{"role": "user", "content": )" + content + "}]").at(0);
}

std::string refusal(std::string_view text) {
  return error_text([&] { parse(text); });
}

std::string refusal_of_part(const std::string& part) {
  return error_text([&] { with_content("[" + part + "]"); });
}

const std::vector<std::byte> two_bytes{std::byte{0x89}, std::byte{'P'}};

TEST(parse_messages, reads_roles_and_texts) {
  EXPECT_EQ(
      parse(R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "é\n"},
                      {"role": "assistant", "content": "", "refusal": null, "tool_calls": null}])"),
      (std::vector<message>{{role::system, {"Be brief."}}, {role::user, {"é\n"}}, {role::assistant, {""}}}));
}

TEST(parse_messages, reads_parts_in_order) {
  EXPECT_EQ(with_content(R"([{"type": "text", "text": "a"},
                             {"type": "image_url", "image_url": {"url": "b/c d.png", "detail": "low"}},
                             {"type": "text", "text": "e"}, {"type": "image"}])")
                .content,
            (std::vector<part>{"a", picture{.path = "b/c d.png"}, "e", picture{}}));
  EXPECT_TRUE(with_content("[]").content.empty());
}

TEST(parse_messages, reads_pictures_wherever_a_part_holds_them) {
  for (const char* part :
       {R"({"type": "image", "path": "a.png"})", R"({"type": "image", "url": "a.png", "path": null})",
        R"({"type": "image", "image": "a.png"})"})
    EXPECT_EQ(std::get<picture>(with_content("[" + std::string(part) + "]").content.at(0)).path, "a.png");
  for (const char* part :
       {R"({"type": "image", "base64": "iVA="})", R"({"type": "image", "url": "data:image/png;base64,iVA="})",
        R"({"type": "image_url", "image_url": {"url": "data:;base64,iVA="}})",
        R"({"type": "image_url", "image_url": {"url": "data:image/png;x=y;base64,iVA="}})"})
    EXPECT_EQ(std::get<picture>(with_content("[" + std::string(part) + "]").content.at(0)).bytes, two_bytes);
}

TEST(parse_messages, names_the_message_and_the_field_that_are_wrong) {
  expect_parts(refusal("[1"), "chat.json: not valid JSON");
  expect_parts(refusal("{}"), "chat.json: expected a list of messages");
  expect_parts(refusal("[]"), "chat.json: expected a list of messages");
  expect_parts(refusal(R"(["hi"])"), "chat.json: messages[0] is \"hi\", expected an object");
  expect_parts(refusal(R"([{"content": "a"}])"), "chat.json: messages[0].role is missing");
  expect_parts(refusal(R"([{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}])"),
               "chat.json: messages[1].role is \"tool\", expected \"system\", \"user\" or \"assistant\"");
  expect_parts(refusal(R"([{"role": "user"}])"), "messages[0].content is missing, expected a string or");
  expect_parts(refusal(R"([{"role": "user", "content": null}])"), "messages[0].content is null, expected");
  expect_parts(refusal(R"([{"role": "assistant", "content": "a", "tool_calls": []}])"),
               "messages[0].tool_calls: tools are not called");
}

TEST(parse_messages, names_the_part_that_is_wrong) {
  expect_parts(error_text([] { with_content(R"([{"type": "text", "text": "a"}, "b"])"); }),
               "chat.json: messages[0].content[1] is \"b\", expected an object");
  expect_parts(refusal_of_part(R"({"text": "a"})"), "messages[0].content[0].type is missing");
  expect_parts(refusal_of_part(R"({"type": "text"})"), "messages[0].content[0].text is missing");
  expect_parts(
      refusal_of_part(R"({"type": "input_audio"})"),
      "messages[0].content[0].type is \"input_audio\", expected \"text\", \"image_url\" or \"image\"");
  expect_parts(refusal_of_part(R"({"type": "image_url", "image_url": "a.png"})"),
               "messages[0].content[0].image_url is \"a.png\", expected an object");
  expect_parts(refusal_of_part(R"({"type": "image", "source": {}})"),
               "messages[0].content[0].type: a picture has one of url, path, image and base64");
  expect_parts(refusal_of_part(R"({"type": "image", "url": "a", "path": "b"})"), "a picture has one of");
}

TEST(parse_messages, fetches_nothing_and_says_what_is_wrong_with_data) {
  const auto of_url = [](const std::string& url) {
    return refusal_of_part(R"({"type": "image_url", "image_url": {"url": ")" + url + "\"}}");
  };
  const std::string where = "chat.json: messages[0].content[0].image_url.url";
  for (const char* url : {"http://host/a.png", "HTTPS://host/a.png", "file:///a.png"})
    expect_parts(of_url(url), where, url, "is not fetched");
  expect_parts(of_url(""), where, "expected a file or a data: URL");
  expect_parts(of_url("a\\u0000b"), where, "expected a file or a data: URL");
  expect_parts(of_url("data:image/png,abc"), where, "without \";base64,\"");
  expect_parts(of_url("data:image/png;base64"), where, "without \";base64,\"");
  expect_parts(of_url("data:text/html;base64,iVA="), where, "of type \"text/html\"");
  expect_parts(of_url("data:image/png;base64,"), where, "the picture is empty");
  expect_parts(of_url("data:image/png;base64,iV!="), where, "not Base64: its character 2");
}

}  // namespace
