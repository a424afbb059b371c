// SPDX-License-Identifier: Apache-2.0
// Conversations as the driver's users have them: question after question, or as a list of messages.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/driver_program.hpp"
#include "support/paths.hpp"
#include "support/temporary_directory.hpp"
#include "support/terminal_session.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

constexpr const char* first = "How many objects are there?";
constexpr const char* second = "Describe the image.";

/// Questions, one a line, to a program that is asked from a pipe.
test::program_result chat(const std::string& lines, const std::vector<std::string>& more) {
  const support::temporary_directory directory;
  const auto typed = directory.write("lines", lines);
  std::vector<std::string> command{"-c",
                                   "exec \"$0\" \"$@\" < " + test::shell_word(typed.string()),
                                   support::llava_program(),
                                   "--model",
                                   demo().string(),
                                   "--image",
                                   picture_path().string(),
                                   "--threads",
                                   "1",
                                   "--chat"};
  command.insert(command.end(), more.begin(), more.end());
  return test::run_program("/bin/sh", command);
}

test::program_result answer_to(const io::json& messages, const std::vector<std::string>& more) {
  const support::temporary_directory directory;
  fs::copy(picture_path(), directory.path() / "picture.png");
  const auto file = directory.write("messages.json", messages.dump());
  std::vector<std::string> command{"--model", demo().string(), "--messages", file.string()};
  command.insert(command.end(), more.begin(), more.end());
  return run_llava(command, "64");
}

io::json shown(const std::string& question) {
  return {{{"type", "image_url"}, {"image_url", {{"url", "picture.png"}}}},
          {{"type", "text"}, {"text", question}}};
}

std::vector<io::json> objects(const std::string& lines) {
  std::vector<io::json> all;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) all.push_back(io::json::parse(line));
  return all;
}

