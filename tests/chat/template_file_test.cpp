// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/template_file.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"

namespace {

using namespace corematching::chat;
using support::error_text;
using support::expect_parts;
using support::temporary_directory;

constexpr bool with_processor = true, without_processor = false;

std::string found_in(const temporary_directory& directory, bool has_processor) {
  const auto found = find_template(directory.path(), has_processor);
  return found ? found->text : "none";
}

TEST(find_template, takes_the_file_that_transformers_takes) {
  const temporary_directory directory;
  EXPECT_EQ(found_in(directory, with_processor), "none");
  directory.write("tokenizer_config.json", R"({"chat_template": "tokenizer's"})");
  EXPECT_EQ(found_in(directory, without_processor), "tokenizer's");
  EXPECT_EQ(found_in(directory, with_processor), "tokenizer's");
  directory.write("chat_template.jinja", "a file's\n");
  EXPECT_EQ(found_in(directory, without_processor), "a file's\n");
  directory.write("chat_template.json", R"({"chat_template": "older file's"})");
  directory.write("processor_config.json", R"({"chat_template": null, "patch_size": 14})");
  EXPECT_EQ(found_in(directory, with_processor), "older file's");
  directory.write("processor_config.json", R"({"chat_template": "processor's"})");
  EXPECT_EQ(found_in(directory, with_processor), "processor's");
  EXPECT_EQ(found_in(directory, without_processor), "a file's\n");
}

TEST(find_template, takes_the_default_of_named_templates) {
  const temporary_directory directory;
  const auto path = directory.write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]})");
  EXPECT_EQ(found_in(directory, without_processor), "b");
  EXPECT_EQ(find_template(directory.path(), without_processor)->where, path.string());
  directory.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "a"}]})");
  expect_parts(error_text([&] { find_template(directory.path(), without_processor); }),
               path.string() + ": chat_template: none of the templates is called \"default\"",
               "\"tool_use\"");
}

TEST(find_template, takes_null_for_absent_and_refuses_what_is_no_text) {
  const temporary_directory directory;
  const auto path = directory.write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(found_in(directory, without_processor), "none");
  directory.write("tokenizer_config.json", R"({"chat_template": {"default": "a"}})");
  expect_parts(error_text([&] { find_template(directory.path(), without_processor); }),
               path.string() + ": chat_template is an object, expected a string");
  directory.write("tokenizer_config.json", R"({"chat_template": ["a"]})");
  expect_parts(error_text([&] { find_template(directory.path(), without_processor); }),
               path.string() + ": chat_template[0] is \"a\", expected an object");
  directory.write("tokenizer_config.json", "{");
  expect_parts(error_text([&] { find_template(directory.path(), without_processor); }),
               path.string() + ": not valid JSON");
}

TEST(find_template, says_why_a_file_that_is_there_cannot_be_read) {
  const temporary_directory directory;
  std::filesystem::create_directory(directory.path() / "chat_template.jinja");
  expect_parts(error_text([&] { find_template(directory.path(), without_processor); }),
               "chat_template.jinja: not a regular file");
}

TEST(choose_format, speaks_to_llava_as_vicuna_and_plainly_to_others_without_a_template) {
  const temporary_directory directory;
  EXPECT_EQ(choose_format(directory.path(), true).format, &vicuna);
  EXPECT_EQ(choose_format(directory.path(), false).format, &none);
  EXPECT_TRUE(choose_format(directory.path(), false).notice.empty());
}

TEST(choose_format, follows_the_template_that_is_found) {
  const temporary_directory directory;
  const auto path = directory.write("chat_template.jinja", "' [INST] ' ' [/INST]'");
  const chosen_format chosen = choose_format(directory.path(), true);
  EXPECT_EQ(chosen.format, &mistral_v1);
  expect_parts(chosen.notice, path.string() + ": the chat template is not known");
  directory.write("chat_template.jinja", "{{ messages }}");
  expect_parts(error_text([&] { choose_format(directory.path(), true); }), path.string());
}

}  // namespace
