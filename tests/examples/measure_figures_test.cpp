// SPDX-License-Identifier: Apache-2.0
// The figures of `llava measure`: those of another implementation, of the driver's own answers, of formulas.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/llama/llama.hpp"
#include "corematching/text/checkpoint_tokenizer.hpp"
#include "llava/measure/prediction.hpp"
#include "support/driver_program.hpp"
#include "support/measure_program.hpp"
#include "support/reference_run.hpp"
#include "support/temporary_directory.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;

/// Compares the runs of a stored case, made in binary64. A logit here errs by at most 2e-5 of the largest,
/// and the demo model's are below 50; so do logarithms of probabilities, and what is averaged of them.
void expect_agreement(const io::json& runs, const io::json& expected) {
  constexpr double error = 2e-5 * 50;
  ASSERT_EQ(runs.size(), expected.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    SCOPED_TRACE(expected.at(i).at("options").get<std::string>());
    EXPECT_EQ(runs.at(i).at("options"), expected.at(i).at("options"));
    EXPECT_EQ(runs.at(i).at("tokens"), expected.at(i).at("tokens"));
    EXPECT_NEAR(std::log(runs.at(i).at("perplexity").get<double>()),
                std::log(expected.at(i).at("perplexity").get<double>()), error);
    EXPECT_NEAR(runs.at(i).at("kl_divergence"), expected.at(i).at("kl_divergence"), error);
    EXPECT_EQ(runs.at(i).at("top1_agreement"), expected.at(i).at("top1_agreement"));
    if (!runs.at(i).contains("answers")) continue;
    for (const char* key : {"exact_answers", "kept_image_tokens"})
      EXPECT_EQ(runs.at(i).at(key), expected.at(i).at(key)) << key;
  }
}

/// --config for each of the stored case's runs but the dense one.
arguments configurations_of(const io::json& stored) {
  arguments all;
  for (const io::json& run : stored.at("runs"))
    if (const auto options = run.at("options").get<std::string>(); !options.empty())
      all.insert(all.end(), {"--config", std::to_string(all.size()) + ": " + options});
  return all;
}

TEST_F(llava_measure, agrees_with_transformers_on_a_text) {
  const io::json stored = test::reference_description("measure").at("text");
  const io::json report = figures_of_text(configurations_of(stored));
  expect_agreement(report.at("runs"), stored.at("runs"));
}

TEST_F(llava_measure, agrees_with_transformers_where_few_steps_are_timed) {
  const io::json stored = test::reference_description("measure").at("text");
  arguments all = configurations_of(stored);
  const io::json singly = figures_of_text(all);
  all.insert(all.end(), {"--timed-steps", "2"});
  const io::json report = figures_of_text(all);
  expect_agreement(report.at("runs"), stored.at("runs"));
  for (std::size_t i = 0; i < report.at("runs").size(); ++i)
    EXPECT_EQ(report.at("runs").at(i).at("ffn_bytes_per_token"),
              singly.at("runs").at(i).at("ffn_bytes_per_token"));
}

TEST_F(llava_measure, agrees_with_transformers_on_questions_about_pictures) {
  const io::json stored = test::reference_description("measure").at("questions");
  arguments all = configurations_of(stored);
  all.insert(all.end(), {"--questions", (data("measure") / "questions.jsonl").string()});
  const io::json report = figures(all);
  expect_agreement(report.at("runs"), stored.at("runs"));
  EXPECT_EQ(report.at("runs").at(0).at("image_tokens"), 600);
  EXPECT_EQ(report.at("runs").at(0).at("answers"), 6);
}

/// What the driver answered, and the logits by which it chose each token.
struct given_answer {
  std::string text;
  std::vector<float> logits;  // [tokens, vocabulary]
  index tokens = 0, kept_image_tokens = 0;

  double surprise() const {
    const auto vocabulary = logits.size() / static_cast<std::size_t>(tokens);
    double sum = 0;
    for (auto rest = std::span(logits); !rest.empty(); rest = rest.subspan(vocabulary)) {
      const corematching::driver::prediction chosen(rest.first(vocabulary));
      sum += chosen.surprise(chosen.likeliest());
    }
    return sum;
  }
};

