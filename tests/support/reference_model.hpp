// SPDX-License-Identifier: Apache-2.0
// The checkpoints of tests/reference/data, loaded for runs that are compared with the stored ones.
#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "llava/picture_file.hpp"
#include "support/paths.hpp"
#include "support/reference_run.hpp"
#include "support/test_backend.hpp"

namespace corematching::test {

/// ‖a − b‖ / ‖b‖
inline double relative_distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

/// Where the model of a case lies.
inline std::filesystem::path model_directory(const std::string& name) {
  return name == "demo" ? support::source_directory() / "models/demo" : reference_directory(name);
}

/// One model, read once for all of its runs.
struct reference_model {
  using B = support::test_backend;

  /// Weights as `wanted`, or as they are stored. read_language(be, config, reader) makes the language model.
  template <class ReadLanguage>
  reference_model(const std::filesystem::path& directory, std::optional<dtype> wanted,
                  ReadLanguage read_language)
      : be(support::make_backend<B>(2)), config(read_model_config(directory)) {
    const auto files = io::checkpoint::open(directory);
    weight_reader<B> reader(be, files, {}, wanted);
    llama<B> read = read_language(be, config.text(), reader);
    if (config.llava() != nullptr) {
      multimodal.emplace(be, *config.llava(), reader, std::move(read));
    } else {
      text.emplace(std::move(read));
    }
  }
  /// A backend that would round tokens to 16-bit weights gets them widened, so that one tolerance holds.
  static std::optional<dtype> exact_type() {
    constexpr bool rounds = support::exact_tokens < std::numeric_limits<std::ptrdiff_t>::max();
    return rounds ? std::optional(dtype::f32) : std::nullopt;
  }
  explicit reference_model(const std::filesystem::path& directory, std::optional<dtype> wanted = exact_type())
      : reference_model(directory, wanted, [](B& backend, const llama_config& c, weight_reader<B>& reader) {
          return llama<B>(backend, c, reader);
        }) {}

  const llama<B>& language() const { return multimodal ? multimodal->language() : *text; }

  /// The picture of a run, as the vision tower wants it.
  std::vector<float> pixels(const reference_run& run) const {
    image_processor_options options = config.image;
    options.fit = run.pads() ? image_fit::pad : image_fit::crop;
    return image_processor(options)(driver::read_picture(run.picture()));
  }

  /// The prompt of a run with its image tokens expanded.
  multimodal_prompt prompt(const reference_run& run) const {
    const auto* described = config.llava();
    return expand_images(run.prompt_ids(), described ? described->image_token_index : -1,
                         described ? described->image_tokens() : 0);
  }

  B be;
  model_config config;
  std::optional<llava<B>> multimodal;
  std::optional<llama<B>> text;
};

}  // namespace corematching::test
