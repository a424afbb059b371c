// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory in a backend's memory: a LLaVA, or a text model alone; or a text model of a GGUF
// file, and with another, an mmproj file, a LLaVA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "corematching/io/gguf_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/gguf/mmproj_reader.hpp"
#include "corematching/model/gguf/reader.hpp"
#include "corematching/model/llama/streamed_layers.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/gguf_layout.hpp"
#include "corematching/model/packed/identity.hpp"
#include "corematching/model/packed/reader.hpp"
#include "llava/console.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// The packed file of a model that is looked for without being named: in its directory, or beside a GGUF
/// file, of which weights may also be packed as they are stored.
inline std::filesystem::path default_packed_file(const std::filesystem::path& model,
                                                 std::optional<dtype> weights) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(model, ignored))
    return model / (std::string("corematching-") + packed_weights_name(weights) + ".packed");
  const std::string type = weights ? std::string("-") + name_of(*weights) : std::string();
  return model.string() + type + ".packed";
}

/// Throws `error` for weights that only GGUF files hold where the model is none.
inline void check_weights_of_directory(const std::filesystem::path& directory, std::optional<dtype> weights) {
  require(!weights || std::ranges::count(split_types, *weights) == 0,
          "--weights: ", weights ? name_of(*weights) : "", " are split from those of a GGUF file, which ",
          directory.string(), " is not");
}

template <backend B>
class loaded_model {
 public:
  using progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  using notice = std::function<void(const std::string&)>;

  /// `config` is that of the directory or file, and of `mmproj` unless that is empty. `say` hears of packed
  /// files.
  loaded_model(B& be, const std::filesystem::path& model, const std::filesystem::path& mmproj,
               model_config config, const weight_options& weights, const progress& report, const notice& say)
      : config_(std::move(config)) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(model, ignored))
      read_gguf(be, model, mmproj, weights, report, say);
    else
      read_directory(be, model, weights, report, say);
  }

  const model_config& config() const { return config_; }
  /// Null for a text model.
  const llava<B>* multimodal() const { return llava_ ? &*llava_ : nullptr; }
  const llama<B>& language() const { return llava_ ? llava_->language() : *text_; }

 private:
  void read_gguf(B& be, const std::filesystem::path& path, const std::filesystem::path& mmproj,
                 weight_options weights, const progress& report, const notice& say) {
    const auto file = io::gguf_file::open(path);
    const auto packed = find_packed(
        path, [&](std::optional<dtype> type) { return gguf_layout(file, config_.text(), type); },
        [&] { return gguf_identity(file); }, weights, say);
    check_memory_limit(packed, weights);
    std::optional<io::gguf_file> seen;
    if (!mmproj.empty()) seen.emplace(io::gguf_file::open(mmproj));
    const std::uint64_t before = packed ? 0 : file.total_bytes();
    const std::uint64_t total = before + (seen ? seen->total_bytes() : 0);
    llama<B> language =
        packed ? from_packed(be, *packed, weights.memory_limit)
               : from_gguf(be, file, weights.type, [&](std::uint64_t done) { report(done, total); });
    if (!seen) {
      text_.emplace(std::move(language));
      return;
    }
    mmproj_reader<B> reader(
        be, *seen, threads_of(be), [&](std::uint64_t done) { report(before + done, total); }, weights.type);
    llava_.emplace(be, *config_.llava(), reader, std::move(language));
  }

  llama<B> from_gguf(B& be, const io::gguf_file& file, std::optional<dtype> type,
                     load_progress report) const {
    gguf_reader<B> reader(be, file, config_.text(), threads_of(be), std::move(report), type);
    return {be, config_.text(), reader};
  }

  void read_directory(B& be, const std::filesystem::path& directory, weight_options weights,
                      const progress& report, const notice& say) {
    check_weights_of_directory(directory, weights.type);
    const auto files = io::checkpoint::open(directory);
    const word_embeddings named = stored_word_embeddings(config_.text(), files);
    config_.text().tie_word_embeddings = named.tied();  // packed files are laid out by it
    if (!named.notice.empty()) say(named.notice);
    const auto packed = find_packed(
        directory,
        [&](std::optional<dtype> type) {
          require(type.has_value(), weights.packed.string(), ": is a packed file of a GGUF file");
          return packed_layout(config_.text(), *type);
        },
        [&] { return checkpoint_identity(files); }, weights, say);
    check_memory_limit(packed, weights);
    weight_reader<B> reader(
        be, files, [&](std::uint64_t done) { report(done, files.total_bytes()); }, weights.type);
    llama<B> language =
        packed ? from_packed(be, *packed, weights.memory_limit) : llama<B>(be, config_.text(), reader);
    if (config_.llava() != nullptr) {
      llava_.emplace(be, *config_.llava(), reader, std::move(language));
    } else {
      text_.emplace(std::move(language));
    }
  }

  static int threads_of(B& be) {
    const int threads = be.describe().threads;
    return threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
  }

  static void check_memory_limit(const std::optional<packed_file>& packed, const weight_options& weights) {
    if (!weights.memory_limit) return;
    require(packed.has_value(), "--memory-limit: needs a packed file of the weights, of a GGUF file of ",
            "converted ones: make one with llava pack --weights, as q8_0, and ask for it with --weights or ",
            "--packed");
    const auto shares = [](const packed_tensor& t) { return shares_scales(t.type); };
    require(std::ranges::none_of(packed->layout().tensors(), shares),
            "--memory-limit: reads neurons one by one, and those of ", packed->path().string(),
            " share scales, as those of a GGUF file do where they are not converted: pack it with ",
            "--weights f16, q8_0 or q4_0");
  }

  /// The file that is named, which must fit; otherwise the model's own, if it fits. layout(type) and
  /// identity() are those of the model; of a directory weights are not packed without a type.
  template <class Layout, class Identity>
  std::optional<packed_file> find_packed(const std::filesystem::path& model, const Layout& layout,
                                         const Identity& identity, weight_options& weights,
                                         const notice& say) const {
    std::error_code ignored;
    if (!weights.packed.empty()) {
      if (!weights.type) weights.type = packed_weights(weights.packed);
      return packed_file(weights.packed, layout(weights.type), weights.type, identity());
    }
    const auto path = default_packed_file(model, weights.type);
    if (!std::filesystem::exists(path, ignored)) return std::nullopt;
    try {
      packed_file found(path, layout(weights.type), weights.type, identity());
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
      be, o.model, o.mmproj, std::move(config), o.weights,
      [&](std::uint64_t done, std::uint64_t total) {
        terminal.progress("loading", static_cast<double>(done), static_cast<double>(total));
      },
      [&](const std::string& text) { terminal.notice_once(text); });
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
