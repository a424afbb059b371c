// SPDX-License-Identifier: Apache-2.0
// The driver's ways to hold weights: converted, packed, under a memory limit.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/paths.hpp"
#include "support/run_program.hpp"
#include "support/temporary_directory.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using test::program_result;
using arguments = std::vector<std::string>;

/// The demo model, in a directory that packed files may be written to.
class demo_model : public ::testing::Test {
 protected:
  support::temporary_directory directory;

  void SetUp() override {
    for (const auto& entry : fs::directory_iterator(source()))
      if (entry.is_regular_file()) fs::copy(entry.path(), directory.path() / entry.path().filename());
  }
  static fs::path source() { return support::source_directory() / "models" / "demo"; }
  fs::path packed(const std::string& type) const {
    return directory.path() / ("corematching-" + type + ".packed");
  }

  program_result run(const arguments& more, const arguments& command = {}) const {
    arguments all = command;
    all.insert(all.end(), {"--model", directory.path().string(), "--threads", "2"});
    all.insert(all.end(), more.begin(), more.end());
    return test::run_program(support::llava_program(), all);
  }
  program_result ask(const arguments& more) const {
    arguments all{"--image",
                  (source() / "pictures" / "scene_1.png").string(),
                  "--prompt",
                  "Describe the image.",
                  "--max-new-tokens",
                  "24",
                  "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  }
  io::json answer(const arguments& more) const {
    const program_result result = ask(more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? io::json::parse(result.out) : io::json();
  }
  void pack(const std::string& type) const {
    const program_result result = run({"--weights", type}, {"pack"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find(packed(type).string()), std::string::npos) << result.err;
  }

  static void expect_refused(const program_result& result, const arguments& parts) {
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    for (const std::string& part : parts)
      EXPECT_NE(result.err.find(part), std::string::npos) << "looked for: " << part << "\nin: " << result.err;
  }
};

TEST_F(demo_model, answers_alike_with_weights_of_every_type) {
  const io::json stored = answer({"--sparsity", "none"});
  EXPECT_EQ(stored.at("weights"), "f16");
  for (const char* type : {"f32", "bf16", "f16", "q8_0"}) {
    const io::json converted = answer({"--sparsity", "none", "--weights", type});
    EXPECT_EQ(converted.at("weights"), type);
    EXPECT_EQ(converted.at("generated_ids"), stored.at("generated_ids")) << type;
  }
  const io::json small = answer({"--sparsity", "none", "--weights", "q4_0"});
  EXPECT_LT(small.at("weight_bytes_held"), stored.at("weight_bytes_held").get<double>() * 0.3);
}

// The same numbers in another place, multiplied in the same order: nothing that is computed differs.
TEST_F(demo_model, answers_from_two_planes_as_from_f16_itself) {
  for (const arguments& left_out : {arguments{"--sparsity", "none"}, arguments{"--sparsity", "both"},
                                    arguments{"--sparsity", "neurons", "--neurons", "gate"}}) {
    SCOPED_TRACE(left_out.back());
    const auto with = [&](const char* type) {
      arguments all{"--weights", type};
      all.insert(all.end(), left_out.begin(), left_out.end());
      return answer(all);
    };
    const io::json whole = with("f16"), split = with("f16_planes");
    for (const char* key : {"generated_ids", "core_neurons", "matches", "prefill", "decode",
                            "weight_bytes_held", "kv_cache_bytes"})
      EXPECT_EQ(split.at(key), whole.at(key)) << key;
  }
  const arguments all_neurons{"--weights", "f16_planes", "--sparsity", "neurons",
                              "--neurons", "predicted",  "--beta",     "1"};
  EXPECT_EQ(answer(all_neurons).at("generated_ids"),
            answer({"--sparsity", "none", "--weights", "f16"}).at("generated_ids"));
}

TEST_F(demo_model, answers_alike_from_a_packed_file) {
  for (const char* type : {"f16", "q4_0", "f16_planes"}) {
    const io::json converted = answer({"--sparsity", "both", "--weights", type});
    pack(type);
    const program_result found = ask({"--sparsity", "both", "--weights", type});
    EXPECT_NE(found.err.find("using " + packed(type).string()), std::string::npos) << found.err;
    const io::json loaded = io::json::parse(found.out);
    for (const char* key : {"generated_ids", "core_neurons", "matches", "decode", "weight_bytes_held"})
      EXPECT_EQ(loaded.at(key), converted.at(key)) << key;
    const io::json named = answer({"--sparsity", "both", "--packed", packed(type).string()});
    EXPECT_EQ(named.at("generated_ids"), converted.at("generated_ids"));
  }
}

TEST_F(demo_model, answers_alike_under_a_memory_limit) {
  pack("q8_0");
  // One layer is 338 kB here, head and norm 79 kB.
  for (const char* sparsity : {"none", "both"})
    for (const char* limit : {"450K", "900K", "1500K", "1G"}) {
      SCOPED_TRACE(std::string(sparsity) + ", " + limit);
      const io::json free = answer({"--weights", "q8_0", "--sparsity", sparsity});
      const io::json bound = answer({"--weights", "q8_0", "--sparsity", sparsity, "--memory-limit", limit});
      for (const char* key : {"generated_ids", "core_neurons", "matches", "prefill", "decode"})
        EXPECT_EQ(bound.at(key), free.at(key)) << key;
      EXPECT_EQ(free.at("weight_bytes_streamed_per_token"), 0);
      const bool fits = std::string(limit) == "1G" || (std::string(limit) == "1500K" && sparsity[0] == 'b');
      EXPECT_EQ(bound.at("weight_bytes_streamed_per_token").get<int>() > 1000, !fits);
    }
}

TEST_F(demo_model, answers_alike_under_a_memory_limit_by_every_policy_for_neurons) {
  pack("q8_0_planes");
  const auto answered = [&](const arguments& policy, bool limited) {
    arguments all{"--weights", "q8_0_planes", "--sparsity", "neurons"};
    if (limited) all.insert(all.end(), {"--memory-limit", "1500K"});
    all.insert(all.end(), policy.begin(), policy.end());
    return answer(all);
  };
  // The neurons of a sentence fit; those that tokens choose may be any, so whole layers are read again.
  const std::vector<std::pair<arguments, bool>> cases{{{"--statistic", "magnitude"}, true},
                                                      {{"--neurons", "gate"}, false},
                                                      {{"--neurons", "predicted"}, false}};
  for (const auto& [policy, fits] : cases) {
    SCOPED_TRACE(policy.back());
    const io::json free = answered(policy, false), bound = answered(policy, true);
    for (const char* key : {"generated_ids", "core_neurons", "neuron_policy", "prefill", "decode"})
      EXPECT_EQ(bound.at(key), free.at(key)) << key;
    EXPECT_EQ(bound.at("weight_bytes_streamed_per_token").get<int>() < 1000, fits);
  }
  const program_result told = ask({"--weights", "q8_0_planes", "--sparsity", "neurons", "--neurons", "gate",
                                   "--memory-limit", "1500K", "--stats"});
  EXPECT_NE(told.err.find("each token chooses its own, so layers are read whole"), std::string::npos)
      << told.err;
}

TEST_F(demo_model, says_what_a_memory_limit_needs) {
  expect_refused(ask({"--weights", "q8_0", "--memory-limit", "1G"}), {"--memory-limit", "llava pack"});
  pack("q8_0");
  expect_refused(ask({"--packed", packed("q8_0").string(), "--memory-limit", "100K"}),
                 {"102400", "too small", "at least"});
}

TEST_F(demo_model, ignores_a_packed_file_that_does_not_fit_unless_it_is_named) {
  pack("q8_0");
  fs::rename(packed("q8_0"), packed("f16"));
  const program_result result = ask({"--weights", "f16"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("not used: "), std::string::npos) << result.err;
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
  expect_refused(ask({"--weights", "f16", "--packed", packed("f16").string()}),
                 {"holds \"q8_0\" weights", "f16"});
  expect_refused(ask({"--packed", (directory.path() / "model.safetensors").string()}), {"not a packed file"});
  expect_refused(ask({"--packed", "/nowhere/file"}), {"/nowhere/file"});
}

TEST_F(demo_model, is_packed_whole_or_not_at_all) {
  expect_refused(run({"--weights", "q9"}, {"pack"}), {"--weights", "q9"});
  for (const char* file : {"model.safetensors", "config.json", "tokenizer.model"}) {
    const auto size = fs::file_size(directory.path() / file);
    expect_refused(run({"--weights", "f16", "--output", (directory.path() / file).string()}, {"pack"}),
                   {file, "is no packed file, so it is not overwritten"});
    EXPECT_EQ(fs::file_size(directory.path() / file), size);
  }
  expect_refused(run({"--weights", "f16", "--output", "/nowhere/file"}, {"pack"}), {"/nowhere/file"});
  const program_result result =
      test::run_program("/bin/sh", {"-c", "ulimit -f 8; exec \"$0\" \"$@\"", support::llava_program(), "pack",
                                    "--model", directory.path().string(), "--weights", "f32"});
  expect_refused(result, {"corematching-f32.packed", "cannot write"});
  for (const auto& entry : fs::directory_iterator(directory.path()))
    EXPECT_EQ(entry.path().string().find(".packed"), std::string::npos) << entry.path();
}

TEST_F(demo_model, tells_a_damaged_packed_file_from_a_whole_one) {
  const auto verify = [&](const fs::path& file) {
    return test::run_program(support::llava_program(), {"pack", "--verify", file.string()});
  };
  pack("q8_0");
  const program_result whole = verify(packed("q8_0"));
  EXPECT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_NE(whole.err.find(packed("q8_0").string() + " is whole"), std::string::npos) << whole.err;
  fs::resize_file(packed("q8_0"), fs::file_size(packed("q8_0")) - 1);
  expect_refused(verify(packed("q8_0")), {packed("q8_0").string()});
  pack("f16");
  std::fstream(packed("f16"), std::ios::binary | std::ios::in | std::ios::out)
      .seekp(-1, std::ios::end)
      .put(77);
  expect_refused(verify(packed("f16")), {"lm_head.weight", "damaged"});
  expect_refused(verify(directory.path() / "model.safetensors"), {"no checksums"});
}

TEST_F(demo_model, is_packed_anew_in_the_place_of_an_older_file) {
  pack("f16");
  pack("f16");
}

}  // namespace
}  // namespace corematching