given_answer answer_with(const fs::path& picture, const std::string& question, const arguments& options) {
  const support::temporary_directory directory;
  const fs::path dumped = directory.path() / "dump.safetensors";
  arguments all{"--model", demo().string(), "--image",       picture.string(), "--prompt",
                question,  "--dump",        dumped.string(), "--json"};
  all.insert(all.end(), options.begin(), options.end());
  const auto result = test::driver::run_llava(all, "64");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  if (result.exit_code != 0) return {};
  const io::json object = io::json::parse(result.out);
  EXPECT_EQ(object.at("finished"), "stop") << "what ends the answer is foretold, too";
  const auto dump = io::checkpoint::open(dumped);
  const io::tensor& logits = dump.at("logits");
  const std::span<const float> values(reinterpret_cast<const float*>(logits.bytes.data()),
                                      logits.bytes.size() / sizeof(float));
  const io::json& matches = object.at("matches");
  const io::json& last = matches.empty() ? object.at("before_decoder") : matches.back();
  return {
      object.at("answer"), {values.begin(), values.end()}, logits.shape.at(0), last.at("kept_image_tokens")};
}

TEST_F(llava_measure, foretells_an_answer_as_it_is_given) {
  const fs::path picture = demo() / "pictures" / "scene_1.png";
  const std::string question = "Describe the image.";
  for (const arguments& options : std::vector<arguments>{
           {"--sparsity", "tokens", "--match-layers", "1", "--criterion", "rarity", "--keep", "top_k:25"},
           {"--sparsity", "both", "--match-layers", "1", "--criterion", "contrast", "--keep", "top_k:25"},
           {"--thin", "duplication", "--thin-keep", "top_k:25"},
           {"--thin", "random", "--selection-seed", "3", "--thin-keep", "ratio:0.5", "--sparsity", "both",
            "--criterion", "rarity", "--keep", "top_k:25"}}) {
    std::string line;
    for (const std::string& option : options) line += (line.empty() ? "" : " ") + option;
    SCOPED_TRACE(line);
    const given_answer given = answer_with(picture, question, options);
    ASSERT_GT(given.tokens, 10);
    const io::json asked{{"image", picture.string()}, {"question", question}, {"answer", given.text}};
    const io::json report = figures({"--questions", directory.write("asked.jsonl", asked.dump()).string(),
                                     "--config", "measured: " + line});
    const io::json& run = report.at("runs").at(1);
    EXPECT_EQ(run.at("tokens"), given.tokens);
    EXPECT_EQ(run.at("exact_answers"), 1);
    EXPECT_EQ(run.at("image_tokens"), 100);
    EXPECT_EQ(run.at("kept_image_tokens"), 25);
    EXPECT_EQ(run.at("kept_image_tokens"), given.kept_image_tokens);
    // The logits are the same ones.
    EXPECT_NEAR(std::log(run.at("perplexity").get<double>()),
                given.surprise() / static_cast<double>(given.tokens), 1e-9);
    EXPECT_GT(run.at("kl_divergence"), 0);
    EXPECT_LT(run.at("kv_bytes_read_per_token"), report.at("runs").at(0).at("kv_bytes_read_per_token"));
  }
}

TEST_F(llava_measure, drops_nothing_of_pictures_before_the_decoder_where_there_are_none) {
  const fs::path asked =
      directory.write("asked.jsonl", R"({"question": "Is there a star?", "answer": "Yes, there is."})");
  const io::json report =
      figures({"--questions", asked.string(), "--config", "some: --thin duplication --thin-keep top_k:25"});
  const io::json &dense = report.at("runs").at(0), &some = report.at("runs").at(1);
  EXPECT_EQ(some.at("kl_divergence"), 0.0);
  for (const char* key : {"perplexity", "weight_bytes_per_token", "kv_bytes_read_per_token", "exact_answers",
                          "kept_image_tokens"})
    EXPECT_EQ(some.at(key), dense.at(key)) << key;
}

#if defined(COREMATCHING_LLAVA_HAS_EIGEN)
// By Eigen, whose products do not round the tokens.
TEST_F(llava_measure, agrees_with_transformers_on_weights_in_planes) {
  const io::json stored = test::reference_description("measure").at("planes");
  arguments all = configurations_of(stored);
  all.insert(all.end(), {"--weights", stored.at("weights"), "--kv-cache", "f32", "--device", "eigen"});
  const io::json report = figures_of_text(all);
  expect_agreement(report.at("runs"), stored.at("runs"));
}
#endif

