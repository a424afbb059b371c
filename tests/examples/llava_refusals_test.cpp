// SPDX-License-Identifier: Apache-2.0
// What the driver refuses: one clear message, and as early as can be.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "support/driver_program.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

TEST(llava, refuses_a_directory_without_a_model) {
  expect_refused(ask("/nowhere", picture_path()),
                 {"/nowhere: is neither a model's directory nor a GGUF file"});
  const support::temporary_directory empty;
  expect_refused(ask(empty.path(), picture_path()), {(empty.path() / "config.json").string()});
}

TEST(llava, refuses_what_is_no_picture) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "picture.png";
  std::ofstream(file) << "not a picture";
  expect_refused(ask(data("tiny_mha"), file), {file.string()});
  std::ofstream(file, std::ios::trunc) << "";
  expect_refused(ask(data("tiny_mha"), file), {file.string()});
  expect_refused(ask(data("tiny_mha"), directory.path() / "none.png"), {"none.png"});
}

TEST(llava, refuses_truncated_weights) {
  const model_copy model("tiny_mha");
  fs::resize_file(model.weights(), fs::file_size(model.weights()) / 2);
  expect_refused(ask(model.path(), picture_path()), {"model.safetensors"});
}

TEST(llava, refuses_a_missing_tensor) {
  const model_copy model("tiny_mha");
  model.rewrite_weights([](io::named_tensor& t, auto&) {
    if (t.name.ends_with("layers.2.mlp.up_proj.weight")) t.name.clear();
  });
  expect_refused(ask(model.path(), picture_path()), {"layers.2.mlp.up_proj.weight"});
}

TEST(llava, refuses_a_wrong_shape_and_says_both) {
  const model_copy model("tiny_mha");
  model.replace_in_config("\"intermediate_size\": 176", "\"intermediate_size\": 160");
  expect_refused(ask(model.path(), picture_path()), {"gate_proj.weight", "[176, 64]", "[160, 64]"});
}

TEST(llava, refuses_activations_that_are_not_finite) {
  const model_copy model("tiny_mha");
  model.rewrite_weights([](io::named_tensor& t, std::vector<std::byte>& bytes) {
    if (t.name.ends_with("language_model.model.layers.1.mlp.up_proj.weight"))
      std::fill_n(bytes.begin(), 4, std::byte{0xff});  // a NaN
  });
  expect_refused(ask(model.path(), picture_path(), {"--sparsity", "both"}), {"layer 1", "NaN"});
  expect_refused(ask(model.path(), picture_path(), {"--sparsity", "none"}), {"NaN"});
}

TEST(llava, refuses_options_out_of_range) {
  const std::vector<std::vector<std::string>> cases{
      {"--rho", "0"},
      {"--rho", "1.5"},
      {"--beta", "0"},
      {"--beta", "-1"},
      {"--beta", "nan"},
      {"--match-layers", "9"},
      {"--match-layers", "2,1"},
      {"--match-layers", "x"},
      {"--keep", "most"},
      {"--keep", "top_k:0"},
      {"--keep", "ratio:2"},
      {"--temperature", "-1"},
      {"--top-p", "0"},
      {"--neuron-layers", "3:9"},
      {"--anchor", "100", "--reference", "anchor"},
      {"--positions", "contiguous", "--pruning", "later_layers"},
      {"--no-such-option"}};
  expect_refused(ask(data("tiny_mha"), picture_path(), {"--sparsity", "some"}), {"--sparsity: \"some\""});
  for (auto options : cases) {
    options.insert(options.end(), {"--sparsity", "both"});
    const auto result = ask(data("tiny_mha"), picture_path(), options);
    EXPECT_GT(result.exit_code, 0) << options[0];
    EXPECT_LT(result.exit_code, 128) << options[0];
    EXPECT_EQ(result.out, "") << options[0];
    EXPECT_NE(result.err, "") << options[0];
  }
}

TEST(llava, names_the_sparsity_option_that_is_out_of_range) {
  const std::vector<std::vector<std::string>> cases{
      {"--rho: ", "rho must lie in (0, 1], not 1.5", "--rho", "1.5"},
      {"--beta: ", "beta must lie in (0, 1], not 0", "--beta", "0"},
      {"--beta: ", "selects none of 176 neurons", "--beta", "0.001"},
      {"--match-layers: ", "matching layer 9 does not lie in 0..3", "--match-layers", "9"},
      {"--match-layers: ", "must ascend", "--match-layers", "2,1"},
      {"--neuron-layers: ", "neuron layers 3..9 do not lie in 0..4", "--neuron-layers", "3:9"},
      {"--positions: ", "pruning everywhere", "--positions", "contiguous", "--pruning", "later_layers"},
      {"--keep: ", "at least 1 token", "--keep", "top_k:0"},
      {"--keep: ", "ratio must lie in (0, 1], got 2", "--keep", "ratio:2"},
      {"--min-tokens: ", "at least 1", "--min-tokens", "0"},
      {"--max-tokens: ", "below min_tokens = 5, got 3", "--max-tokens", "3", "--min-tokens", "5"}};
  for (const auto& c : cases) {
    std::vector<std::string> options{c.begin() + 2, c.end()};
    options.insert(options.end(), {"--sparsity", "both"});
    expect_refused(ask(data("tiny_mha"), picture_path(), options), {"llava: " + c[0], c[1]});
  }
}

TEST(llava, refuses_settings_before_it_reads_weights) {
  const model_copy model("tiny_mha");
  fs::remove(model.weights());
  expect_refused(ask(model.path(), picture_path(), {"--sparsity", "both", "--match-layers", "9"}),
                 {"--match-layers: "});
}

