// SPDX-License-Identifier: Apache-2.0
// The driver as its users meet it: a command line in, an answer out, and what is written beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "support/driver_program.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

TEST(llava, answers_with_ids_where_there_is_no_tokenizer) {
  const auto result = ask(data("tiny_mha"), picture_path(), {"--sparsity", "none"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, ' '), 4) << result.out;
  EXPECT_EQ(result.err, "") << "progress is for terminals";
}

TEST(llava, answers_a_prompt_where_there_is_tokenizer_json_alone) {
  const model_copy model("demo");
  fs::remove(model.path() / "tokenizer.model");
  fs::copy(demo() / "tokenizer.json", model.path() / "tokenizer.json");
  const auto asked = [&](const fs::path& from, const std::string& option, const std::string& text) {
    return run_llava(
        {"--model", from.string(), "--image", (demo() / "pictures" / "scene_1.png").string(), option, text},
        "8");
  };
  const auto both = asked(demo(), "--prompt", "Describe the image.");
  EXPECT_EQ(both.exit_code, 0) << both.err;
  EXPECT_EQ(asked(model.path(), "--prompt", "Describe the image.").out, both.out);
  EXPECT_EQ(asked(model.path(), "--raw-prompt", "<s>USER: <image>\nDescribe the image. ASSISTANT:").out,
            both.out);
}

TEST(llava, json_is_one_object_that_agrees_with_itself) {
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--json", "--sparsity", "both", "--match-layers", "1", "--stats"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json object = io::json::parse(result.out);
  EXPECT_EQ(object.at("generated_ids").size(), 4u);
  EXPECT_EQ(object.at("prompt_tokens"), 12 + 25);
  EXPECT_EQ(object.at("image_tokens"), 25);
  const auto& match = object.at("matches").at(0);
  EXPECT_EQ(match.at("layer"), 1);
  EXPECT_EQ(match.at("kept_image_tokens"), match.at("kept_image_positions").size());
  EXPECT_LT(match.at("kept_image_tokens"), 25);
  EXPECT_EQ(object.at("core_neurons"), io::json(std::vector<int>(4, 70)));
  // 4 layers of keys and values, 64 wide, for every token that is left: text, kept patches, and 3 decoded
  // ones.
  const auto rows = 12 + match.at("kept_image_tokens").get<int>() + 3;
  EXPECT_EQ(object.at("kv_cache_bytes"), 2 * 4 * 64 * 4 * rows);
  EXPECT_EQ(object.at("dense_kv_cache_bytes"), 2 * 4 * 64 * 4 * (12 + 25 + 3));
  for (const char* pass : {"prefill", "decode"})
    EXPECT_LT(object.at(pass).at("flops"), object.at(std::string("dense_") + pass).at("flops"));
  EXPECT_NE(result.err.find("kept after layer 1"), std::string::npos) << result.err;
}

TEST(llava, describes_the_demo_models_pictures_as_they_are) {
  const fs::path list = demo() / "pictures.json";
  for (const io::json& shown : io::parse_json(io::mapped_file::open(list).bytes(), list.string()))
    for (const io::json& question : shown.at("questions")) {
      const auto asked = question.at("question").get<std::string>();
      if (asked != "Describe the image.") continue;
      const fs::path file = demo() / "pictures" / shown.at("file").get<std::string>();
      const auto result =
          run_llava({"--model", demo().string(), "--image", file.string(), "--prompt", asked}, "64");
      EXPECT_EQ(result.out, question.at("answer").get<std::string>() + "\n") << result.err;
    }
}

TEST(llava, takes_image_tokens_that_are_expanded_already) {
  std::string expanded = ids;
  const auto place = expanded.find("250,");
  for (int i = 1; i < 25; ++i) expanded.insert(place, "250,");
  const std::vector<std::string> common{"--model", data("tiny_mha").string(), "--image",
                                        picture_path().string(), "--prompt-ids"};
  const auto asked = [&](const std::string& prompt) {
    auto command = common;
    command.push_back(prompt);
    return run_llava(command);
  };
  const auto result = asked(expanded);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, asked(ids).out);
  expanded.insert(place, "250,");
  test::driver::expect_refused(asked(expanded), {"26 images", "one is given"});
}

