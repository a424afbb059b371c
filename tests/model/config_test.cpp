// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/config.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/published_configs.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::image_fit;
using corematching::image_processor_options;
using corematching::model_config;
using corematching::parse_image_processor;
using corematching::read_model_config;
using corematching::io::json_object;
using support::error_text;
using support::expect_parts;
using support::json;
using support::llava_7b;
using support::refusal;

image_processor_options parse_image(const json& config) {
  return parse_image_processor(json_object(config, "preprocessor_config.json"));
}

TEST(image_processor, reads_the_published_file) {
  const auto options = parse_image(json::parse(R"({"crop_size": {"height": 336, "width": 336},
      "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
      "image_mean": [0.5, 0.25, 0.125], "image_processor_type": "CLIPImageProcessor", "image_std": [1, 0.5, 0.25],
      "processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": 0.00390625,
      "size": {"shortest_edge": 336}})"));
  EXPECT_EQ(options.resize_shortest_edge, 336);
  EXPECT_EQ(options.crop_height, 336);
  EXPECT_EQ(options.crop_width, 336);
  EXPECT_EQ(options.mean, (std::array<float, 3>{0.5f, 0.25f, 0.125f}));
  EXPECT_EQ(options.std, (std::array<float, 3>{1, 0.5f, 0.25f}));
  EXPECT_EQ(options.rescale, 0.00390625);
}

TEST(image_processor, takes_defaults_plain_sizes_and_padding) {
  const auto defaults = parse_image(json::object());
  EXPECT_EQ(defaults.resize_shortest_edge, 224);
  EXPECT_EQ(defaults.crop_height, 224);
  EXPECT_EQ(defaults.mean, image_processor_options{}.mean);
  EXPECT_EQ(defaults.fit, image_fit::crop);
  const auto plain = parse_image({{"size", 300}, {"crop_size", 200}, {"do_pad", true}});
  EXPECT_EQ(plain.resize_shortest_edge, 300);
  EXPECT_EQ(plain.crop_width, 200);
  EXPECT_EQ(plain.fit, image_fit::pad);
}

TEST(image_processor, pads_for_llava_and_not_for_clip) {
  for (const char* type : {"LlavaImageProcessor", "LlavaImageProcessorFast"})
    EXPECT_EQ(parse_image({{"image_processor_type", type}, {"do_pad", true}}).fit, image_fit::pad);
  for (const char* type : {"CLIPImageProcessor", "CLIPImageProcessorFast"})
    EXPECT_EQ(parse_image({{"image_processor_type", type}, {"do_pad", true}}).fit, image_fit::crop);
}

TEST(image_processor, refuses_what_it_would_not_reproduce) {
  const auto refused = [](const json& config) { return error_text([&] { parse_image(config); }); };
  const std::string file = "preprocessor_config.json: ";
  expect_parts(refused({{"image_processor_type", "LlavaNextImageProcessor"}}),
               file + "image_processor_type is \"LlavaNextImageProcessor\", expected CLIPImageProcessor or");
  expect_parts(refused({{"resample", 2}}), file + "resample is 2, expected 3 (bicubic)");
  expect_parts(refused({{"do_resize", false}}), file + "do_resize is false, expected true");
  expect_parts(refused({{"do_center_crop", false}}), file + "do_center_crop is false");
  expect_parts(refused({{"do_rescale", 1}}), file + "do_rescale is 1, expected true or false");
  expect_parts(refused({{"do_normalize", false}}), file + "do_normalize is false");
  expect_parts(refused({{"size", {{"height", 336}, {"width", 336}}}}),
               file + "size.shortest_edge is missing");
  expect_parts(refused({{"size", {{"shortest_edge", 336}, {"longest_edge", 400}}}}),
               file + "size.longest_edge is 400, expected none");
  // What transformers writes of a step that was switched off by None.
  expect_parts(refused({{"do_resize", nullptr}}), file + "do_resize is null, expected true");
  expect_parts(refused({{"size", 0}}), file + "size is 0");
  expect_parts(refused({{"crop_size", {{"height", 336}}}}), file + "crop_size.width is missing");
  expect_parts(refused({{"image_mean", {0.5, 0.5}}}),
               file + "image_mean is a list of 2 values, expected 3 numbers");
  expect_parts(refused({{"image_std", {0.5, 0.5, 0}}}), file + "image_std");
  expect_parts(refused({{"rescale_factor", "x"}}), file + "rescale_factor is \"x\"");
  expect_parts(refused(json::array()), file + "the document is a list of 0 values, expected an object");
}

