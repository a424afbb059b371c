// SPDX-License-Identifier: Apache-2.0
// The driver as a process among others: its streams, files, memory and processors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "corematching/backend/default_threads.hpp"
#include "corematching/io/json.hpp"
#include "support/driver_program.hpp"
#include "support/paths.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

TEST(llava, ends_the_answer_before_the_statistics_begin) {
  const auto asked = [](const std::string& redirection) {
    return test::run_program("/bin/sh", {"-c", "exec \"$0\" \"$@\" " + redirection, support::llava_program(),
                                         "--model", demo().string(), "--image", picture_path().string(),
                                         "--prompt", "How many objects are there?", "--stats"});
  };
  const auto apart = asked("");
  ASSERT_EQ(apart.exit_code, 0) << apart.err;
  ASSERT_EQ(std::ranges::count(apart.out, '\n'), 1) << apart.out;
  ASSERT_GT(apart.out.size(), 5u);
  const auto together = asked("2>&1");
  EXPECT_TRUE(together.out.starts_with(apart.out + "tokens and neurons\n")) << together.out;
}

TEST(llava, says_that_the_context_and_not_the_model_ended_the_answer) {
  const model_copy model("tiny_llama");
  model.replace_in_config("\"max_position_embeddings\": ", "\"max_position_embeddings\": 9, \"unread\": ");
  const auto asked = [&](const std::string& tokens, std::vector<std::string> more) {
    more.insert(more.begin(), {"--model", model.path().string(), "--prompt-ids", text_ids});
    return run_llava(more, tokens);
  };
  const auto text = asked("64", {});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(text.err, "llava: the answer ends where the model's context of 9 tokens does\n");
  const auto json = asked("64", {"--json"});
  EXPECT_EQ(io::json::parse(json.out).at("finished"), "context");
  EXPECT_EQ(json.err, "");
  EXPECT_EQ(io::json::parse(asked("2", {"--json"}).out).at("finished"), "length");
}

TEST(llava, ends_the_line_of_an_answer_that_it_cannot_go_on_with) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "dump.safetensors";  // larger than is allowed
  const auto result =
      test::run_program("/bin/sh", {"-c", "ulimit -f 8; exec \"$0\" \"$@\" 2>&1", support::llava_program(),
                                    "--model", demo().string(), "--image", picture_path().string(),
                                    "--prompt", "How many objects are there?", "--dump", file.string()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.out.find("\nllava: "), std::string::npos) << result.out;
}