TEST(llava_conversations, go_on_where_the_last_answer_ended) {
  const auto result =
      chat(std::string(first) + "\n\n  \n" + second + "\n", {"--json", "--max-new-tokens", "64"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto turns = objects(result.out);
  ASSERT_EQ(turns.size(), 2u) << "blank lines are no questions";
  const io::json history{{{"role", "user"}, {"content", shown(first)}},
                         {{"role", "assistant"}, {"content", turns[0].at("answer")}},
                         {{"role", "user"}, {"content", second}}};
  const auto whole = answer_to(history, {"--json"});
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const io::json object = io::json::parse(whole.out);
  EXPECT_EQ(turns[1].at("generated_ids"), object.at("generated_ids"));
  EXPECT_EQ(turns[1].at("image_tokens"), 0);
  EXPECT_EQ(turns[1].at("kv_cache_bytes"), object.at("kv_cache_bytes"));
}

TEST(llava_conversations, are_the_dense_ones_where_no_policy_leaves_a_neuron_out) {
  const std::string questions = std::string(first) + "\n" + second + "\n";
  const auto turns = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--json", "--weights", "q8_0_planes"});
    const auto result = chat(questions, more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return objects(result.out);
  };
  const auto dense = turns({"--preset", "dense"});
  ASSERT_EQ(dense.size(), 2u);
  for (const std::vector<std::string>& policy : {std::vector<std::string>{"--statistic", "magnitude"},
                                                 {"--neurons", "gate"},
                                                 {"--neurons", "gate:plain"},
                                                 {"--neurons", "predicted"}}) {
    SCOPED_TRACE(policy.back());
    const auto with_beta = [&](const char* beta) {
      std::vector<std::string> all{"--sparsity", "neurons", "--beta", beta};
      all.insert(all.end(), policy.begin(), policy.end());
      return turns(all);
    };
    const auto whole = with_beta("1"), half = with_beta("0.5");
    ASSERT_EQ(whole.size(), 2u);
    ASSERT_EQ(half.size(), 2u);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(whole[i].at("generated_ids"), dense[i].at("generated_ids"));
      EXPECT_EQ(whole[i].at("decode"), dense[i].at("decode"));
      EXPECT_LT(half[i].at("ffn_bytes_to_dense"), 0.7) << "turn " << i;
    }
  }
}

TEST(llava_conversations, are_typed_on_a_terminal) {
  const auto asked =
      run_llava({"--model", demo().string(), "--image", picture_path().string(), "--prompt", first}, "256");
  const std::string answer = asked.out.substr(0, asked.out.find('\n'));
  ASSERT_FALSE(answer.empty()) << asked.err;
  test::terminal_session session(support::llava_program(),
                                 {"--model", demo().string(), "--image", picture_path().string(), "--preset",
                                  "dense", "--threads", "1", "--chat"});
  session.type_until("\r  \r", "> ");  // no questions
  // Mended before it is sent.
  const std::string shown = session.type_until(std::string(first) + "X\b\r", answer);
  EXPECT_NE(shown.find(first), std::string::npos) << "echoed: " << shown;
  EXPECT_NE(shown.find(answer), std::string::npos) << shown;
  const std::string recalled = session.type_until("\033[A", first);  // arrow up: the question before
  EXPECT_NE(recalled.find(first), std::string::npos) << recalled;
  EXPECT_EQ(session.exit_code_after("\r\004"), 0) << "end of input";
}

TEST(llava_conversations, go_on_behind_an_answer_that_was_cut_off) {
  const auto result = chat(std::string(second) + "\n" + first + "\n", {"--json", "--max-new-tokens", "5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto turns = objects(result.out);
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_EQ(turns[0].at("finished"), "length");
  // The fifth token is read with the second prompt.
  const auto rest = chat(std::string(second) + "\n", {"--json", "--max-new-tokens", "5"});
  const auto alone = objects(rest.out).at(0);
  EXPECT_EQ(turns[0].at("generated_ids"), alone.at("generated_ids"));
  const auto question =
      objects(chat(std::string(first) + "\n", {"--json", "--max-new-tokens", "1"}).out).at(0);
  EXPECT_GT(turns[1].at("prompt_tokens"), 1);
  EXPECT_LT(turns[1].at("prompt_tokens"), question.at("prompt_tokens"));
}

TEST(llava_conversations, say_how_much_of_the_picture_is_left) {
  const std::vector<std::string> sparse{"--sparsity",     "tokens", "--criterion",      "projection",
                                        "--match-layers", "3",      "--max-new-tokens", "8"};
  const auto result = chat(std::string(first) + "\n" + second + "\n", sparse);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto line = result.err.substr(0, result.err.find('\n') + 1);
  EXPECT_NE(line.find(" of 100 image tokens are left"), std::string::npos) << result.err;
  EXPECT_EQ(result.err, line + line) << "no more are dropped, and no fewer seen";
  EXPECT_EQ(chat(std::string(first) + "\n", {}).err, "") << "by default none are";
}

TEST(llava_conversations, outlive_a_question_that_cannot_be_asked) {
  const auto result =
      chat(std::string("Is <image> like <image>?\n") + first + "\nIs <image> red?\n" + first + "\n", {});
  EXPECT_EQ(result.exit_code, 1) << "not all was answered";
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 2) << result.out;
  EXPECT_NE(result.err.find("2 times"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("no picture is given"), std::string::npos)
      << "it was shown before: " << result.err;
}

TEST(llava_conversations, begin_with_the_prompt_where_there_is_one) {
  const auto result = chat("", {"--prompt", first});
  const auto asked =
      run_llava({"--model", demo().string(), "--image", picture_path().string(), "--prompt", first}, "256");
  EXPECT_EQ(result.out, asked.out);
}

TEST(llava_conversations, are_refused_where_a_message_cannot_be_answered) {
  const auto refuses = [](const io::json& messages, const std::vector<std::string>& parts) {
    expect_refused(answer_to(messages, {}), parts);
  };
  refuses({{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Ho"}}},
          {"messages.json", "messages[1] is the assistant's"});
  refuses({{{"role", "user"}, {"content", io::json::array()}}}, {"messages[0].content is empty"});
  refuses({{{"role", "user"}, {"content", {{{"type", "image"}}}}}}, {"messages.json", "--image gives none"});
  refuses({{{"role", "user"}, {"content", {{{"type", "image"}, {"path", "none.png"}}}}}}, {"none.png"});
  expect_refused(
      run_llava({"--model", demo().string(), "--image", picture_path().string(), "--messages", "x.json"}),
      {"x.json"});
  expect_refused(run_llava({"--model", demo().string(), "--chat-template", "parrot", "--prompt", "Hi"}),
                 {"parrot", "vicuna"});
}

TEST(llava_conversations, are_not_overwritten) {
  const support::temporary_directory directory;
  const fs::path picture = directory.path() / "picture.png";
  fs::copy(picture_path(), picture);
  const io::json messages{{{"role", "user"}, {"content", shown("How many objects are there?")}}};
  const auto file = directory.write("messages.json", messages.dump());
  const auto refused = [&](const char* option, const fs::path& output) {
    const auto size = fs::file_size(output);
    expect_refused(
        run_llava({"--model", demo().string(), "--messages", file.string(), option, output.string()}),
        {std::string(option) + ": " + output.string()});
    EXPECT_EQ(fs::file_size(output), size);
  };
  refused("--dump", file);
  refused("--dump", picture);
  refused("--show-tokens", picture);
}

TEST(llava_conversations, show_several_pictures) {
  io::json content = shown("How many objects are there?");
  content.insert(content.begin(), content.at(0));
  const io::json messages{{{"role", "user"}, {"content", content}}};
  const auto result = answer_to(messages, {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(io::json::parse(result.out).at("image_tokens"), 200);
}

TEST(llava_conversations, keep_tokens_of_each_of_several_pictures_or_of_all) {
  io::json content = shown("How many objects are there?");
  content.insert(content.begin(), content.at(0));
  const io::json messages{{{"role", "user"}, {"content", content}}};
  for (const char* criterion : {"overlap", "rarity", "contrast", "attention"})
    for (const char* among : {"each", "all"}) {
      const auto result = answer_to(messages, {"--json", "--sparsity", "tokens", "--criterion", criterion,
                                               "--keep", "top_k:30", "--keep-among", among});
      ASSERT_EQ(result.exit_code, 0) << result.err;
      const io::json match = io::json::parse(result.out).at("matches").at(0);
      const bool each = among == std::string("each");
      EXPECT_EQ(match.at("image_tokens"), 200);
      EXPECT_EQ(match.at("kept_image_tokens"), each ? 60 : 30) << criterion;
      ASSERT_EQ(match.at("groups").size(), each ? 2u : 1u);
      for (const io::json& group : match.at("groups")) {
        EXPECT_EQ(group.at("image_tokens"), each ? 100 : 200);
        EXPECT_EQ(group.at("kept"), 30);
        EXPECT_GE(group.at("scores").at("first"), group.at("scores").at("last"));
      }
    }
  const auto thinned = answer_to(messages, {"--json", "--thin", "duplication", "--thin-keep", "top_k:20"});
  ASSERT_EQ(thinned.exit_code, 0) << thinned.err;
  EXPECT_EQ(io::json::parse(thinned.out).at("before_decoder").at("kept_image_tokens"), 40);
}

TEST(llava_conversations, say_how_much_was_left_before_the_decoder) {
  const auto result = chat(std::string(first) + "\n" + second + "\n",
                           {"--thin", "random", "--thin-keep", "top_k:40", "--max-new-tokens", "8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string line = "40 of 100 image tokens are left for further questions\n";
  EXPECT_NE(result.err.find(line), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(line), result.err.rfind(line)) << "after both questions";
}

TEST(llava_conversations, fail_where_questions_cannot_be_read) {
  const auto result = test::run_program("/bin/sh", {"-c", "exec \"$0\" \"$@\" < /", support::llava_program(),
                                                    "--model", demo().string(), "--chat"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("standard input cannot be read"), std::string::npos) << result.err;
}

TEST(llava_conversations, may_have_empty_answers) {
  const auto result = run_llava(
      {"--model", demo().string(), "--image", picture_path().string(), "--prompt", second, "--stop", "The"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "\n");
}

TEST(llava_conversations, end_at_stop_strings) {
  const auto ask_with = [](const std::vector<std::string>& stops) {
    std::vector<std::string> command{"--model",  demo().string(), "--image", picture_path().string(),
                                     "--prompt", second,          "--json"};
    for (const std::string& stop : stops) command.insert(command.end(), {"--stop", stop});
    return io::json::parse(run_llava(command, "64").out);
  };
  const auto whole = ask_with({}).at("answer").get<std::string>();
  const auto place = whole.find(" at the");
  ASSERT_NE(place, std::string::npos) << whole;
  const auto stopped = ask_with({"never", " at the"});
  EXPECT_EQ(stopped.at("answer"), whole.substr(0, place));
  EXPECT_EQ(stopped.at("finished"), "stop");
}

}  // namespace
}  // namespace corematching
