// SPDX-License-Identifier: Apache-2.0
// Where a checkpoint keeps its chat template.
//
// Which of several files wins is transformers' order (5.x, tokenization_utils_base.py and
// processing_utils.py). A model with a processor, as LLaVA: `chat_template` in processor_config.json, then
// chat_template.json, then chat_template.jinja; others begin with the last. Then the tokenizer's,
// `chat_template` in tokenizer_config.json.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "corematching/chat/recognise.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"

namespace corematching::chat {

struct chat_template {
  std::string text{};
  std::string where{};  // for messages
};

namespace detail {

// A list of named templates, of which the one for conversations without tools is called "default".
inline std::string default_of(const io::json& list, const io::json_object& file) {
  std::string names;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const io::json_object entry(list[i], file.file(), "chat_template[" + std::to_string(i) + "]");
    const std::string name = entry.string("name");
    if (name == "default") return entry.string("template");
    names += (names.empty() ? "" : ", ") + io::in_quotes(name);
  }
  file.contradict("chat_template", "none of the templates is called \"default\"; there are ",
                  names.empty() ? "none" : names);
}

// A file that is there and cannot be read is not absent: opening it says why.
inline bool is_absent(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::status(path, ignored).type() == std::filesystem::file_type::not_found;
}

inline std::optional<chat_template> template_in_json(const std::filesystem::path& path) {
  if (is_absent(path)) return std::nullopt;
  const io::mapped_file mapped = io::mapped_file::open(path);
  const io::json document = io::parse_json(mapped.bytes(), path.string());
  const io::json_object file(document, path.string());
  if (!file.has("chat_template")) return std::nullopt;
  const io::json& value = *file.find("chat_template");
  return chat_template{value.is_array() ? default_of(value, file) : file.string("chat_template"),
                       path.string()};
}

inline std::optional<chat_template> template_as_file(const std::filesystem::path& path) {
  if (is_absent(path)) return std::nullopt;
  const io::mapped_file mapped = io::mapped_file::open(path);
  const auto bytes = mapped.bytes();
  return chat_template{{reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string()};
}

}  // namespace detail

/// The chat template inside a GGUF file, if it has one.
inline std::optional<chat_template> template_in_gguf(const std::filesystem::path& path) {
  constexpr std::string_view key = "tokenizer.chat_template";
  const io::gguf_file file = io::gguf_file::open(path);
  if (!file.metadata().has(key)) return std::nullopt;
  return chat_template{std::string(file.metadata().text(key)), path.string()};
}

/// The chat template of the checkpoint in `directory`, or of a GGUF file of that name, if it has one.
/// `has_processor`: whether the model reads pictures too. Throws where a file cannot be read, is not what its
/// name says, or has named templates and no default among them.
inline std::optional<chat_template> find_template(const std::filesystem::path& directory,
                                                  bool has_processor) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(directory, ignored)) return template_in_gguf(directory);
  if (has_processor) {
    for (const char* name : {"processor_config.json", "chat_template.json"})
      if (auto found = detail::template_in_json(directory / name)) return found;
  }
  if (auto found = detail::template_as_file(directory / "chat_template.jinja")) return found;
  return detail::template_in_json(directory / "tokenizer_config.json");
}

/// The format in which the model of `directory` is spoken to. Without a template, LLaVA-1.5 is spoken to as
/// Vicuna, which it was trained on, and other models get text as it is. Throws as `find_template` and
/// `recognise`.
inline chosen_format choose_format(const std::filesystem::path& directory, bool is_llava) {
  const auto found = find_template(directory, is_llava);
  if (found) return recognise(found->text, found->where);
  return {is_llava ? &vicuna : &none};
}

}  // namespace corematching::chat
