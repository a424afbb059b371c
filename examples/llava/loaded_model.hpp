// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory in a backend's memory: a LLaVA, or a text model alone.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <utility>

#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/llava.hpp"

namespace corematching::driver {

template <backend B>
class loaded_model {
 public:
  using progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

  /// `config` is that of the directory.
  loaded_model(B& be, const std::filesystem::path& directory, model_config config, const progress& report)
      : config_(std::move(config)) {
    const auto files = io::checkpoint::open(directory);
    weight_reader<B> reader(be, files, [&](std::uint64_t done) { report(done, files.total_bytes()); });
    if (config_.llava() != nullptr) {
      llava_.emplace(be, *config_.llava(), reader);
    } else {
      text_.emplace(be, config_.text(), reader);
    }
  }

  const model_config& config() const { return config_; }
  /// Null for a text model.
  const llava<B>* multimodal() const { return llava_ ? &*llava_ : nullptr; }
  const llama<B>& language() const { return llava_ ? llava_->language() : *text_; }

 private:
  model_config config_;
  std::optional<llava<B>> llava_;
  std::optional<llama<B>> text_;
};

}  // namespace corematching::driver
