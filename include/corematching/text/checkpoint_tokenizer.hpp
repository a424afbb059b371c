// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a checkpoint. Of several files it is the one that transformers takes: tokenizer.json,
// which its fast tokenizers read as it stands, before tokenizer.model. What tokenizer_config.json says of
// classes (tokenizer_class, use_fast, legacy) does not count then: all that it could change is written out in
// tokenizer.json. Source: https://github.com/huggingface/transformers (tokenization_utils_base.py,
// models/auto/tokenization_auto.py).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/text/gguf_tokenizer.hpp"
#include "corematching/text/tokenizer.hpp"
#include "corematching/text/tokenizer_json.hpp"

namespace corematching::text {

/// Opens the tokenizer.model of a directory: `sentencepiece_tokenizer::open`, for who links SentencePiece.
using tokenizer_model_opener = std::unique_ptr<tokenizer> (*)(const std::filesystem::path& directory);

namespace detail {

/// tokenizer_config.json, with the special tokens of special_tokens_map.json where it names none itself.
inline std::optional<io::json> read_tokenizer_config(const std::filesystem::path& directory) {
  std::optional<io::json> config = io::read_optional_json(directory / "tokenizer_config.json");
  const std::optional<io::json> names = io::read_optional_json(directory / "special_tokens_map.json");
  if (!names || !names->is_object()) return config;
  if (!config) config = io::json::object();
  if (!config->is_object()) return config;  // refused by whoever reads it
  for (const char* key : {"bos_token", "eos_token"})
    if (names->contains(key) && (!config->contains(key) || (*config)[key].is_null()))
      (*config)[key] = (*names)[key];
  return config;
}

inline std::unique_ptr<tokenizer> open_tokenizer_json(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  const io::json document = io::parse_json(io::mapped_file::open(path).bytes(), path.string());
  const std::optional<io::json> config = read_tokenizer_config(directory);
  if (!config) return read_tokenizer_json({document, path.string()}, nullptr);
  const named_json named{*config, (directory / "tokenizer_config.json").string()};
  return read_tokenizer_json({document, path.string()}, &named);
}

}  // namespace detail

/// The tokenizer of a directory in Hugging Face's layout, or of a GGUF file; null where there is none.
/// Throws `error` naming the file that cannot be read, also a tokenizer.model where `open_model` is null.
inline std::unique_ptr<tokenizer> open_tokenizer(const std::filesystem::path& checkpoint,
                                                 tokenizer_model_opener open_model = nullptr) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(checkpoint, ignored)) {
    const io::gguf_file file = io::gguf_file::open(checkpoint);
    return file.metadata().has("tokenizer.ggml.model") ? read_gguf_tokenizer(file.metadata()) : nullptr;
  }
  if (std::filesystem::exists(checkpoint / "tokenizer.json", ignored))
    return detail::open_tokenizer_json(checkpoint);
  const std::filesystem::path model = checkpoint / "tokenizer.model";
  if (!std::filesystem::exists(model, ignored)) return nullptr;
  require(open_model != nullptr, model.string(),
          ": needs SentencePiece, which this program was built without");
  return open_model(checkpoint);
}

}  // namespace corematching::text
