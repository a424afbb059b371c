// SPDX-License-Identifier: Apache-2.0
// A file of requests and the file of their answers, with somebody who only pretends to answer.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/message.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/batch/command.hpp"
#include "llava/picture_file.hpp"
#include "support/driver_program.hpp"
#include "support/error_text.hpp"
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

// Files that a request names are held in memory, all of its pictures at once.
TEST(batch, takes_no_file_that_is_longer_than_a_picture) {
  const batch_files files;
  files.directory.write("long.png", "");
  std::filesystem::resize_file(files.directory.path() / "long.png", max_picture_bytes + 1);
  const std::string part = R"({"type":"image","path":"long.png"})",
                    start = R"(,"messages":[{"role":"user","content":[)";
  std::string many = part;
  for (int i = 1; i < 100; ++i) many += "," + part;
  files.ask(R"({"id":"long")" + start + part + "]}]}\n" + R"({"id":"many")" + start + many + "]}]}\n");
  int asked = 0;
  EXPECT_FALSE(files.run(asked));
  EXPECT_EQ(asked, 0);
  const auto found = files.lines();
  support::expect_parts(found.at("long").at("error").at("message").get<std::string>(),
                        "long.png: is longer than 536870910 bytes");
  EXPECT_EQ(found.at("many").at("error").at("code"), "too_many_pictures");
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

TEST(batch, leaves_an_output_alone_that_holds_anything_else) {
  const batch_files files;
  files.ask(asked_line("a") + asked_line("b"));
  const std::string question = asked_line("a");
  for (const std::string& content :
       {std::string("precious notes"), std::string("precious notes\n"), question,
        question.substr(0, question.size() - 1), question.substr(0, 12), std::string("{\"answer\":{}"),
        "{\"id\":\"b\",\"answer\":{}}\n" + question, std::string("{\"id\":\"c\",\"answer\":{\"id")}) {
    std::ofstream(files.output) << content;
    int asked = 0;
    EXPECT_THROW(files.run(asked), error) << content;
    EXPECT_EQ(files.answers(), content);
  }
}

TEST(batch, takes_a_last_line_that_lacks_only_its_end) {
  const batch_files files;
  files.ask(asked_line("a") + asked_line("b"));
  std::ofstream(files.output) << R"({"id":"a","error":{}})";
  int asked = 0;
  EXPECT_TRUE(files.run(asked));
  EXPECT_EQ(asked, 1);
  EXPECT_TRUE(files.lines().at("a").contains("error"));
  EXPECT_TRUE(files.lines().at("b").contains("answer"));
}

TEST(batch, goes_on_from_every_place_where_it_may_be_killed) {
  const batch_files files;
  files.ask(asked_line("an \\u00e9") + asked_line("b"));
  int asked = 0;
  EXPECT_TRUE(files.run(asked));
  const std::string all = files.answers();
  EXPECT_TRUE(all.starts_with(R"({"id":)")) << all;
  for (std::size_t size = 0; size < all.size(); size += size < 80 ? 1 : 97) {
    std::ofstream(files.output) << all.substr(0, size);
    EXPECT_TRUE(files.run(asked)) << size;
    EXPECT_EQ(files.lines().size(), 2u) << size;
  }
}

TEST(batch, ends_where_its_input_is_changed_meanwhile) {
  for (const bool is_cut : {true, false}) {
    const batch_files files;
    std::string lines;
    for (int i = 10; i < 50; ++i) lines += asked_line(std::to_string(i));
    files.ask(lines);
    int asked = 0;
    try {
      files.run(asked, {.refuse = [&](const question&) {
                  if (is_cut)
                    fs::resize_file(files.input, 100);
                  else
                    files.ask(asked_line("other") + lines);
                }});
      ADD_FAILURE() << "the change was not seen";
    } catch (const error& problem) {
      support::expect_parts(problem.what(), files.input.string() + ":", "changed");
    }
    for (const auto& [id, line] : files.lines()) EXPECT_TRUE(line.contains("answer")) << line;
  }
}

TEST(batch, writes_to_the_file_that_it_holds) {
  const batch_files files;
  std::string lines;
  for (int i = 0; i < 20; ++i) lines += asked_line(std::to_string(i));
  files.ask(lines);
  const fs::path moved = files.directory.path() / "moved.jsonl";
  const auto move_once = [&, once = std::make_shared<std::once_flag>()](const question&) {
    std::call_once(*once, [&] {
      fs::rename(files.output, moved);
      std::ofstream(files.output) << "of somebody else";
    });
  };
  int asked = 0;
  EXPECT_TRUE(files.run(asked, {.refuse = move_once}));
  EXPECT_EQ(files.answers(), "of somebody else");
  fs::rename(moved, files.output);
  EXPECT_EQ(files.lines().size(), 20u);

  fs::remove(files.output);
  EXPECT_THROW(files.run(asked, {.refuse = [&](const question&) { fs::remove(files.output); }}), error);
}

TEST(batch, loses_one_line_where_one_fails) {
  const batch_files files;
  files.ask(asked_line("a") + asked_line("b") + asked_line("c"));
  auto failed = std::make_shared<std::atomic<bool>>(false);
  int asked = 0;
  EXPECT_FALSE(files.run(asked, {.refuse = [failed](const question&) {
                           if (!failed->exchange(true)) throw std::bad_alloc();
                         }}));
  int errors = 0;
  for (const auto& [id, line] : files.lines())
    if (line.contains("error")) {
      ++errors;
      EXPECT_EQ(line.at("error").at("type"), "server_error");
    }
  EXPECT_EQ(files.lines().size(), 3u);
  EXPECT_EQ(errors, 1);
}

}  // namespace
}  // namespace corematching::driver
