// SPDX-License-Identifier: Apache-2.0
// The driver as its users meet it: a command line in, an answer or one clear message out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "corematching/backend/cpu/default_threads.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "support/reference_run.hpp"
#include "support/run_program.hpp"

namespace corematching {
namespace {

namespace fs = std::filesystem;
using test::program_result;

const std::string ids = "1,182,235,220,129,250,235,244,242,22,115,153,72";  // 250 is the image token
const std::string text_ids = "1,182,235,220,129,235,244";

fs::path data(const std::string& name) {
  return test::reference_directory(name);
}
fs::path demo() {
  return fs::path(COREMATCHING_SOURCE_DIR) / "models" / "demo";
}
fs::path picture_path() {
  return data("tiny_mha") / "picture_0.png";
}

program_result llava(std::vector<std::string> arguments, const std::string& new_tokens = "4") {
  arguments.insert(arguments.end(), {"--threads", "1", "--max-new-tokens", new_tokens});
  return test::run_program(COREMATCHING_LLAVA, arguments);
}

program_result ask(const fs::path& model, const fs::path& image, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"--model", model.string(), "--image", image.string(), "--prompt-ids", ids});
  return llava(std::move(more));
}

/// One line on stderr that holds every part; nothing on stdout; a failing exit code that is not a signal's.
void expect_refused(const program_result& result, const std::vector<std::string>& parts) {
  EXPECT_GT(result.exit_code, 0) << result.err;
  EXPECT_LT(result.exit_code, 128) << result.err;
  EXPECT_EQ(result.out, "");
  for (const std::string& part : parts)
    EXPECT_NE(result.err.find(part), std::string::npos) << "looked for: " << part << "\nin: " << result.err;
  EXPECT_LE(std::ranges::count(result.err, '\n'), 2) << result.err;
}

/// A copy of a model's directory that a test may damage.
class model_copy {
 public:
  explicit model_copy(const std::string& name) {
    const fs::path from = name == "demo" ? demo() : data(name);
    for (const char* file : {"config.json", "preprocessor_config.json", "model.safetensors",
                             "tokenizer.model", "tokenizer_config.json"})
      if (fs::exists(from / file)) fs::copy(from / file, path() / file);
  }
  fs::path path() const { return directory_.path(); }
  fs::path weights() const { return path() / "model.safetensors"; }

  void replace_in_config(const std::string& from, const std::string& to) const {
    std::ifstream in(path() / "config.json");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    std::ofstream(path() / "config.json") << text;
  }

  /// Writes the weights again, each tensor as change(tensor) wants it; a tensor with an empty name is left
  /// out.
  template <class Change>
  void rewrite_weights(Change change) const {
    const auto file = io::checkpoint::open(path());
    std::vector<std::vector<std::byte>> contents;
    std::vector<io::named_tensor> tensors;
    contents.reserve(file.size());
    for (const auto name : file.names()) {
      const io::tensor& from = file.at(name);
      contents.emplace_back(from.bytes.begin(), from.bytes.end());
      io::named_tensor to{from.name, from.type, from.shape, contents.back()};
      change(to, contents.back());
      to.bytes = contents.back();
      if (!to.name.empty()) tensors.push_back(to);
    }
    io::write_safetensors(weights(), tensors);
  }

 private:
  support::temporary_directory directory_;
};

TEST(llava, answers_with_ids_where_there_is_no_tokenizer) {
  const auto result = ask(data("tiny_mha"), picture_path(), {"--sparsity", "none"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, ' '), 4) << result.out;
  EXPECT_EQ(result.err, "") << "progress is for terminals";
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
          llava({"--model", demo().string(), "--image", file.string(), "--prompt", asked}, "64");
      EXPECT_EQ(result.out, question.at("answer").get<std::string>() + "\n") << result.err;
    }
}