TEST(llava, refuses_a_beta_for_other_layers_before_it_reads_weights) {
  const model_copy model("tiny_mha");
  fs::remove(model.weights());
  const auto refused = [&](const std::string& beta, const std::string& part) {
    for (const std::vector<std::string>& policy :
         {std::vector<std::string>{"--neurons", "gate"}, {"--statistic", "magnitude"}}) {
      std::vector<std::string> all{"--sparsity", "neurons", "--beta", beta};
      all.insert(all.end(), policy.begin(), policy.end());
      expect_refused(ask(model.path(), picture_path(), all), {"llava: --beta: ", part});
    }
  };
  refused("0.3,0.4,0.5", "there are 3 values of beta for 4 layers");
  refused("0.3,0.4,0.5,1.5", "beta of layer 3 must lie in (0, 1], not 1.5");
  refused("1.5", "beta must lie in (0, 1], not 1.5");
}

TEST(llava, refuses_pictures_before_it_reads_weights) {
  const model_copy model("tiny_mha");
  fs::remove(model.weights());
  const support::temporary_directory directory;
  expect_refused(ask(model.path(), picture_path()), {"holds neither model.safetensors"});
  expect_refused(ask(model.path(), directory.path() / "none.png"), {"none.png"});
  expect_refused(ask(model.path(), directory.write("text.png", "not a picture")),
                 {"text.png", "PNG, JPEG, GIF or WebP"});
  std::ifstream whole(picture_path(), std::ios::binary);
  std::string half(fs::file_size(picture_path()) / 2, '\0');
  whole.read(half.data(), std::ssize(half));
  expect_refused(ask(model.path(), directory.write("half.png", half)), {"half.png"});
}

TEST(llava, refuses_prompts_before_it_reads_weights) {
  const model_copy model("demo");
  fs::remove(model.weights());
  const std::vector<std::string> seen{"--model", model.path().string(), "--image", picture_path().string()};
  const auto expect = [&](std::vector<std::string> command, const std::vector<std::string>& prompt,
                          const std::vector<std::string>& parts) {
    command.insert(command.end(), prompt.begin(), prompt.end());
    expect_refused(run_llava(command), parts);
  };
  const std::vector<std::string> unseen{seen.begin(), seen.begin() + 2};
  expect(seen, {"--prompt", "Why?"}, {"holds neither model.safetensors"});
  expect(seen, {"--prompt", "Is <image> like <image>?"}, {"<image> 2 times"});
  expect(unseen, {"--prompt", "Is <image> red?"}, {"<image>", "no picture is given"});
  expect(seen, {"--prompt", " "}, {"the prompt is empty"});
  expect(seen, {"--prompt-ids", "1,x"}, {"\"x\"", "not a token id"});
  expect(seen, {"--prompt-ids", "1,2,"}, {"not a token id"});
  expect(seen, {"--prompt-ids", "1,539,576"}, {"token id 576 lies outside the vocabulary of 576"});
  expect(seen, {"--prompt-ids", "1,2"}, {"0 images", "one is given"});
  expect(seen, {"--prompt-ids", "1,539,539,2"}, {"2 images", "one is given"});
  expect(unseen, {"--prompt-ids", "1,539"}, {"1 images", "none is given"});
}

TEST(llava, refuses_prompts_that_cannot_be_run) {
  const std::string model = data("tiny_mha").string(), image = picture_path().string();
  expect_refused(run_llava({"--model", model, "--image", image}), {"prompt"});
  expect_refused(run_llava({"--model", model, "--image", image, "--prompt", ""}), {"prompt"});
  expect_refused(run_llava({"--model", model, "--image", image, "--prompt", "Why?"}), {"tokenizer.model"});
  expect_refused(run_llava({"--model", model, "--image", image, "--prompt-ids", "1,2"}), {"0 images"});
  expect_refused(run_llava({"--model", model, "--image", image, "--prompt-ids", "1,250,250,2"}),
                 {"2 images"});
  expect_refused(run_llava({"--model", model, "--prompt-ids", ids}), {"1 images"});
  expect_refused(run_llava({"--model", model, "--prompt-ids", "1,99999"}), {"99999", "vocabulary"});
  expect_refused(run_llava({"--model", model, "--prompt-ids", "1,x"}), {"x"});
  expect_refused(
      run_llava({"--model", model, "--image", image, "--prompt-ids", "1,250", "--sparsity", "both"}),
      {"image token"});
  expect_refused(run_llava({"--model", data("tiny_llama").string(), "--image", image, "--prompt-ids", "1,2"}),
                 {"--image"});
}

TEST(llava, refuses_a_prompt_over_the_context) {
  const model_copy model("tiny_llama");
  const io::json config =
      io::parse_json(io::mapped_file::open(model.path() / "config.json").bytes(), "config.json");
  const auto context = config.at("max_position_embeddings").get<int>();
  std::string long_prompt = "1";
  for (int i = 0; i < context; ++i) long_prompt += ",2";
  expect_refused(run_llava({"--model", model.path().string(), "--prompt-ids", long_prompt}),
                 {std::to_string(context + 1), "context of " + std::to_string(context)});
}

TEST(llava, says_that_a_sliding_window_limits_a_prompt_of_which_tokens_are_dropped) {
  const model_copy model("tiny_original");
  model.replace_in_config("\"sliding_window\": null", "\"sliding_window\": 7");
  EXPECT_EQ(ask(model.path(), picture_path(), {"--sparsity", "none"}).exit_code, 0);
  expect_refused(
      ask(model.path(), picture_path(), {"--sparsity", "tokens"}),
      {"does not fit the model's sliding window of 7, beyond which no image tokens can be dropped"});
}

}  // namespace
}  // namespace corematching