TEST_F(llava_measure, foretells_as_prefills_of_every_length_do) {
  const std::string line = "Where is the white star? It is at the bottom right.\n";
  const io::json report = figures(
      {"--text", directory.write("line.txt", line).string(), "--chunk", "14", "--prompt-tokens", "5"});
  const auto words = corematching::text::open_tokenizer(demo());
  std::vector<std::int32_t> ids = words->frame().prefix;
  const auto rest = words->encode(line, corematching::text::special_tokens::are_text);
  ids.insert(ids.end(), rest.begin(), rest.end());
  ASSERT_GE(ids.size(), 14u);
  ASSERT_LT(ids.size(), 27u) << "there is one chunk";

  using B = support::test_backend;
  B be = support::make_backend<B>(1);
  const io::checkpoint files = io::checkpoint::open(demo());
  weight_reader<B> reader(be, files);
  const llama<B> language(be, read_model_config(demo()).text(), reader);
  double surprise = 0;
  for (index read = 5; read < 14; ++read) {
    auto seq = language.start(be, 0);
    matrix<B> x(be, read, language.config().hidden_size);
    language.embed(be, x.view(), std::span(ids).first(static_cast<std::size_t>(read)));
    const auto logits = language.prefill(be, seq, x.view(), read);
    surprise += corematching::driver::prediction(logits).surprise(ids[static_cast<std::size_t>(read)]);
  }
  EXPECT_EQ(report.at("runs").at(0).at("tokens"), 9);
  EXPECT_NEAR(std::log(report.at("runs").at(0).at("perplexity").get<double>()), surprise / 9, 1e-4);
}

TEST_F(llava_measure, finds_all_neurons_the_same_as_the_dense_run) {
  arguments all{"--weights", "q8_0_planes"};
  for (const char* policy :
       {"--beta 1", "--beta 1 --statistic magnitude", "--beta 1 --neurons gate",
        "--beta 1 --neurons gate:plain", "--beta 1 --neurons predicted", "--beta 1,1,1,1,1,1 --neurons gate"})
    all.insert(all.end(), {"--config", std::to_string(all.size()) + ": --sparsity neurons " + policy});
  const io::json report = figures_of_text(all);
  const io::json& dense = report.at("runs").at(0);
  ASSERT_EQ(report.at("runs").size(), 7u);
  EXPECT_EQ(report.at("runs").at(1).at("name"), "2");
  for (std::size_t i = 1; i < report.at("runs").size(); ++i) {
    const io::json& run = report.at("runs").at(i);
    SCOPED_TRACE(run.at("options").get<std::string>());
    EXPECT_EQ(run.at("kl_divergence"), 0.0);
    EXPECT_EQ(run.at("top1_agreement"), 1.0);
    EXPECT_EQ(run.at("perplexity_to_dense"), 1.0);
    for (const char* key :
         {"perplexity", "ffn_bytes_per_token", "weight_bytes_per_token", "kv_bytes_read_per_token"})
      EXPECT_EQ(run.at(key), dense.at(key)) << key;
  }
}

TEST_F(llava_measure, counts_the_bytes_that_the_shapes_say) {
  const io::json report = figures_of_text({"--config", "half: --sparsity neurons --beta 0.5 --rho 1"});
  const io::json &dense = report.at("runs").at(0), &half = report.at("runs").at(1);
  constexpr int layers = 6, hidden = 128, neurons = 640, vocabulary = 576, bytes = 2;
  const int ffn = 3 * layers * hidden * neurons * bytes;
  EXPECT_EQ(dense.at("ffn_bytes_per_token"), ffn);
  EXPECT_EQ(dense.at("weight_bytes_per_token"),
            ffn + (4 * layers * hidden * hidden + vocabulary * hidden) * bytes);
  EXPECT_EQ(half.at("ffn_bytes_to_dense"), 0.5);
  EXPECT_EQ(half.at("weight_bytes_per_token"), dense.at("weight_bytes_per_token").get<double>() - ffn / 2.0);
  for (const io::json& run : report.at("runs")) EXPECT_GT(run.at("decode_tokens_per_second"), 0);
}