TEST(llava, reports_its_own_peak_memory_and_not_that_of_who_started_it) {
  std::vector<char> much(std::size_t{512} << 20);
  for (std::size_t i = 0; i < much.size(); i += 1024) static_cast<volatile char*>(much.data())[i] = 1;
  const auto result = ask(data("tiny_mha"), picture_path(), {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto peak = io::json::parse(result.out).at("peak_memory_bytes").get<double>();
  EXPECT_LT(peak, static_cast<double>(much.size()) / 2);
  EXPECT_GT(peak, 1e6);
}

#if defined(__linux__)
TEST(llava, works_on_as_many_threads_as_its_affinity_mask_has) {
  const auto threads = [] {
    const auto result = test::run_program(
        support::llava_program(), {"--model", data("tiny_mha").string(), "--image", picture_path().string(),
                                   "--prompt-ids", ids, "--max-new-tokens", "1", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? io::json::parse(result.out).at("threads").get<int>() : 0;
  };
  int on_one = 0;
  // A mask is a thread's, and programs that it starts inherit it.
  std::thread([&] {
    cpu_set_t mask;
    ASSERT_EQ(::sched_getaffinity(0, sizeof mask, &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(::sched_setaffinity(0, sizeof mask, &mask), 0);
    on_one = threads();
  }).join();
  EXPECT_EQ(on_one, 1);
  EXPECT_EQ(threads(), cpu::default_threads());
}
#endif

TEST(llava, fails_where_answer_or_statistics_cannot_be_written) {
  const auto ask_into = [](const std::string& redirection, const std::string& option) {
    return test::run_program(
        "/bin/sh", {"-c", "exec \"$0\" \"$@\" " + redirection, support::llava_program(), "--model",
                    data("tiny_mha").string(), "--image", picture_path().string(), "--prompt-ids", ids,
                    "--max-new-tokens", "1", option});
  };
  const auto fine = ask_into("", "--stats");
  ASSERT_EQ(fine.exit_code, 0) << fine.err;
  const auto unheard = ask_into("2>/dev/full", "--stats");
  EXPECT_EQ(unheard.exit_code, 1);
  EXPECT_EQ(unheard.out, fine.out) << "the answer is worth having all the same";
  EXPECT_EQ(ask_into("2>&-", "--stats").exit_code, 1);
  EXPECT_EQ(ask_into("2>/dev/full", "--json").exit_code, 0) << "nothing was to be written there";
  for (const char* option : {"--stats", "--json"}) {
    const auto result = ask_into(">/dev/full", option);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("could not be written to standard output"), std::string::npos) << result.err;
  }
}

TEST(llava, fails_where_what_it_says_of_itself_cannot_be_written) {
  const auto say_into_nothing = [](const std::vector<std::string>& arguments) {
    std::vector<std::string> words{"-c", "exec \"$0\" \"$@\" >/dev/full", support::llava_program()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return test::run_program("/bin/sh", words);
  };
  for (const std::vector<std::string>& said : {std::vector<std::string>{"--help"},
                                               {"--version"},
                                               {"pack", "--help"},
                                               {"batch", "--help"},
                                               {"serve", "--help"},
                                               {"measure", "--help"},
                                               {"calibrate", "--help"},
                                               {"inspect", "--help"},
                                               {"inspect", demo().string()}})
    expect_refused(say_into_nothing(said), {"could not be written to standard output"});
}

TEST(llava, writes_no_file_whose_name_stands_for_standard_output) {
  for (const std::vector<std::string>& output :
       {std::vector<std::string>{"--dump", "-"}, {"--show-tokens", "-"}})
    expect_refused(ask(data("tiny_mha"), picture_path(), output),
                   {output[0] + ": is not written to standard output"});
  for (const char* command : {"pack", "calibrate"})
    expect_refused(test::run_program(support::llava_program(),
                                     {command, "--model", demo().string(), "--output", "-",
                                      command == std::string("pack") ? "--weights" : "--text", "q8_0"}),
                   {"--output: is not written to standard output"});
}

TEST(llava, says_that_without_a_picture_there_are_no_tokens_to_drop) {
  const std::vector<std::string> text{"--model", demo().string(), "--prompt", "Hi.", "--sparsity"};
  const auto with = [&](const char* sparsity) {
    std::vector<std::string> all = text;
    all.emplace_back(sparsity);
    return run_llava(all);
  };
  const auto tokens = with("tokens");
  EXPECT_EQ(tokens.exit_code, 0);
  EXPECT_EQ(tokens.out, with("none").out);
  EXPECT_EQ(tokens.err,
            "llava: --sparsity tokens: without --image there are no image tokens, so nothing is left out\n");
  EXPECT_EQ(with("both").err, "");
}

TEST(llava, does_not_overwrite_what_is_no_plain_file_or_what_it_reads) {
  const support::temporary_directory directory;
  const auto target = directory.write("target", "kept"), link = directory.path() / "link.png";
  fs::create_symlink(target, link);
  expect_refused(ask(data("tiny_mha"), picture_path(), {"--show-tokens", link.string()}),
                 {"link.png", "regular"});
  EXPECT_TRUE(fs::is_symlink(link));
  expect_refused(ask(data("tiny_mha"), picture_path(), {"--dump", directory.path().string()}),
                 {"--dump", "regular"});
  const auto copy = directory.path() / "picture.png";
  fs::copy(picture_path(), copy);
  expect_refused(ask(data("tiny_mha"), copy, {"--show-tokens", copy.string()}), {"--image"});
  const model_copy model("tiny_mha");
  expect_refused(ask(model.path(), picture_path(), {"--dump", model.weights().string()}),
                 {"file of the model"});
  const auto same = (directory.path() / "same").string();
  fs::create_directory_symlink(directory.path(), directory.path() / "link");
  for (const char* spelled : {"same", "./same", "link/same"}) {
    const auto again = (directory.path() / spelled).string();
    expect_refused(ask(data("tiny_mha"), picture_path(), {"--dump", same, "--show-tokens", again}),
                   {"same file"});
  }
}

TEST(llava, reads_a_picture_from_standard_input) {
  const auto ask_with = [](const std::string& redirection, const std::string& output) {
    return test::run_program("/bin/sh", {"-c", "exec \"$0\" \"$@\" " + redirection, support::llava_program(),
                                         "--model", demo().string(), "--image", "-", "--prompt",
                                         "How many objects are there?", "--show-tokens", output});
  };
  const support::temporary_directory directory;
  const auto copy = directory.path() / "picture.png", drawing = directory.path() / "drawing.png";
  fs::copy(picture_path(), copy);
  const auto by_name = test::run_program(
      support::llava_program(), {"--model", demo().string(), "--image", picture_path().string(), "--prompt",
                                 "How many objects are there?"});
  ASSERT_EQ(by_name.exit_code, 0) << by_name.err;
  const auto piped = ask_with("< " + copy.string(), drawing.string());
  EXPECT_EQ(piped.out, by_name.out) << piped.err;
  EXPECT_TRUE(fs::exists(drawing));
  expect_refused(ask_with("< " + copy.string(), copy.string()), {"--show-tokens", "--image"});
  expect_refused(ask_with("< /dev/null", drawing.string()), {"standard input: the file is empty"});
  expect_refused(ask_with("<&-", drawing.string()), {"standard input: cannot read: "});
}

TEST(llava, leaves_nothing_behind_where_it_cannot_write) {
  const support::temporary_directory directory;
  const auto missing = directory.path() / "none" / "dump.safetensors";
  const auto result = ask(data("tiny_mha"), picture_path(), {"--dump", missing.string()});
  EXPECT_GT(result.exit_code, 0);
  EXPECT_NE(result.err.find(missing.string()), std::string::npos) << result.err;
  EXPECT_TRUE(fs::is_empty(directory.path()));
}

}  // namespace
}  // namespace corematching
