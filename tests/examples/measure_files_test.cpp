// SPDX-License-Identifier: Apache-2.0
// The files of `llava measure`: states that a second start goes on from, and what is refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/safetensors.hpp"
#include "examples/gate_calibration.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/measure/file_lock.hpp"
#include "support/driver_program.hpp"
#include "support/measure_program.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

TEST_F(llava_measure, goes_on_from_a_state_as_if_it_had_not_stopped) {
  const arguments compared{"--config", "few: --sparsity neurons", "--state", state.string()};
  const io::json whole = figures_of_text(compared);
  const std::string lines = content_of(state);
  EXPECT_EQ(std::ranges::count(lines, '\n'), 1 + 3);
  // It stopped in the midst of the second item's line, or of the first line.
  const auto first = lines.find('\n') + 1, second = lines.find('\n', first) + 1;
  for (const std::size_t left : {second + 40, second, first, std::size_t{20}, std::size_t{0}}) {
    SCOPED_TRACE(left);
    std::ofstream(state, std::ios::binary) << lines.substr(0, left);
    EXPECT_EQ(without_speed(figures_of_text(compared)), without_speed(whole));
    EXPECT_EQ(content_of(state).substr(0, std::min(left, second)), lines.substr(0, std::min(left, second)));
    EXPECT_EQ(std::ranges::count(content_of(state), '\n'), 1 + 3);
  }
}

