// SPDX-License-Identifier: Apache-2.0
// `llava calibrate` and its parts, and what its file does to later runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "examples/gate_calibration.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/calibrate/shares_path.hpp"
#include "support/driver_program.hpp"
#include "support/error_text.hpp"
#include "support/measure_program.hpp"
#include "support/paths.hpp"
#include "support/reference_run.hpp"
#include "support/temporary_directory.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using namespace test::driver;
using driver::calibration;
using driver::layer_damage;

TEST(layer_damages, are_what_was_measured_and_geometric_means_between) {
  const layer_damage layer{{0.2, 0.4, 0.8}, {0.9, 0.1, 0.02}};
  EXPECT_NEAR(layer.at(0.2), 0.9, 1e-12);
  EXPECT_NEAR(layer.at(0.4), 0.1, 1e-12);
  EXPECT_NEAR(layer.at(0.8), 0.02, 1e-12);
  EXPECT_NEAR(layer.at(0.3), std::sqrt(0.9 * 0.1), 1e-12);
  // From 0.4 to 0.8 it falls to a fifth, so at 1 it would be 0.02 / sqrt(5).
  EXPECT_NEAR(layer.at(0.9), 0.02 / std::pow(5, 0.25) - 0.02 / std::sqrt(5) / 2, 1e-12);
  EXPECT_NEAR(layer.at(1), 0, 1e-12);
  EXPECT_NE(support::error_text([&] { static_cast<void>(layer.at(0.1)); }).find("was not measured"),
            std::string::npos);
  const layer_damage harmless{{0.2, 0.6}, {0, 0}};
  EXPECT_NEAR(harmless.at(0.4), 0, 1e-11);
}

TEST(paths_of_shares, lower_the_layer_that_minds_least) {
  // The second layer minds ten times as much, wherever it stands.
  const std::vector<layer_damage> layers{{{0.2, 0.4, 0.7}, {0.08, 0.04, 0.01}},
                                         {{0.2, 0.4, 0.7}, {0.8, 0.4, 0.1}}};
  const auto path = driver::shares_path(layers, 4);
  ASSERT_EQ(path.size(), 1u + 2 * 16);
  EXPECT_EQ(path.front().beta_of_layer, (std::vector<double>{1, 1}));
  EXPECT_EQ(path.back().beta_of_layer, (std::vector<double>{0.2, 0.2}));
  EXPECT_NEAR(path.back().damage, 0.88, 1e-9);
  EXPECT_EQ(path[1].beta_of_layer, (std::vector<double>{0.95, 1}));
  for (std::size_t i = 1; i < path.size(); ++i) {
    EXPECT_GE(path[i].damage, path[i - 1].damage);
    EXPECT_LE(path[i].beta_of_layer[0], path[i].beta_of_layer[1]) << i;
    EXPECT_NEAR(path[i].damage,
                layers[0].at(path[i].beta_of_layer[0]) + layers[1].at(path[i].beta_of_layer[1]), 1e-9);
  }
}

TEST(paths_of_shares, lower_all_layers_together) {
  const std::vector<layer_damage> layers{{{0.2, 0.6}, {0.4, 0.1}}, {{0.2, 0.6}, {0.8, 0.2}}};
  const auto path = driver::even_path(layers, 4);
  ASSERT_EQ(path.size(), 17u);
  EXPECT_EQ(path[8].beta_of_layer, (std::vector<double>{0.6, 0.6}));
  EXPECT_NEAR(path[8].damage, 0.3, 1e-9);
  EXPECT_NEAR(path.back().damage, 1.2, 1e-9);
  EXPECT_NEAR(path.front().damage, 0, 1e-9);
}

TEST(paths_of_shares, leave_out_those_that_save_nothing) {
  const std::vector<layer_damage> layers{{{0.2, 0.6}, {0.4, 0.1}}, {{0.2, 0.6}, {0.8, 0.2}}};
  const auto even = driver::even_path(layers, 4, 13), path = driver::shares_path(layers, 4, 13);
  ASSERT_EQ(even.size(), 1u + 10);
  EXPECT_EQ(even[0].beta_of_layer, (std::vector<double>{1, 1}));
  EXPECT_EQ(even[1].beta_of_layer, (std::vector<double>{0.65, 0.65}));
  EXPECT_EQ(even.back().beta_of_layer, (std::vector<double>{0.2, 0.2}));
  ASSERT_EQ(path.size(), 1u + 2 * 10);
  EXPECT_EQ(path[1].beta_of_layer, (std::vector<double>{0.65, 1}));
  EXPECT_EQ(path.back().beta_of_layer, (std::vector<double>{0.2, 0.2}));
  EXPECT_NEAR(path.back().damage, 1.2, 1e-9);
}

