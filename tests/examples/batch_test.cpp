// SPDX-License-Identifier: Apache-2.0
// A file of requests and the file of their answers, with somebody who only pretends to answer.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/message.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/batch/command.hpp"
#include "support/driver_program.hpp"
#include "support/fake_answering.hpp"
#include "support/temporary_directory.hpp"

namespace corematching::driver {
namespace {

namespace fs = std::filesystem;

struct batch_files {
  support::temporary_directory directory;
  fs::path input = directory.path() / "asked.jsonl", output = directory.path() / "answered.jsonl";

  void ask(const std::string& lines) const { std::ofstream(input) << lines; }
  std::string answers() const {
    std::ostringstream text;
    text << std::ifstream(output).rdbuf();
    return text.str();
  }
  /// By id; every line has to be whole.
  std::map<std::string, io::json> lines() const {
    std::map<std::string, io::json> found;
    std::ifstream in(output);
    for (std::string line; std::getline(in, line);) {
      io::json parsed = io::json::parse(line);
      EXPECT_TRUE(found.emplace(parsed.at("id"), parsed).second) << line;
    }
    EXPECT_TRUE(answers().empty() || answers().ends_with('\n'));
    return found;
  }
  /// Runs the command; how many questions reached the model stays in `asked`.
  bool run(int& asked, support::fake_behaviour how = {}) const {
    const std::string model = test::driver::demo().string();
    const std::vector<std::string> words{"batch",         "--model",      model,
                                         "--input",       input.string(), "--output",
                                         output.string(), "--max-batch",  "3"};
    std::vector<const char*> arguments;
    for (const std::string& word : words) arguments.push_back(word.c_str());
    console terminal;
    asked = 0;
    testing::internal::CaptureStdout();
    try {
      const bool all = run_batch(static_cast<int>(arguments.size()), arguments.data(), terminal,
                                 [&](const options&, const engine_limits& limits, console&) {
                                   EXPECT_EQ(limits.running, 3);
                                   return std::make_unique<counting>(how, asked);
                                 });
      testing::internal::GetCapturedStdout();
      return all;
    } catch (...) {
      testing::internal::GetCapturedStdout();
      throw;
    }
  }

 private:
  /// Says how many it was asked when it goes.
  struct counting final : public support::fake_answering {
    counting(support::fake_behaviour how, int& to) : fake_answering(std::move(how)), to_(to) {}
    ~counting() override { to_ = asked(); }
    int& to_;
  };
};

std::string asked_line(const std::string& id, const std::string& more = "") {
  return R"({"id":")" + id + R"(","messages":[{"role":"user","content":"?"}])" + more + "}\n";
}

TEST(batch, answers_every_line) {
  const batch_files files;
  std::string lines;
  for (int i = 0; i < 10; ++i) lines += asked_line(std::to_string(i), i == 3 ? R"(,"logprobs":true)" : "");
  files.ask(lines + "\n");
  int asked = 0;
  EXPECT_TRUE(files.run(asked));
  EXPECT_EQ(asked, 10);
  const auto found = files.lines();
  ASSERT_EQ(found.size(), 10u);
  EXPECT_EQ(found.at("3").at("answer").at("choices").at(0).at("message").at("content"), "Two red cubes.");
  EXPECT_EQ(found.at("3").at("answer").at("choices").at(0).at("logprobs").at("content").size(), 4u);
}

TEST(batch, goes_on_where_it_was_ended) {
  const batch_files files;
  files.ask(asked_line("a") + asked_line("b") + asked_line("c"));
  std::ofstream(files.output)
      << "{\"id\":\"b\",\"error\":{}}\n{\"id\":\"a\",\"answ";  // as a start that was killed leaves it
  int asked = 0;
  EXPECT_TRUE(files.run(asked));
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(files.lines().size(), 3u);
  EXPECT_TRUE(files.lines().at("b").contains("error"));
  const std::string before = files.answers();
  EXPECT_TRUE(files.run(asked));
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(files.answers(), before);
}

TEST(batch, writes_what_is_wrong_with_a_line) {
  const batch_files files;
  files.directory.write("here.png", "a picture");
  const auto shown = [](const std::string& file) {
    return R"(,"messages":[{"role":"user","content":[{"type":"image","path":")" + file +
           R"("},{"type":"text","text":"?"}]}]})" + "\n";
  };
  files.ask(asked_line("fine") + asked_line("field", R"(,"n":2)") + R"({"id":"missing")" +
            shown("not_here.png") + R"({"id":"there")" + shown("here.png") + asked_line("model"));
  int asked = 0;
  const bool all = files.run(asked, {.refuse = [](const question& what) {
                               const auto& part = what.messages.back().content.front();
                               if (const auto* picture = std::get_if<chat::picture>(&part);
                                   picture != nullptr && picture->bytes.size() == 9)
                                 throw question_refused(refusal::bad_question, "is no picture");
                             }});
  EXPECT_FALSE(all);
  const auto found = files.lines();
  EXPECT_TRUE(found.at("fine").contains("answer") && found.at("model").contains("answer"));
  EXPECT_EQ(found.at("field").at("error").at("param"), "n");
  EXPECT_NE(found.at("missing").at("error").at("message").get<std::string>().find("not_here.png"),
            std::string::npos);
  EXPECT_EQ(found.at("there").at("error").at("message"), "is no picture");
}

TEST(batch, waits_where_the_queue_is_full) {
  const batch_files files;
  files.ask(asked_line("a") + asked_line("b"));
  auto refused = std::make_shared<std::atomic<int>>(0);
  int asked = 0;
  EXPECT_TRUE(files.run(asked, {.refuse = [refused](const question&) {
                          if ((*refused)++ < 3) throw question_refused(refusal::too_busy, "later");
                        }}));
  EXPECT_EQ(files.lines().size(), 2u);
}

TEST(batch, refuses_files_that_are_none_of_its_own) {
  const batch_files files;
  int asked = 0;
  EXPECT_THROW(files.run(asked), error);  // no input
  for (const char* lines : {"no json\n", "[1]\n", "{\"messages\":[]}\n", "{\"id\":1}\n", "{\"id\":\"\"}\n",
                            "{\"id\":\"a\"}\n{\"id\":\"a\"}\n"}) {
    files.ask(lines);
    EXPECT_THROW(files.run(asked), error) << lines;
  }
  files.ask(asked_line("a"));
  std::ofstream(files.output) << "{\"id\":\"of another file\"}\n";
  EXPECT_THROW(files.run(asked), error);
  EXPECT_EQ(files.answers(), "{\"id\":\"of another file\"}\n");
}

}  // namespace
}  // namespace corematching::driver