TEST(model_config, refuses_a_file_without_model_type) {
  expect_parts(refusal(json::object()), "config.json: model_type is missing");
  expect_parts(refusal(json::array()), "config.json: the document is a list");
}

class model_directory : public testing::Test {
 protected:
  void write(const std::string& name, const json& content) { directory.write(name, content.dump()); }
  model_config read() { return read_model_config(directory.path()); }
  std::string path_of(const std::string& name) { return (directory.path() / name).string(); }

  support::temporary_directory directory;
  json processor{{"size", {{"shortest_edge", 336}}}, {"crop_size", {{"height", 336}, {"width", 336}}}};
};

TEST_F(model_directory, needs_only_config_json) {
  expect_parts(error_text([&] { read(); }), path_of("config.json"), "No such file or directory");
  write("config.json", llava_7b);
  EXPECT_EQ(read().image.crop_width, 336);
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2}));
}

TEST(model_config, names_what_does_not_exist) {
  EXPECT_EQ(support::error_text([] { read_model_config("none.gguf"); }),
            "none.gguf: is neither a model's directory nor a GGUF file: there is nothing of this name");
}

TEST(model_config, names_the_gguf_file_of_a_directory_that_has_nothing_else) {
  const support::temporary_directory directory;
  const auto text = [&] { return support::error_text([&] { read_model_config(directory.path()); }); };
  support::expect_parts(text(), "config.json: cannot open");
  directory.write("b.gguf", "");
  const auto first = directory.write("a.gguf", "");
  EXPECT_EQ(text(), directory.path().string() + ": has no config.json; a GGUF file is named itself, as " +
                        first.string());
}

TEST_F(model_directory, takes_end_tokens_from_the_generation_config) {
  write("config.json", {{"model_type", "llama"}});
  write("generation_config.json", {{"eos_token_id", {2, 7}}});
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2, 7}));
  write("generation_config.json", json::object());
  EXPECT_EQ(read().text().eos_token_ids, (std::vector<std::int32_t>{2}));
  write("generation_config.json", {{"eos_token_id", "x"}});
  expect_parts(error_text([&] { read(); }), path_of("generation_config.json") + ": eos_token_id is \"x\"");
}

TEST_F(model_directory, finds_the_image_processor_in_either_file) {
  write("config.json", llava_7b);
  processor["do_pad"] = true;
  write("processor_config.json", {{"image_processor", processor}});
  EXPECT_EQ(read().image.fit, image_fit::pad);
  write("processor_config.json", {{"patch_size", 14}});
  EXPECT_EQ(read().image.fit, image_fit::crop);
  write("preprocessor_config.json", processor);
  EXPECT_EQ(read().image.fit, image_fit::pad);
}

TEST_F(model_directory, prefers_the_image_processor_inside_the_processor) {
  write("config.json", llava_7b);
  write("preprocessor_config.json", processor);
  processor["image_mean"] = {0.5, 0.5, 0.5};
  write("processor_config.json", {{"image_processor", processor}});
  EXPECT_EQ(read().image.mean, (std::array<float, 3>{0.5f, 0.5f, 0.5f}));
}

TEST_F(model_directory, takes_null_in_an_image_processor_for_what_is_absent) {
  write("config.json", llava_7b);
  const auto complete = processor;
  write("preprocessor_config.json", complete);
  const image_fit fit = read().image.fit;
  for (const char* key : {"do_pad", "resample", "rescale_factor", "image_mean", "image_std"}) {
    processor = complete;
    processor[key] = nullptr;
    write("preprocessor_config.json", processor);
    EXPECT_EQ(read().image.fit, fit) << key;
  }
}

TEST_F(model_directory, refuses_an_image_processor_of_another_size) {
  write("config.json", llava_7b);
  processor["crop_size"] = 224;
  write("preprocessor_config.json", processor);
  expect_parts(error_text([&] { read(); }),
               path_of("preprocessor_config.json") + ": crop_size 224 x 224 does not fit", "image_size 336");
}

TEST_F(model_directory, names_the_file_that_is_not_json) {
  write("config.json", llava_7b);
  directory.write("preprocessor_config.json", "{");
  expect_parts(error_text([&] { read(); }), path_of("preprocessor_config.json") + ": not valid JSON");
}

TEST_F(model_directory, ignores_image_processors_of_text_models) {
  write("config.json", {{"model_type", "llama"}});
  directory.write("preprocessor_config.json", "not JSON");
  EXPECT_EQ(read().llava(), nullptr);
}

}  // namespace
