// SPDX-License-Identifier: Apache-2.0
// What the JSON files of a model directory say: config.json, generation_config.json and
// preprocessor_config.json (processor_config.json in newer checkpoints).
// Source: transformers, configuration_utils.py, generation/configuration_utils.py,
// models/clip/image_processing_clip.py, models/llava/image_processing_llava.py.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <variant>

#include "corematching/core/compiled_once.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/json_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/model/gguf/config.hpp"
#include "corematching/model/gguf/mmproj_tensors.hpp"
#include "corematching/model/llama/config.hpp"
#include "corematching/model/llava/config.hpp"
#include "corematching/model/picture/image_processor.hpp"

namespace corematching {

/// A model directory: a LLaVA, or a text model alone.
struct model_config {
  std::variant<llama_config, llava_config> model;
  image_processor_options image;  // of no use without a vision tower

  /// Null for a text model.
  const llava_config* llava() const { return std::get_if<llava_config>(&model); }
  const llama_config& text() const { return llava() ? llava()->text : std::get<llama_config>(model); }
  llama_config& text() {
    auto* llava = std::get_if<llava_config>(&model);
    return llava ? llava->text : std::get<llama_config>(model);
  }
};

namespace detail {

// {"shortest_edge": n} or n.
inline int read_shortest_edge(const io::json_object& fields) {
  if (!fields.has("size")) return 224;
  if (!fields.find("size")->is_object()) return static_cast<int>(fields.integer("size", 1, max_picture));
  const auto edges = fields.object("size");
  if (edges.has("longest_edge")) edges.refuse("longest_edge", "none: only the shortest edge is made to fit");
  // Exact sizes distort pictures; no LLaVA-1.5 does that.
  return static_cast<int>(edges.integer("shortest_edge", 1, max_picture));
}

// {"height": n, "width": m} or n.
inline std::pair<int, int> read_crop_size(const io::json_object& fields) {
  if (!fields.has("crop_size")) return {224, 224};
  if (!fields.find("crop_size")->is_object()) {
    const int side = static_cast<int>(fields.integer("crop_size", 1, max_picture));
    return {side, side};
  }
  const auto sides = fields.object("crop_size");
  return {static_cast<int>(sides.integer("height", 1, max_picture)),
          static_cast<int>(sides.integer("width", 1, max_picture))};
}

inline void read_channels(const io::json_object& fields, std::string_view key, double least,
                          std::array<float, 3>& channels) {
  if (!fields.has(key)) return;
  const auto values = fields.numbers(key, least, 1e3, channels.size());
  for (std::size_t i = 0; i < channels.size(); ++i) channels[i] = static_cast<float>(values[i]);
}

// The original code decides in config.json what becomes of pictures that are not square.
inline image_fit original_fit(const io::json_object& fields) {
  const std::string ratio = fields.string_or("image_aspect_ratio", "square");
  if (ratio == "pad") return image_fit::pad;
  if (ratio != "square") fields.refuse("image_aspect_ratio", "pad or square");
  return image_fit::crop;
}

// LLaVA's image processor pads; a file of CLIP's may say so, too, but that one does not. Others cut pictures
// into tiles, or scale them otherwise.
inline bool pads(const io::json_object& fields) {
  const std::string type = fields.string_or("image_processor_type", "LlavaImageProcessor");
  const bool of_clip = type.starts_with("CLIP");
  if (!of_clip && !type.starts_with("LlavaImageProcessor"))
    fields.refuse("image_processor_type", "CLIPImageProcessor or LlavaImageProcessor");
  return !of_clip && fields.boolean_or("do_pad", false);
}

inline void check_crop(const std::string& file, const image_processor_options& image,
                       const clip_vision_config& vision) {
  require(image.crop_height == vision.image_size && image.crop_width == vision.image_size, file,
          ": crop_size ", image.crop_height, " x ", image.crop_width,
          " does not fit the vision tower's image_size ", vision.image_size);
}

}  // namespace detail

/// Reads the options of a CLIP or LLaVA image processor; absent keys are those of transformers'
/// CLIPImageProcessor. Throws `error` naming file and key for steps that are switched off, as null does, and
/// for resampling other than bicubic.
inline image_processor_options parse_image_processor(const io::json_object& fields) {
  constexpr int bicubic = 3;  // PIL.Image.Resampling.BICUBIC
  for (const char* step : {"do_resize", "do_center_crop", "do_rescale", "do_normalize"})
    if (const auto* on = fields.find(step);
        on != nullptr && (on->is_null() || !fields.boolean_or(step, true)))
      fields.refuse(step, "true");
  if (fields.integer_or("resample", bicubic, 0, 5) != bicubic) fields.refuse("resample", "3 (bicubic)");
  image_processor_options options;
  options.resize_shortest_edge = detail::read_shortest_edge(fields);
  std::tie(options.crop_height, options.crop_width) = detail::read_crop_size(fields);
  options.rescale = fields.number_or("rescale_factor", options.rescale, 1e-9, 1e3);
  detail::read_channels(fields, "image_mean", -1e3, options.mean);
  detail::read_channels(fields, "image_std", 1e-6, options.std);
  options.fit = detail::pads(fields) ? image_fit::pad : image_fit::crop;
  return options;
}

/// Reads a config.json held in memory; the image options are those that go with the vision tower.
/// Throws `error` naming file and key.
inline model_config parse_model_config(std::span<const std::byte> text, const std::string& file) {
  const io::json document = io::parse_json(text, file);
  const io::json_object fields(document, file);
  const std::string type = fields.string("model_type");
  const bool original = fields.find("mm_vision_tower") != nullptr;
  if (!original && type != "llava") {
    if (!is_llama_model_type(type))
      fields.refuse("model_type", std::string("llava, ").append(llama_model_types));
    return {parse_llama_config(fields, type), {}};
  }
  // The releases of the original code disagree about the name.
  if (type != "llava" && type != "llava_llama") fields.refuse("model_type", "llava or llava_llama");
  const llava_config llava = original ? parse_original_llava_config(fields) : parse_llava_config(fields);
  image_processor_options image;
  image.resize_shortest_edge = image.crop_height = image.crop_width =
      static_cast<int>(llava.vision.image_size);
  if (original) image.fit = detail::original_fit(fields);
  return {llava, image};
}

namespace detail {

// Since transformers 5 a processor's files may be one, with the image processor inside; that one counts,
// where an older file is still beside it.
inline void read_image_processor(const std::filesystem::path& directory, const clip_vision_config& vision,
                                 image_processor_options& image) {
  const auto whole = directory / "processor_config.json", part = directory / "preprocessor_config.json";
  if (const auto document = io::read_optional_json(whole)) {
    const io::json_object processor(*document, whole.string());
    if (processor.has("image_processor")) {
      image = parse_image_processor(processor.object("image_processor"));
      return check_crop(whole.string(), image, vision);
    }
  }
  if (const auto document = io::read_optional_json(part)) {
    image = parse_image_processor(io::json_object(*document, part.string()));
    check_crop(part.string(), image, vision);
  }
}

/// Throws `error` for what does not exist, and for a directory that holds GGUF files and no checkpoint: one
/// of them is to be named.
inline void refuse_what_is_no_checkpoint(const std::filesystem::path& directory) {
  std::error_code ignored;
  require(std::filesystem::exists(directory, ignored), directory.string(),
          ": is neither a model's directory nor a GGUF file: there is nothing of this name");
  if (std::filesystem::exists(directory / "config.json", ignored)) return;
  std::filesystem::path first;
  for (const auto& file : std::filesystem::directory_iterator(directory, ignored))
    if (file.path().extension() == ".gguf" && (first.empty() || file.path() < first)) first = file.path();
  require(first.empty(), directory.string(), ": has no config.json; a GGUF file is named itself, as ",
          first.string());
}

}  // namespace detail

/// Reads the JSON files of a model directory, or the metadata of a GGUF file. Throws `error` naming file and
/// key.
template <class = compiled_once>
model_config read_model_config(const std::filesystem::path& directory) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(directory, ignored))
    return {read_gguf_config(io::gguf_file::open(directory)), {}};
  detail::refuse_what_is_no_checkpoint(directory);
  const auto path = directory / "config.json";
  model_config config = parse_model_config(io::mapped_file::open(path).bytes(), path.string());
  if (config.llava()) detail::read_image_processor(directory, config.llava()->vision, config.image);
  // What ends generation is generation_config.json's to say, where there is one.
  const auto generation = directory / "generation_config.json";
  if (const auto document = io::read_optional_json(generation)) {
    const io::json_object fields(*document, generation.string());
    if (fields.has("eos_token_id"))
      config.text().eos_token_ids = detail::read_token_ids(fields, "eos_token_id");
  }
  return config;
}