TEST_F(llava_measure, counts_the_bytes_that_policies_read) {
  const std::string half = "--sparsity neurons --beta 0.5 ";
  const io::json report = figures_of_text(
      {"--weights", "q8_0_planes", "--config", "magnitude: " + half + "--statistic magnitude", "--config",
       "gate: " + half + "--neurons gate", "--config", "plain: " + half + "--neurons gate:plain", "--config",
       "predicted: " + half + "--neurons predicted", "--config",
       "by layer: --sparsity neurons --neurons gate --beta 0.1,0.5,0.5,0.5,1,1"});
  constexpr double upper = 18.0 / 34, beta = 0.5;  // the upper plane: half of 32 quants, and their scale
  const std::vector<double> expected{1,
                                     beta,
                                     (1 + 2 * beta) / 3,
                                     (1 + 2 * beta) / 3,
                                     2 * (upper + (1 - upper) * beta) / 3 + beta / 3,
                                     (1 + 2 * 3.6 / 6) / 3};
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(report.at("runs").at(i).at("ffn_bytes_to_dense"), expected[i], 1e-9)
        << report.at("runs").at(i).at("name");
  const io::json read_twice =
      figures_of_text({"--weights", "f16_planes", "--config", "predicted: " + half + "--neurons predicted"});
  EXPECT_NEAR(read_twice.at("runs").at(1).at("ffn_bytes_to_dense"), 2 * (0.5 + beta) / 3 + beta / 3, 1e-9);
}

TEST_F(llava_measure, restricts_each_layer_alone_to_its_own_beta) {
  const io::json report = figures_of_text(
      {"--by-layer", "--config", "all: --sparsity neurons --neurons gate --beta 0.1,0.2,0.3,0.4,0.5,1",
       "--config", "third: --sparsity neurons --neurons gate --beta 1,1,0.3,1,1,1"});
  const io::json &layer = report.at("runs").at(1 + 1 + 2), &third = report.at("runs").at(1 + 7);
  EXPECT_EQ(layer.at("layer"), 2);
  EXPECT_EQ(third.at("name"), "third");
  for (const char* key : {"perplexity", "kl_divergence", "ffn_bytes_per_token"})
    EXPECT_EQ(layer.at(key), third.at(key)) << key;
  EXPECT_NEAR(third.at("ffn_bytes_to_dense"), (5 + (1 + 2 * 0.3) / 3) / 6, 1e-9);
}

TEST_F(llava_measure, restricts_each_layer_alone) {
  const io::json report =
      figures_of_text({"--by-layer", "--config", "some: --sparsity both --neuron-layers 2:5", "--config",
                       "third: --sparsity neurons --neuron-layers 3:4"});
  std::vector<io::json> layers;
  for (const io::json& run : report.at("runs"))
    if (run.at("name") == "some" && run.contains("layer")) layers.push_back(run);
  ASSERT_EQ(layers.size(), 3u);
  for (std::size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(layers[i].at("layer"), 2 + i);
  const io::json& third = report.at("runs").at(5);
  EXPECT_EQ(third.at("name"), "third");
  EXPECT_FALSE(third.contains("layer"));
  for (const char* key : {"perplexity", "kl_divergence", "ffn_bytes_per_token"})
    EXPECT_EQ(layers[1].at(key), third.at(key)) << key;
  EXPECT_NEAR(third.at("ffn_bytes_to_dense"), (5 + 0.4) / 6, 1e-9);
}

TEST_F(llava_measure, prints_a_row_for_each_run) {
  const auto result = measure(
      {"--text", sample.string(), "--chunk", "64", "--config", "few: --sparsity neurons", "--by-layer"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 1 + 1 + 1 + 6) << result.out;
  for (const char* part : {"perplexity", "\ndense ", "\nfew ", "\n  layer 5 ", "100.0 %"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\nin: " << result.out;
}

TEST_F(llava_measure, scores_chunks_that_are_spread_over_the_text) {
  EXPECT_EQ(figures_of_text({}).at("runs").at(0).at("tokens"), 96);
  EXPECT_EQ(figures_of_text({"--tokens", "95"}).at("runs").at(0).at("tokens"), 64);
  EXPECT_EQ(figures_of_text({"--prompt-tokens", "60"}).at("runs").at(0).at("tokens"), 12);
}

}  // namespace
}  // namespace corematching