TEST(llava, dense_work_is_what_the_formula_says) {
  const auto result = ask(data("tiny_mha"), picture_path(), {"--json", "--sparsity", "none"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::json object = io::json::parse(result.out);
  EXPECT_EQ(object.at("prefill"), object.at("dense_prefill"));
  EXPECT_EQ(object.at("decode"), object.at("dense_decode"));
  EXPECT_EQ(object.at("kv_cache_bytes"), object.at("dense_kv_cache_bytes"));
}

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
  for (const char* name : {"tiny_llama", "tiny_mistral", "tiny_qwen2"}) {
    for (const char* sparsity : {"none", "both"}) {
      const auto result =
          llava({"--model", data(name).string(), "--prompt-ids", text_ids, "--sparsity", sparsity});
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

TEST(llava, draws_the_tokens_it_kept) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "tokens.png";
  const auto result = ask(data("tiny_mha"), picture_path(),
                          {"--sparsity", "both", "--match-layers", "0,2", "--show-tokens", file.string()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GT(fs::file_size(file), 1000u);
}

TEST(llava, refuses_a_directory_without_a_model) {
  expect_refused(ask("/nowhere", picture_path()), {"/nowhere", "config.json"});
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

TEST(llava, refuses_pictures_before_it_reads_weights) {
  const model_copy model("tiny_mha");
  fs::remove(model.weights());
  const support::temporary_directory directory;
  expect_refused(ask(model.path(), picture_path()), {"holds neither model.safetensors"});
  expect_refused(ask(model.path(), directory.path() / "none.png"), {"none.png"});
  expect_refused(ask(model.path(), directory.write("text.png", "not a picture")),
                 {"text.png", "PNG or JPEG"});
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
    expect_refused(llava(command), parts);
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

TEST(llava, ends_the_answer_before_the_statistics_begin) {
  const auto asked = [](const std::string& redirection) {
    return test::run_program("/bin/sh", {"-c", "exec \"$0\" \"$@\" " + redirection, COREMATCHING_LLAVA,
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

TEST(llava, ends_the_line_of_an_answer_that_it_cannot_go_on_with) {
  const support::temporary_directory directory;
  const auto file = directory.path() / "dump.safetensors";  // larger than is allowed
  const auto result =
      test::run_program("/bin/sh", {"-c", "ulimit -f 8; exec \"$0\" \"$@\" 2>&1", COREMATCHING_LLAVA,
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
        COREMATCHING_LLAVA, {"--model", data("tiny_mha").string(), "--image", picture_path().string(),
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
        "/bin/sh",
        {"-c", "exec \"$0\" \"$@\" " + redirection, COREMATCHING_LLAVA, "--model", data("tiny_mha").string(),
         "--image", picture_path().string(), "--prompt-ids", ids, "--max-new-tokens", "1", option});
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

TEST(llava, refuses_prompts_that_cannot_be_run) {
  const std::string model = data("tiny_mha").string(), image = picture_path().string();
  expect_refused(llava({"--model", model, "--image", image}), {"prompt"});
  expect_refused(llava({"--model", model, "--image", image, "--prompt", ""}), {"prompt"});
  expect_refused(llava({"--model", model, "--image", image, "--prompt", "Why?"}), {"tokenizer.model"});
  expect_refused(llava({"--model", model, "--image", image, "--prompt-ids", "1,2"}), {"0 images"});
  expect_refused(llava({"--model", model, "--image", image, "--prompt-ids", "1,250,250,2"}), {"2 images"});
  expect_refused(llava({"--model", model, "--prompt-ids", ids}), {"1 images"});
  expect_refused(llava({"--model", model, "--prompt-ids", "1,99999"}), {"99999", "vocabulary"});
  expect_refused(llava({"--model", model, "--prompt-ids", "1,x"}), {"x"});
  expect_refused(llava({"--model", model, "--image", image, "--prompt-ids", "1,250", "--sparsity", "both"}),
                 {"image token"});
  expect_refused(llava({"--model", data("tiny_llama").string(), "--image", image, "--prompt-ids", "1,2"}),
                 {"--image"});
}

TEST(llava, refuses_a_prompt_over_the_context) {
  const model_copy model("tiny_llama");
  const io::json config =
      io::parse_json(io::mapped_file::open(model.path() / "config.json").bytes(), "config.json");
  const auto context = config.at("max_position_embeddings").get<int>();
  std::string long_prompt = "1";
  for (int i = 0; i < context; ++i) long_prompt += ",2";
  expect_refused(llava({"--model", model.path().string(), "--prompt-ids", long_prompt}),
                 {std::to_string(context + 1), "context of " + std::to_string(context)});
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
  expect_refused(ask(data("tiny_mha"), picture_path(), {"--dump", same, "--show-tokens", same}),
                 {"same file"});
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
