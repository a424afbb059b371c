// SPDX-License-Identifier: Apache-2.0
// The demo model as two GGUF files in the driver, as users of such files meet it.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "support/driver_program.hpp"
#include "support/llava_gguf.hpp"
#include "support/measure_program.hpp"
#include "support/paths.hpp"
#include "support/temporary_directory.hpp"

namespace corematching {
namespace {

using namespace test::driver;
using support::mmproj_scheme;

class llava_of_two_files : public testing::Test {
 protected:
  /// With a vocabulary that has the token <image> or not, and a chat template or none.
  fs::path decoder(const std::string& name, bool names_image, const std::string& chat_template = "") const {
    auto file = support::decoder_of(files, config.text());
    support::add_demo_vocabulary(file, demo(), names_image);
    if (!chat_template.empty()) file.text("tokenizer.chat_template", chat_template);
    return directory.write(name, file.bytes());
  }
  fs::path tower(const std::string& name, mmproj_scheme scheme) const {
    return directory.write(name, support::mmproj_of(files, *config.llava(), scheme).bytes());
  }
  static test::program_result asked(std::vector<std::string> model, std::vector<std::string> more = {}) {
    model.insert(model.end(), {"--image", (demo() / "pictures" / "scene_1.png").string(), "--prompt",
                               "Describe the image."});
    model.insert(model.end(), more.begin(), more.end());
    return run_llava(model, "24");
  }
  static std::vector<std::string> model_of(const fs::path& file, const fs::path& mmproj) {
    return {"--model", file.string(), "--mmproj", mmproj.string()};
  }
  static test::program_result run(std::vector<std::string> arguments) {
    return test::run_program(support::llava_program(), arguments);
  }