TEST_F(llava_measure, writes_no_table_into_its_files_where_standard_output_is_closed) {
  const auto result =
      test::run_program("/bin/sh", {"-c", "exec \"$0\" \"$@\" >&-", support::llava_program(), "measure",
                                    "--model", model.string(), "--text", sample.string(), "--chunk", "64",
                                    "--threads", "1", "--state", state.string(), "--json", json.string()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("standard output"), std::string::npos) << result.err;
  EXPECT_EQ(std::ranges::count(content_of(state), '\n'), 1 + 3);
  EXPECT_EQ(io::json::parse(content_of(json)).at("runs").size(), 1u);
}

TEST_F(llava_measure, writes_figures_to_standard_output_in_place_of_the_table) {
  const auto result = measure({"--text", sample.string(), "--chunk", "64", "--json", "-"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(without_speed(io::json::parse(result.out)), without_speed(figures_of_text({})));
  EXPECT_FALSE(fs::exists("-"));
  expect_refused(measure({"--text", sample.string(), "--chunk", "64", "--state", "-"}),
                 {"--state: is not written to standard output"});
}

TEST_F(llava_measure, writes_names_that_are_no_utf8) {
  const arguments compared{"--config", "n\xff: --sparsity neurons", "--state", state.string()};
  const io::json figures = figures_of_text(compared);
  EXPECT_EQ(figures.at("runs").at(1).at("name"), "n\xef\xbf\xbd");
  EXPECT_EQ(figures_of_text(compared), figures) << "of the state";
}

TEST_F(llava_measure, says_at_once_what_a_complete_state_holds) {
  const arguments compared{"--config", "few: --sparsity neurons", "--state", state.string()};
  figures_of_text(compared);
  const std::string lines = content_of(state), bytes = content_of(json);
  figures_of_text(compared);
  EXPECT_EQ(content_of(json), bytes) << "speed included";
  EXPECT_EQ(content_of(state), lines);
}

TEST_F(llava_measure, refuses_the_state_of_something_else_by_name) {
  const arguments compared{"--text",   sample.string(),           "--chunk", "64",
                           "--config", "few: --sparsity neurons", "--state", state.string()};
  ASSERT_EQ(measure(compared).exit_code, 0);
  const std::string lines = content_of(state);
  const auto refused = [&](const std::string& from, const std::string& to, const arguments& parts) {
    arguments other = compared;
    std::ranges::replace(other, from, to);
    expect_refused(measure(other), parts);
    EXPECT_EQ(content_of(state), lines);
  };
  refused("64", "48", {state.string(), "state of another measurement", "\"chunk\""});
  refused("few: --sparsity neurons", "few: --sparsity both", {"\"configurations\"", "--sparsity neurons"});
  refused(sample.string(), directory.write("other.txt", content_of(sample) + content_of(sample)).string(),
          {state.string(), "\"content\""});
  const model_copy tuned("demo");
  tuned.replace_in_config("\"rope_theta\": ", "\"rope_theta\": 2");
  model = tuned.path();
  refused("", "", {state.string(), "\"settings\""});
  const model_copy copy("demo");
  copy.rewrite_weights([](io::named_tensor& t, std::vector<std::byte>& bytes) {
    if (t.name.ends_with("layers.1.mlp.up_proj.weight")) bytes[bytes.size() / 2] ^= std::byte{1};
  });
  model = copy.path();
  refused("", "", {state.string(), "\"model\""});
}

TEST_F(llava_measure, refuses_the_state_of_pictures_that_were_cut_otherwise) {
  const fs::path asked = directory.write("asked.jsonl", R"({"image": ")" + picture_path().string() +
                                                            R"(", "question": "Why?", "answer": "No."})");
  const arguments common{"--questions", asked.string(), "--state", state.string()};
  ASSERT_EQ(measure(common).exit_code, 0);
  arguments padded = common;
  padded.insert(padded.end(), {"--image-fit", "pad"});
  expect_refused(measure(padded), {state.string(), "\"image_fit\"", "\"pad\""});
}

TEST_F(llava_measure, refuses_the_state_of_another_calibration) {
  const model_copy copy("demo");
  model = copy.path();
  const fs::path file = model / "corematching-gate-stored.calibration.json";
  driver::calibration found = driver::gate_calibration();
  driver::write_calibration(file, found, model);
  const arguments compared{"--text",   sample.string(),       "--chunk", "64",
                           "--config", "c: --preset default", "--state", state.string()};
  ASSERT_EQ(measure(compared).exit_code, 0);
  found.beta_of_layer.front() = 0.25;
  driver::write_calibration(file, found, model);
  expect_refused(measure(compared), {state.string(), "\"configurations\"", "0.25"});
}

TEST_F(llava_measure, refuses_a_state_that_another_start_goes_on_with) {
  const arguments common{"--text", sample.string(), "--chunk", "64", "--state", state.string()};
  {
    const driver::file_lock held(state);
    expect_refused(measure(common), {state.string(), "another program"});
    EXPECT_EQ(content_of(state), "");
  }
  EXPECT_EQ(measure(common).exit_code, 0);
}

TEST_F(llava_measure, leaves_files_alone_that_are_no_states) {
  const arguments common{"--text", sample.string(), "--chunk", "64"};
  const auto refused = [&](const std::string& content, const std::string& part) {
    arguments with = common;
    const fs::path file = directory.write("notes.txt", content);
    with.insert(with.end(), {"--state", file.string()});
    expect_refused(measure(with), {file.string(), part});
    EXPECT_EQ(content_of(file), content);
  };
  refused("notes", "is no state of llava measure");
  refused("{\"a\": 1}\n", "is no state of llava measure");
  refused("notes\n", "not valid JSON");
  arguments over_text = common;
  over_text.insert(over_text.end(), {"--json", sample.string()});
  expect_refused(measure(over_text), {"--json", sample.string()});
}

TEST_F(llava_measure, leaves_pictures_alone) {
  const fs::path picture = directory.path() / "picture.png";
  fs::copy(picture_path(), picture);
  const fs::path asked = directory.write(
      "asked.jsonl", R"({"image": "picture.png", "question": "Is there a star?", "answer": "No."})");
  const std::string before = content_of(picture);
  expect_refused(measure({"--questions", asked.string(), "--json", picture.string()}),
                 {"--json: " + picture.string()});
  EXPECT_EQ(content_of(picture), before);
}

TEST_F(llava_measure, names_the_line_of_a_question_that_cannot_be_asked) {
  const std::string good = R"({"question": "Is there a star?", "answer": "Yes, there is."})";
  const auto refused = [&](const std::string& line, const arguments& parts) {
    const fs::path file = directory.write("questions.jsonl", good + "\n\n" + line + "\n" + good + "\n");
    arguments all = parts;
    all.push_back(file.string() + ": line 3: ");
    expect_refused(measure({"--questions", file.string()}), all);
  };
  refused("{", {"not valid JSON"});
  refused("[]", {"expected an object"});
  refused(R"({"question": "Why?"})", {"answer is missing"});
  refused(R"({"question": 7, "answer": "a"})", {"question is 7, expected a string"});
  refused(R"({"question": " ", "answer": "a"})", {"the prompt is empty"});
  refused(R"({"imgae": "none.png", "question": "Why?", "answer": "a"})", {"the key \"imgae\" is none of"});
  refused(R"({"image": "none.png", "question": "Why?", "answer": "a"})", {"image: ", "none.png"});
  refused(R"({"question": "Is <image> red?", "answer": "a"})", {"no picture is given"});
  refused(R"({"question": ")" + std::string(3000, 'x') + R"(", "answer": "a"})", {"context of 1024"});
  directory.write("broken.png", "not a picture");
  refused(R"({"image": "broken.png", "question": "Why?", "answer": "a"})", {"broken.png", "PNG, JPEG"});
  expect_refused(measure({"--questions", directory.write("none.jsonl", "\n").string()}),
                 {"holds no question"});
}

TEST_F(llava_measure, refuses_before_it_reads_weights) {
  const model_copy copy("demo");
  fs::remove(copy.weights());
  model = copy.path();
  const auto refused = [&](const arguments& more, const arguments& parts) {
    arguments all{"--text", sample.string()};
    all.insert(all.end(), more.begin(), more.end());
    expect_refused(measure(all), parts);
  };
  refused({}, {sample.string(), "fewer than the 511 of one chunk"});
  refused({"--chunk", "2000"}, {"--chunk", "context of 1024"});
  refused({"--chunk", "64", "--tokens", "31"}, {"--tokens", "scores 32"});
  refused({"--chunk", "64", "--config", "x: --sparsity neurons --neuron-layers 3:9"},
          {"--config \"x\": --neuron-layers: ", "3..9"});
  refused({"--chunk", "64", "--config", "x: --sparsity neurons --neurons gate --beta 0.3,0.4"},
          {"--config \"x\": --beta: there are 2 values of beta for 6 layers"});
  refused({"--chunk", "64", "--config", "x: --sparsity neurons --neurons predicted"},
          {"--config \"x\": --neurons: predicted needs", "--weights q8_0_planes"});
  refused({"--chunk", "64", "--json", "/nowhere/figures.json"}, {"--json", "/nowhere"});
  refused({"--chunk", "64"}, {"holds neither model.safetensors"});
  copy.replace_in_config("\"vocab_size\": ", "\"vocab_size\": 300, \"unread\": ");
  refused({"--chunk", "64"}, {sample.string(), "outside the vocabulary of 300"});
  expect_refused(measure({"--text", "/nowhere/text.txt"}), {"/nowhere/text.txt"});
}

}  // namespace
}  // namespace corematching
