// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory in a backend's memory: a LLaVA, or a text model alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/llama/streamed_layers.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/reader.hpp"
#include "llava/console.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// The packed file of a model that is looked for without being named.
inline std::filesystem::path default_packed_file(const std::filesystem::path& model, dtype weights) {
  return model / (std::string("corematching-") + name_of(weights) + ".packed");
}

template <backend B>
class loaded_model {
 public:
  using progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  using notice = std::function<void(const std::string&)>;

  /// `config` is that of the directory. `say` hears of packed files.
  loaded_model(B& be, const std::filesystem::path& directory, model_config config, weight_options weights,
               const progress& report, const notice& say)
      : config_(std::move(config)) {
    const auto files = io::checkpoint::open(directory);
    const word_embeddings named = stored_word_embeddings(config_.text(), files);
    config_.text().tie_word_embeddings = named.tied();  // packed files are laid out by it
    if (!named.notice.empty()) say(named.notice);
    const auto packed = find_packed(directory, files, weights, say);
    weight_reader<B> reader(
        be, files, [&](std::uint64_t done) { report(done, files.total_bytes()); }, weights.type);
    require(
        packed || !weights.memory_limit,
        "--memory-limit: needs a packed file of the weights: make one with llava pack, and ask for it with "
        "--weights or --packed");
    llama<B> language =
        packed ? from_packed(be, *packed, weights.memory_limit) : llama<B>(be, config_.text(), reader);
    if (config_.llava() != nullptr) {
      llava_.emplace(be, *config_.llava(), reader, std::move(language));
    } else {
      text_.emplace(std::move(language));
    }
  }

  const model_config& config() const { return config_; }
  /// Null for a text model.
  const llava<B>* multimodal() const { return llava_ ? &*llava_ : nullptr; }
  const llama<B>& language() const { return llava_ ? llava_->language() : *text_; }

 private:
  /// The file that is named, which must fit; otherwise the model's own, if it fits.
  std::optional<packed_file> find_packed(const std::filesystem::path& directory, const io::checkpoint& files,
                                         weight_options& weights, const notice& say) const {
    if (!weights.packed.empty()) {
      if (!weights.type) weights.type = packed_weights(weights.packed);
      return packed_file(weights.packed, config_.text(), *weights.type, checkpoint_identity(files));
    }
    if (!weights.type) return std::nullopt;
    const auto path = default_packed_file(directory, *weights.type);
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return std::nullopt;
    try {
      packed_file found(path, config_.text(), *weights.type, checkpoint_identity(files));
      say(std::string("using ").append(path.string()));
      return found;
    } catch (const error& problem) {
      say(std::string("not used: ").append(problem.what()));
      return std::nullopt;
    }
  }

  llama<B> from_packed(B& be, const packed_file& file, std::optional<std::uint64_t> memory_limit) const {
    if (memory_limit) return streamed_llama(be, config_.text(), file, *memory_limit);
    packed_reader<B> reader(be, file);
    return {be, config_.text(), reader};
  }

  model_config config_;
  std::optional<llava<B>> llava_;
  std::optional<llama<B>> text_;
};

/// The model of a run, whose files `config` describes; the terminal sees how far loading is.
template <backend B>
loaded_model<B> load_model(B& be, const options& o, model_config config, console& terminal) {
  loaded_model<B> model(
      be, o.model, std::move(config), o.weights,
      [&](std::uint64_t done, std::uint64_t total) {
        terminal.progress("loading", static_cast<double>(done), static_cast<double>(total));
      },
      [&](const std::string& text) { terminal.notice(text); });
  terminal.clear();
  return model;
}

/// Bytes of weights that a step of decoding reads outside of feed-forward blocks.
template <backend B>
std::uint64_t bytes_beside_ffn(const llama<B>& language) {
  std::uint64_t bytes = language.head_weight_bytes();
  for (index i = 0; i < language.config().layers; ++i) bytes += language.bytes_of_layer(i).attention;
  return bytes;
}

/// How keys and values of a run are stored beside weights of type `weights`. Rounding them to 16 bits is
/// nothing beside rounding the weights to 8 or 4, and halves the cache. On a device they are stored as the
/// weights are, which is what its matrix units multiply.
template <backend B>
dtype cache_type_of(const options& o, dtype weights) {
  constexpr bool on_device = std::is_same_v<typename B::space, device_space>;
  const dtype exact = on_device ? weights : dtype::f32;
  return o.cache_type.value_or(is_quantised(weights) ? dtype::f16 : exact);
}

}  // namespace corematching::driver
