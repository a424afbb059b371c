// SPDX-License-Identifier: Apache-2.0
// Templates themselves are not part of this repository: what is known is tested by hashes, what is guessed by
// pieces that templates are made of.
#include "corematching/chat/recognise.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/error_text.hpp"

namespace {

using namespace corematching::chat;
using support::error_text;
using support::expect_parts;

TEST(template_hash, is_fnv_1a) {
  static_assert(template_hash("") == 0xcbf29ce484222325);
  static_assert(template_hash("a") == 0xaf63dc4c8601ec8c);
  static_assert(template_hash("foobar") == 0x85944171f73967e8);
}

TEST(template_hash, reads_line_ends_as_jinja_does) {
  EXPECT_EQ(template_hash("a\r\nb\rc\n"), template_hash("a\nb\nc"));
  EXPECT_EQ(template_hash("a\r\n"), template_hash("a"));
  EXPECT_EQ(template_hash("a\r"), template_hash("a"));
  EXPECT_NE(template_hash("a\n\n"), template_hash("a"));
  EXPECT_EQ(template_hash("a\r\r\n"), template_hash("a\n\n"));
}

TEST(known_templates, have_one_format_each_and_reach_every_format_with_a_template) {
  std::set<std::uint64_t> hashes;
  std::set<const chat_format*> reached{&vicuna, &none};
  for (const known_template& known : known_templates) {
    EXPECT_TRUE(hashes.insert(known.hash).second);
    reached.insert(known.format);
  }
  EXPECT_EQ(reached, std::set<const chat_format*>(formats.begin(), formats.end()));
}

TEST(format_of_known, finds_a_template_whatever_its_line_ends) {
  const std::array<known_template, 2> table{
      {{template_hash("other"), &chatml}, {template_hash("a\nb"), &zephyr}}};
  EXPECT_EQ(format_of_known("a\r\nb\r\n", table), &zephyr);
  EXPECT_EQ(format_of_known("a\nb ", table), nullptr);
}

// Made of the pieces that the templates of each format have.
const std::vector<std::pair<std::string, const chat_format*>> guesses{
    {"{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}", &chatml},
    {"{{ bos_token }}{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}", &chatml_bos},
    {"{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>' }}", &qwen2},
    {"{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>' }}", &qwen1_5},
    {"'<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>'",
     &qwen2_5},
    {"'<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' "
     "+ "
     "content '<|im_end|>' {%- if loop.index0 > ns.last_query_index %}{%- if enable_thinking is false %}",
     &qwen3},
    {"'<|im_start|>You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>'",
     &smollm2},
    {"'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + '<|eot_id|>'", &llama_3},
    {"Cutting Knowledge Date: December 2023 '<|start_header_id|>' + message + "
     "'<|end_header_id|>\\n\\n<|eot_id|>'",
     &llama_3_1},
    {"strftime_now Cutting Knowledge Date: December 2023 '<|start_header_id|>' + message + "
     "'<|end_header_id|>\n\n<|eot_id|>'",
     &llama_3_2},
    {"'<<SYS>>' {{ bos_token + '[INST] ' + content + ' [/INST]' }}", &llama_2},
    {"'[SYSTEM_PROMPT] ' '[INST] ' '[/INST]'", &mistral_v7},
    {"'[SYSTEM_PROMPT]' '[INST]' '[/INST]'", &mistral_v7_tekken},
    {"' [INST] ' + content + ' [/INST]'", &mistral_v1},
    {"\"[INST]\" + content + \"[/INST]\"", &mistral_v3_tekken},
    {"\"[INST] \" + content + \"[/INST]\" content|trim", &mistral_v3},
    {"'[INST] ' + content + '[/INST]'", &mixtral_8x22b},
    {"'[INST] ' + content + ' [/INST]' + eos_token", &mistral_v0},
    {"'[INST] ' + content + ' [/INST]' + eos_token + ' '", &mistral_v0_spaced},
    {"'<|system|>' '<|user|>\n' + message['content'] + eos_token '<|assistant|>'", &zephyr},
    {"message['role'].upper() + ': ' '<image>' 'ASSISTANT:'", &llava_1_5},
    {"message['role'] | upper + ': ' '<image>' 'ASSISTANT:'", &llava_1_5},
    {"'USER: ' + content + ' ' 'ASSISTANT: ' + content + eos_token 'ASSISTANT:'", &vicuna},
};

TEST(recognise, guesses_by_markers_and_says_so) {
  for (const auto& [text, format] : guesses) {
    SCOPED_TRACE(text);
    const chosen_format chosen = recognise(text, "some.json");
    EXPECT_EQ(chosen.format, format) << chosen.format->name;
    expect_parts(chosen.notice, "some.json: the chat template is not known", std::string(format->name),
                 "--chat-template");
  }
}

TEST(recognise, is_silent_about_what_is_known) {
  const std::array<known_template, 1> table{{{template_hash("' [INST] ' ' [/INST]'"), &chatml}}};
  const chosen_format chosen = recognise("' [INST] ' ' [/INST]'", "some.json", table);
  EXPECT_EQ(chosen.format, &chatml);
  EXPECT_TRUE(chosen.notice.empty());
}

TEST(recognise, refuses_others_with_the_names_that_there_are) {
  for (const char* text :
       {"", "{{ messages }}", "<start_of_turn>user", "'<|im_start|>user<|im_sep|>' '<|im_end|>'",
        "'<|im_start|>assistant\n<think>\n' '<|im_end|>'", "'<|user|>\n' + message['content'] + '<|end|>'",
        "'<|start_header_id|>user<|end_header_id|>\n\nTask' '<|eot_id|>'", "'[INST] <<SYS>>' '[/INST]'",
        "'USER: ' + content + '\n' 'ASSISTANT: ' + content + '</s>\n'"})
    expect_parts(
        error_text([&] { recognise(text, "some.json"); }),
        "some.json: the chat template is of no format that is known; --chat-template takes one of llava-1.5",
        ", none");
}

}  // namespace