  support::temporary_directory directory;
  model_config config = read_model_config(demo());
  io::checkpoint files = io::checkpoint::open(demo());
};

TEST_F(llava_of_two_files, answers_as_the_checkpoint_does) {
  const auto expected = asked({"--model", demo().string()});
  ASSERT_EQ(expected.exit_code, 0) << expected.err;
  ASSERT_FALSE(expected.out.empty());
  const fs::path named = decoder("named.gguf", true), unnamed = decoder("unnamed.gguf", false);
  const fs::path old = tower("old.gguf", mmproj_scheme::old_converter);
  const fs::path todays = tower("todays.gguf", mmproj_scheme::todays);
  for (const auto& [file, mmproj] :
       {std::pair(named, old), std::pair(unnamed, old), std::pair(named, todays)}) {
    SCOPED_TRACE(file.filename().string() + ", " + mmproj.filename().string());
    const auto answer = asked(model_of(file, mmproj));
    EXPECT_EQ(answer.exit_code, 0) << answer.err;
    EXPECT_EQ(answer.out, expected.out);
    EXPECT_EQ(answer.err, "") << "Vicuna's format is no guess";
  }
  for (const char* preset : {"default", "paper"})
    EXPECT_EQ(asked(model_of(unnamed, old), {"--preset", preset}).out,
              asked({"--model", demo().string()}, {"--preset", preset}).out);
  const auto raw = run_llava({"--model", unnamed.string(), "--mmproj", old.string(), "--image",
                              (demo() / "pictures" / "scene_1.png").string(), "--raw-prompt",
                              "<s>USER: <image>\nDescribe the image. ASSISTANT:"},
                             "24");
  EXPECT_EQ(raw.out,
            run_llava({"--model", demo().string(), "--image", (demo() / "pictures" / "scene_1.png").string(),
                       "--raw-prompt", "<s>USER: <image>\nDescribe the image. ASSISTANT:"},
                      "24")
                .out)
      << raw.err;
}

TEST_F(llava_of_two_files, speaks_as_the_template_in_the_file_says) {
  const auto file =
      decoder("m.gguf", false,
              "{% for message in messages %}{{ message['role'].upper() + ': ' }}{{ '<image>\n' }}"
              "{% endfor %}{{ 'ASSISTANT:' }}");
  const auto answer = asked(model_of(file, tower("mm.gguf", mmproj_scheme::old_converter)));
  EXPECT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_NE(answer.err.find("taken for llava-1.5"), std::string::npos) << answer.err;
  EXPECT_EQ(answer.out, asked({"--model", demo().string()}, {"--chat-template", "llava-1.5"}).out);
}

TEST_F(llava_of_two_files, pads_pictures_where_nothing_else_is_said) {
  const auto file = decoder("m.gguf", false);
  const auto model = model_of(file, tower("mm.gguf", mmproj_scheme::old_converter));
  const auto shown = [&](std::vector<std::string> from, std::vector<std::string> more) {
    from.insert(from.end(), {"--image", picture_path().string(), "--prompt", "Describe the image.", "--dump",
                             (directory.path() / "dump.safetensors").string()});
    from.insert(from.end(), more.begin(), more.end());
    const auto result = run_llava(from, "1");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return content_of(directory.path() / "dump.safetensors");
  };
  const std::string padded = shown(model, {});
  EXPECT_EQ(padded, shown(model, {"--image-fit", "pad"}));
  EXPECT_NE(padded, shown(model, {"--image-fit", "crop"}));
}

TEST_F(llava_of_two_files, is_packed_and_inspected) {
  const auto file = decoder("m.gguf", false), mmproj = tower("mm.gguf", mmproj_scheme::old_converter);
  const auto model = model_of(file, mmproj);
  const auto stored = asked(model);
  EXPECT_EQ(stored.exit_code, 0) << stored.err;
  const auto converted = asked(model, {"--weights", "q8_0"});
  for (const std::vector<std::string>& weights : {std::vector<std::string>{}, {"--weights", "q8_0"}}) {
    std::vector<std::string> packing{"pack"};
    packing.insert(packing.end(), model.begin(), model.end());
    packing.insert(packing.end(), weights.begin(), weights.end());
    EXPECT_EQ(run(packing).exit_code, 0);
    const auto packed = asked(model, weights);
    EXPECT_EQ(packed.out, weights.empty() ? stored.out : converted.out);
    EXPECT_NE(packed.err.find("using " + file.string()), std::string::npos) << packed.err;
  }
  const auto limited = asked(model, {"--weights", "q8_0", "--memory-limit", "1G"});
  EXPECT_EQ(limited.out, converted.out) << limited.err;
  const auto inspected = run({"inspect", file.string(), "--mmproj", mmproj.string()});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.out;
  for (const char* part : {"mmproj            ", "100 tokens of 80 x 80 pixels, 4 of 4 layers", "vicuna",
                           "m.gguf.packed", "runs              yes, by names"})
    EXPECT_NE(inspected.out.find(part), std::string::npos) << part << "\nin: " << inspected.out;
}

TEST_F(llava_of_two_files, is_asked_by_the_other_commands) {
  const auto file = decoder("m.gguf", false), mmproj = tower("mm.gguf", mmproj_scheme::todays);
  const auto answer = asked(model_of(file, mmproj));
  const auto input = directory.write(
      "in.jsonl",
      R"({"id":"one","core_matching":{"preset":"dense"},"max_tokens":24,"messages":[{"role":"user",)"
      R"("content":[{"type":"image","path":")" +
          (demo() / "pictures" / "scene_1.png").string() +
          R"("},{"type":"text","text":"Describe the image."}]}]})"
          "\n");
  const auto output = directory.path() / "out.jsonl";
  const auto batch = run({"batch", "--model", file.string(), "--mmproj", mmproj.string(), "--input",
                          input.string(), "--output", output.string()});
  EXPECT_EQ(batch.exit_code, 0) << batch.err;
  const std::string said = answer.out.substr(0, answer.out.size() - 1);
  EXPECT_NE(content_of(output).find(io::json_text(io::json(said))), std::string::npos) << content_of(output);
  const auto figures = directory.path() / "figures.json";
  const auto measured =
      run({"measure", "--model", file.string(), "--mmproj", mmproj.string(), "--questions",
           (data("measure") / "questions.jsonl").string(), "--threads", "1", "--json", figures.string()});
  EXPECT_EQ(measured.exit_code, 0) << measured.err;
  EXPECT_NE(content_of(figures).find("mm.gguf"), std::string::npos) << "another tower is another measurement";
}