class llava_calibrate : public testing::Test {
 protected:
  model_copy model{"demo"};
  fs::path sample = data("measure") / "text.txt";
  fs::path file = model.path() / "corematching-gate-stored.calibration.json";

  test::program_result calibrate(const arguments& more) const {
    arguments all{"calibrate", "--model", model.path().string(), "--threads", "1",
                  "--chunk",   "64",      "--layer-tokens",      "32",        "--tokens",
                  "32"};
    all.insert(all.end(), more.begin(), more.end());
    return test::run_program(support::llava_program(), all);
  }
  test::program_result answer(arguments more) const {
    more.insert(more.begin(), {"--model", model.path().string(), "--image", picture_path().string(),
                               "--prompt", "Is there a star?", "--json"});
    return run_llava(more);
  }
  /// What an unfinished start leaves beside the file.
  std::map<fs::path, std::string> kept() const {
    std::map<fs::path, std::string> contents;
    for (const fs::directory_entry& each : fs::directory_iterator(model.path()))
      if (each.path().string().starts_with(file.string() + ".stage-"))
        contents[each.path()] = content_of(each.path());
    return contents;
  }
  io::json content() const { return io::parse_json(io::mapped_file::open(file).bytes(), file.string()); }
};

TEST_F(llava_calibrate, writes_shares_that_later_runs_take) {
  const auto result = calibrate({"--text", sample.string(), "--tolerance", "0.05"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find(file.string() + ": gate, perplexity "), std::string::npos) << result.out;
  const io::json found = content();
  EXPECT_EQ(found.at("neurons"), "gate");
  EXPECT_EQ(found.at("weights"), "stored");
  const io::json& measured = found.at("measured");
  EXPECT_LE(measured.at("perplexity_to_dense"), 1.05);
  EXPECT_EQ(measured.at("tokens"), 32);
  EXPECT_EQ(measured.at("text"), "text.txt");
  const auto betas = found.at("beta").get<std::vector<double>>();
  ASSERT_EQ(betas.size(), 6u);
  double bytes = 0;
  for (const double beta : betas) bytes += beta == 1 ? 1 : (1 + 2 * std::floor(beta * 192) / 192) / 3;
  EXPECT_LT(bytes, 6) << "some layer leaves some neurons out";
  for (const auto& options :
       {arguments{"--preset", "default"},
        arguments{"--sparsity", "neurons", "--neurons", "gate", "--beta", "calibrated"}}) {
    const auto run = answer(options);
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(io::json::parse(run.out).at("neuron_policy").at("beta"), found.at("beta"));
  }
  EXPECT_EQ(io::json::parse(answer({"--preset", "dense"}).out).at("neuron_policy"), nullptr);
}

// With weights that are read twice where neurons are chosen, two thirds of them cost what all do.
TEST_F(llava_calibrate, takes_no_share_that_costs_more_than_all_neurons) {
  file = model.path() / "corematching-predicted-f16_planes.calibration.json";
  const auto result =
      calibrate({"--text", sample.string(), "--tolerance", "0.0003", "--weights", "f16_planes"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json found = content();
  EXPECT_EQ(found.at("neurons"), "predicted");
  double bytes = 0;
  for (const double beta : found.at("beta").get<std::vector<double>>()) {
    EXPECT_TRUE(beta == 1 || beta < 2.0 / 3) << beta;
    bytes += beta == 1 ? 1 : 1.0 / 3 + std::floor(beta * 640) / 640;
  }
  EXPECT_LT(bytes, 6);
  EXPECT_NEAR(found.at("measured").at("ffn_bytes_to_dense"), bytes / 6, 1e-9);
  const auto run = answer({"--preset", "default", "--weights", "f16_planes"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(io::json::parse(run.out).at("neuron_policy").at("beta"), found.at("beta"));
}

TEST_F(llava_calibrate, goes_on_from_what_was_measured) {
  const arguments demanding{"--text", sample.string(), "--tolerance", "1e-6"};
  expect_refused(calibrate(demanding), {"no layer can leave out", "stays in " + file.string() + ".stage-*"});
  const auto measured = kept();
  EXPECT_GE(measured.size(), 2u);
  expect_refused(calibrate(demanding), {"no layer can leave out"});
  EXPECT_EQ(kept(), measured) << "the times that it took included";
  arguments otherwise = demanding;
  otherwise.insert(otherwise.end(), {"--kv-cache", "bf16"});
  expect_refused(calibrate(otherwise), {"no layer can leave out"});
  EXPECT_EQ(kept().size(), 2 * measured.size()) << "what was measured with another cache is not taken";
  EXPECT_EQ(calibrate({"--text", sample.string(), "--tolerance", "0.05"}).exit_code, 0);
  EXPECT_TRUE(kept().empty());
}

TEST_F(llava_calibrate, leaves_nothing_where_nothing_was_measured) {
  model.rewrite_weights([](io::named_tensor& t, std::vector<std::byte>& bytes) {
    if (t.name.ends_with("layers.3.input_layernorm.weight"))
      std::fill_n(bytes.begin(), 4, std::byte{0xff});  // NaNs
  });
  expect_refused(calibrate({"--text", sample.string()}),
                 {"layers.3.input_layernorm.weight", "no finite number"});
  EXPECT_TRUE(kept().empty());
}

TEST_F(llava_calibrate, says_once_which_packed_file_it_uses) {
  ASSERT_EQ(test::run_program(support::llava_program(),
                              {"pack", "--model", model.path().string(), "--weights", "q8_0_planes"})
                .exit_code,
            0);
  const auto result =
      calibrate({"--text", sample.string(), "--tolerance", "0.05", "--weights", "q8_0_planes"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "llava: using " + (model.path() / "corematching-q8_0_planes.packed").string() + "\n");
}

TEST_F(llava_calibrate, writes_names_that_are_no_utf8) {
  const fs::path text = model.path() / "t\xff.txt";
  fs::copy(sample, text);
  const auto result = calibrate({"--text", text.string(), "--tolerance", "0.05"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(content().at("measured").at("text"), "t\xef\xbf\xbd.txt");
}

TEST_F(llava_calibrate, replaces_a_calibration_and_nothing_else) {
  ASSERT_EQ(calibrate({"--text", sample.string(), "--tolerance", "0.05"}).exit_code, 0);
  ASSERT_EQ(calibrate({"--text", sample.string(), "--tolerance", "0.5"}).exit_code, 0);
  EXPECT_EQ(content().at("tolerance"), 0.5);
  const fs::path text = model.path() / "text.txt";
  for (const fs::path& taken : {text, model.path() / "config.json", file}) {
    if (taken != model.path() / "config.json") fs::copy(sample, taken, fs::copy_options::overwrite_existing);
    const std::string before = content_of(taken);
    expect_refused(calibrate({"--text", sample.string(), "--output", taken.string()}),
                   {"--output: " + taken.string(), "is no calibration"});
    EXPECT_EQ(content_of(taken), before);
  }
}

TEST_F(llava_calibrate, removes_no_files_but_its_own) {
  const fs::path notes = file.string() + ".stage-notes", folder = file.string() + ".stage-0123456789abcdef";
  std::ofstream(notes) << "mine";
  fs::create_directories(folder / "mine");
  fs::create_symlink("loop", model.path() / "loop");
  const auto result = calibrate({"--text", sample.string(), "--tolerance", "0.05"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(content_of(notes), "mine");
  EXPECT_TRUE(fs::exists(folder / "mine"));
}

TEST_F(llava_calibrate, says_that_nobody_can_read_what_it_found) {
  const auto result = test::run_program(
      "/bin/sh", {"-c", "exec \"$0\" \"$@\" >/dev/full", support::llava_program(), "calibrate", "--model",
                  model.path().string(), "--text", sample.string(), "--chunk", "64", "--layer-tokens", "32",
                  "--tokens", "32", "--tolerance", "0.05", "--threads", "1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("standard output"), std::string::npos) << result.err;
  EXPECT_TRUE(fs::exists(file));
}

TEST_F(llava_calibrate, refuses_what_it_cannot_do) {
  expect_refused(calibrate({"--text", "/nowhere/text.txt"}), {"/nowhere/text.txt"});
  expect_refused(calibrate({"--text", sample.string(), "--neurons", "predicted"}),
                 {"--neurons: predicted needs", "--weights q8_0_planes"});
  expect_refused(calibrate({"--text", sample.string(), "--output", "/nowhere/c.json"}),
                 {"--output", "/nowhere"});
  expect_refused(test::run_program(support::llava_program(),
                                   {"calibrate", "--model", "/nowhere", "--text", sample.string()}),
                 {"--model: /nowhere"});
  for (const char* tolerance : {"0", "nan", "inf"})
    expect_refused(calibrate({"--text", sample.string(), "--tolerance", tolerance}), {"--tolerance"});
  EXPECT_FALSE(fs::exists(file));
  // Before anything is measured.
  const auto refused = [&](const std::string& chunk, const std::string& of_layers, const std::string& of_all,
                           const arguments& parts) {
    expect_refused(
        test::run_program(support::llava_program(),
                          {"calibrate", "--model", model.path().string(), "--text", sample.string(),
                           "--chunk", chunk, "--layer-tokens", of_layers, "--tokens", of_all}),
        parts);
  };
  refused("64", "31", "32", {"--layer-tokens: one chunk scores 32"});
  refused("64", "32", "31", {"--tokens: one chunk scores 32"});
  refused("2", "1", "1", {"--chunk"});
  EXPECT_TRUE(kept().empty());
}

TEST_F(llava_calibrate, files_of_another_kind_or_model_are_refused_by_name) {
  const calibration good = driver::gate_calibration();
  driver::write_calibration(file, good, model.path());
  EXPECT_EQ(driver::read_calibration(file, model.path()).beta_of_layer, good.beta_of_layer);
  EXPECT_EQ(answer({}).exit_code, 0);
  const io::json whole = content();
  const auto refused = [&](const char* key, const io::json& value, const arguments& parts) {
    io::json changed = whole;
    changed[key] = value;
    std::ofstream(file) << changed.dump();
    arguments all = parts;
    all.push_back(file.string());
    expect_refused(answer({"--preset", "default"}), all);
  };
  refused("model", "another", {"model", "made for another checkpoint"});
  refused("format", "something", {"format", "corematching calibration 1"});
  refused("beta", io::json::array({0.5, 2, 1, 1, 1, 1}), {"beta", "(0, 1]"});
  refused("beta", io::json::array(), {"beta", "(0, 1]"});
  refused("measured", nullptr, {"measured"});
  std::ofstream(file) << "{";
  expect_refused(answer({"--preset", "default"}), {file.string(), "not valid JSON"});
  calibration short_one = good;
  short_one.beta_of_layer = {0.5, 0.5};
  driver::write_calibration(file, short_one, model.path());
  expect_refused(answer({"--preset", "default"}), {file.string(), "2 values of beta for 6 layers"});
  for (const auto& [policy, weights] : {std::pair("predicted", "stored"), std::pair("gate", "q8_0")}) {
    calibration of_others = good;
    of_others.policy = policy;
    of_others.weights = weights;
    driver::write_calibration(file, of_others, model.path());
    expect_refused(answer({"--preset", "default"}), {file.string(), policy, weights, "its name"});
  }
  fs::remove(file);
  fs::create_symlink(file.filename(), file);
  expect_refused(answer({"--preset", "default"}), {file.string(), "symbolic links"});
  fs::remove(file);
  expect_refused(answer({"--sparsity", "neurons", "--neurons", "gate", "--beta", "calibrated"}),
                 {"--beta", file.string(), "llava calibrate"});
  expect_refused(answer({"--sparsity", "neurons", "--beta", "calibrated"}), {"--beta", "gate and predicted"});
  expect_refused(answer({"--sparsity", "neurons", "--neurons", "gate", "--beta", "calibrated",
                         "--neuron-layers", "0:2"}),
                 {"--neuron-layers: is not read with a --beta for each layer"});
}

}  // namespace
}  // namespace corematching