TEST(llava, json_says_by_which_policy_neurons_are_chosen_and_what_that_reads) {
  const auto told = [](std::vector<std::string> more) {
    more.push_back("--json");
    const auto result = ask(data("tiny_mha"), picture_path(), more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return io::json::parse(result.out);
  };
  const io::json dense = told({});
  EXPECT_EQ(dense.at("neuron_policy"), nullptr);
  EXPECT_EQ(dense.at("ffn_bytes_to_dense"), 1.0);
  EXPECT_EQ(told({"--sparsity", "tokens"}).at("neuron_policy"), nullptr);
  const io::json paper = told({"--sparsity", "neurons"});
  EXPECT_EQ(paper.at("neuron_policy"),
            io::json::parse(R"({"name":"sentence","statistic":"frequency","beta":[0.4,0.4,0.4,0.4]})"));
  const io::json gate =
      told({"--sparsity", "both", "--match-layers", "1", "--neurons", "gate", "--neuron-layers", "1:4"});
  EXPECT_EQ(gate.at("neuron_policy"), io::json::parse(R"({"name":"gate","beta":[1.0,0.4,0.4,0.4]})"));
  EXPECT_EQ(gate.at("core_neurons"), io::json({176, 70, 70, 70}));
  EXPECT_NEAR(gate.at("ffn_bytes_to_dense"), (1 + 3 * (1 + 2 * 70.0 / 176) / 3) / 4, 1e-9);
  EXPECT_EQ(gate.at("matches").size(), 1u) << "tokens are dropped under every policy";
  const io::json shares =
      told({"--sparsity", "neurons", "--statistic", "magnitude", "--beta", "0.25,0.5,0.75,1"});
  EXPECT_EQ(shares.at("neuron_policy"),
            io::json::parse(R"({"name":"sentence","statistic":"magnitude","beta":[0.25,0.5,0.75,1.0]})"));
  EXPECT_NEAR(shares.at("ffn_bytes_to_dense"), 2.5 / 4, 1e-9);
}

TEST(llava, dense_work_is_what_the_formula_says) {
  const auto result = ask(data("tiny_mha"), picture_path(), {"--json", "--sparsity", "none"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json object = io::json::parse(result.out);
  EXPECT_EQ(object.at("prefill"), object.at("dense_prefill"));
  EXPECT_EQ(object.at("decode"), object.at("dense_decode"));
  EXPECT_EQ(object.at("kv_cache_bytes"), object.at("dense_kv_cache_bytes"));
}

#if defined(COREMATCHING_LLAVA_HAS_EIGEN)
TEST(llava, answers_by_eigen_as_by_its_own_kernels) {
  const auto answered = [](const std::string& device) {
    const auto result = ask(data("tiny_mha"), picture_path(),
                            {"--json", "--sparsity", "both", "--match-layers", "1", "--device", device});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return io::json::parse(result.out);
  };
  const io::json own = answered("cpu"), by_eigen = answered("eigen");
  EXPECT_EQ(by_eigen.at("device"), "Eigen");
  for (const char* key : {"generated_ids", "matches", "core_neurons"})
    EXPECT_EQ(by_eigen.at(key), own.at(key)) << key;
}
#endif

TEST(llava, takes_pictures_of_every_kind) {
  for (const char* name : {"landscape.png", "portrait.png", "grey.png", "rgba.png", "one_pixel.png"}) {
    const auto result = ask(data("tiny_mha"), data("preprocess") / name, {"--sparsity", "both"});
    EXPECT_EQ(result.exit_code, 0) << name << ": " << result.err;
  }
  for (const auto& entry : fs::directory_iterator(data("preprocess"))) {
    if (entry.path().extension() != ".jpg") continue;
    const auto result = ask(data("tiny_mha"), entry.path(), {"--image-fit", "pad"});
    EXPECT_EQ(result.exit_code, 0) << entry.path() << ": " << result.err;
  }
}

TEST(llava, reads_text_models) {
  for (const char* name : {"tiny_llama", "tiny_mistral", "tiny_qwen2", "tiny_qwen3", "tiny_window"}) {
    for (const char* sparsity : {"none", "both"}) {
      const auto result =
          run_llava({"--model", data(name).string(), "--prompt-ids", text_ids, "--sparsity", sparsity});
      EXPECT_EQ(result.exit_code, 0) << name << ": " << result.err;
    }
  }
}

TEST(llava, dumps_what_it_computed) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "dump.safetensors";
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--sparsity", "both", "--match-layers", "1", "--dump", file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto dump = io::checkpoint::open(file);
  EXPECT_EQ(dump.at("pixel_values").shape, (std::vector<std::int64_t>{3, 70, 70}));
  EXPECT_EQ(dump.at("image_features").shape, (std::vector<std::int64_t>{25, 64}));
  EXPECT_EQ(dump.at("inputs_embeds").shape, (std::vector<std::int64_t>{37, 64}));
  EXPECT_EQ(dump.at("layers.1.output").shape, (std::vector<std::int64_t>{37, 64}));
  EXPECT_EQ(dump.at("layers.1.ffn_activation").shape, (std::vector<std::int64_t>{37, 176}));
  EXPECT_EQ(dump.at("layers.0.core_neurons").shape, (std::vector<std::int64_t>{70}));
  EXPECT_EQ(dump.at("layers.2.output").shape.at(0), dump.at("layers.1.kept_positions").shape.at(0));
  EXPECT_EQ(dump.at("logits").shape, (std::vector<std::int64_t>{4, 256}));
}

TEST(llava, drops_tokens_before_the_decoder_and_in_it) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "tokens.png", dumped = directory.path() / "dump.safetensors";
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--json", "--stats", "--thin", "duplication", "--thin-keep", "ratio:0.6",
                           "--sparsity", "tokens", "--match-layers", "1", "--criterion", "rarity", "--keep",
                           "top_k:4", "--show-tokens", file.string(), "--dump", dumped.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json object = io::json::parse(result.out);
  EXPECT_EQ(object.at("prompt_tokens"), 12 + 25);
  const io::json& before = object.at("before_decoder");
  EXPECT_EQ(before.at("criterion"), "duplication");
  EXPECT_EQ(before.at("image_tokens"), 25);
  EXPECT_EQ(before.at("kept_image_tokens"), 15);
  const auto entered = before.at("kept_image_positions").get<std::vector<int>>();
  const io::json match = object.at("matches").at(0);
  EXPECT_EQ(match.at("image_tokens"), 15) << "the layer chooses among the rest";
  const auto kept = match.at("kept_image_positions").get<std::vector<int>>();
  EXPECT_EQ(kept.size(), 4u);
  EXPECT_TRUE(std::ranges::includes(entered, kept));
  EXPECT_EQ(object.at("kv_cache_bytes"), 2 * 4 * 64 * 4 * (12 + 4 + 3));
  EXPECT_EQ(object.at("dense_kv_cache_bytes"), 2 * 4 * 64 * 4 * (12 + 25 + 3));
  EXPECT_NE(result.err.find("kept before the decoder"), std::string::npos) << result.err;
  EXPECT_GT(fs::file_size(file), 1000u);
  const auto dump = io::checkpoint::open(dumped);
  EXPECT_EQ(dump.at("before_decoder.kept_image_positions").shape, std::vector<std::int64_t>{15});
  EXPECT_EQ(dump.at("inputs_embeds").shape, (std::vector<std::int64_t>{12 + 15, 64}));
  EXPECT_EQ(dump.at("layers.0.output").shape, (std::vector<std::int64_t>{12 + 15, 64}));
}

TEST(llava, answers_as_before_where_every_token_enters_the_decoder) {
  const auto whole = ask(data("tiny_mha"), picture_path(), {"--json"});
  const auto all =
      ask(data("tiny_mha"), picture_path(), {"--json", "--thin", "duplication", "--thin-keep", "ratio:1"});
  ASSERT_EQ(all.exit_code, 0) << all.err;
  const io::json a = io::json::parse(all.out), b = io::json::parse(whole.out);
  for (const char* key : {"generated_ids", "prefill", "kv_cache_bytes"}) EXPECT_EQ(a.at(key), b.at(key));
  EXPECT_EQ(b.at("before_decoder"), nullptr);
}

TEST(llava, shows_where_the_elbow_of_the_scores_is) {
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--json", "--sparsity", "tokens", "--match-layers", "1", "--criterion", "rarity"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json match = io::json::parse(result.out).at("matches").at(0);
  const io::json& group = match.at("groups").at(0);
  EXPECT_EQ(group.at("kept"), match.at("kept_image_tokens"));
  const io::json& scores = group.at("scores");
  const auto elbow = scores.at("elbow").get<int>();
  EXPECT_LT(elbow, group.at("kept").get<int>());
  const char* side = scores.at("above").at("rank") == elbow ? "above" : "below";
  EXPECT_EQ(scores.at(side).at("rank"), elbow);
  EXPECT_GE(scores.at(side).at("distance"),
            scores.at(side == std::string("above") ? "below" : "above").at("distance"));
}

TEST(llava, draws_the_tokens_it_kept) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "tokens.png";
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--sparsity", "both", "--match-layers", "0,2", "--show-tokens", file.string()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GT(fs::file_size(file), 1000u);
}

}  // namespace
}  // namespace corematching