TEST_F(llava_of_two_files, has_the_calibration_of_its_decoder) {
  const auto file = decoder("m.gguf", false), mmproj = tower("mm.gguf", mmproj_scheme::todays);
  std::vector<std::string> calibrating{"calibrate"};
  for (const auto& part : {model_of(file, mmproj),
                           {"--text", (data("measure") / "text.txt").string(), "--threads", "1", "--chunk",
                            "64", "--layer-tokens", "32", "--tokens", "32", "--tolerance", "0.05"}})
    calibrating.insert(calibrating.end(), part.begin(), part.end());
  const auto calibrated = run(calibrating);
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  const fs::path found = file.string() + "-gate-stored.calibration.json";
  const io::json shares = io::parse_json(io::mapped_file::open(found).bytes(), found.string()).at("beta");
  const auto answer = asked(model_of(file, mmproj), {"--preset", "default", "--json"});
  ASSERT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_EQ(io::json::parse(answer.out).at("neuron_policy").at("beta"), shares);
}

TEST_F(llava_of_two_files, is_refused_in_one_line) {
  const auto file = decoder("m.gguf", false), mmproj = tower("mm.gguf", mmproj_scheme::old_converter);
  const auto refused = [](const std::vector<std::string>& model, const std::vector<std::string>& parts) {
    expect_refused(asked(model), parts);
  };
  refused(model_of(file, file), {file.string() + ": the architecture \"llama\" is no vision tower"});
  refused({"--model", mmproj.string()}, {mmproj.string() + ": is an mmproj file", "--mmproj"});
  refused(model_of(mmproj, mmproj), {mmproj.string() + ": is an mmproj file"});
  refused(model_of(demo(), mmproj), {mmproj.string(), "goes beside a GGUF file, which " + demo().string()});
  refused({"--model", file.string()}, {"a text model cannot look at a picture", "--mmproj"});
  refused(model_of(file, directory.path() / "none.gguf"), {"none.gguf: cannot open"});
  const auto small = directory.write(
      "small.gguf", support::mmproj_of(io::checkpoint::open(data("tiny_mha")),
                                       *read_model_config(data("tiny_mha")).llava(), mmproj_scheme::todays)
                        .bytes());
  refused(model_of(file, small), {small.string() +
                                  ": makes image tokens of 64 elements, but the hidden size "
                                  "of " +
                                  file.string() + " is 128"});
  for (const char* command : {"pack", "serve"})
    expect_refused(run({command, "--model", file.string(), "--mmproj", small.string()}), {small.string()});
  const auto size = fs::file_size(mmproj);
  auto overwriting = model_of(file, mmproj);
  overwriting.insert(overwriting.end(), {"--dump", mmproj.string()});
  refused(overwriting, {mmproj.string(), "would overwrite a file of the model"});
  EXPECT_EQ(fs::file_size(mmproj), size);
  const auto inspected = run({"inspect", file.string(), "--mmproj", small.string()});
  EXPECT_EQ(inspected.exit_code, 1);
  EXPECT_NE(inspected.out.find("makes image tokens of 64"), std::string::npos) << inspected.out;
  EXPECT_NE(run({"inspect", mmproj.string()}).out.find("is an mmproj file"), std::string::npos);
  fs::resize_file(mmproj, size / 2);
  refused(model_of(file, mmproj), {mmproj.string(), "do not fit a file"});
}

}  // namespace
}  // namespace corematching