namespace detail {

/// The id that stands for a picture in prompts: the token that is called so or, where the vocabulary has
/// none, as Vicuna's, the first id behind it.
inline std::int32_t gguf_image_token(const io::gguf_metadata& metadata, index vocabulary) {
  constexpr std::string_view key = "tokenizer.ggml.tokens";
  if (!metadata.has(key)) return static_cast<std::int32_t>(vocabulary);
  const auto& tokens = metadata.texts(key);
  const auto found = std::ranges::find(tokens, "<image>");
  return static_cast<std::int32_t>(found == tokens.end() ? vocabulary : found - tokens.begin());
}

}  // namespace detail

/// The decoder of one GGUF file with the tower and the projector of another.
/// Throws `error` where they do not fit together.
inline model_config join_mmproj(const io::gguf_file& file, const io::gguf_file& with) {
  llava_config config;
  config.text = read_gguf_config(file);
  const mmproj_config seen = read_whole_mmproj_config(with);
  require(seen.token_size == config.text.hidden_size, with.path().string(), ": makes image tokens of ",
          seen.token_size, " elements, but the hidden size of ", file.path().string(), " is ",
          config.text.hidden_size);
  config.vision = seen.vision;
  config.vision_feature_layer = seen.layers;
  config.projector_bias = seen.projector_bias;
  config.image_token_index = detail::gguf_image_token(file.metadata(), config.text.vocab_size);
  return {config, seen.image};
}

/// The same as read_model_config(model) where `mmproj` is empty; otherwise of a GGUF file, whose decoder sees
/// through the tower and the projector of the GGUF file `mmproj`.
template <class = compiled_once>
model_config read_model_config(const std::filesystem::path& model, const std::filesystem::path& mmproj) {
  if (mmproj.empty()) return read_model_config(model);
  std::error_code ignored;
  require(std::filesystem::is_regular_file(model, ignored), mmproj.string(),
          ": an mmproj file goes beside a GGUF file, which ", model.string(), " is not");
  return join_mmproj(io::gguf_file::open(model), io::gguf_file::open(mmproj));
}

}  // namespace corematching
