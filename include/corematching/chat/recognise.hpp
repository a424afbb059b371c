// SPDX-License-Identifier: Apache-2.0
// Which format a chat template stands for: known by its text, or guessed by its markers.
//
// Templates are programs, and are not run here: one that is only guessed may have a default system text, or
// treat a case in a way that the format does not know.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "corematching/chat/formats.hpp"
#include "corematching/chat/known_templates.hpp"
#include "corematching/core/error.hpp"

namespace corematching::chat {

struct chosen_format {
  const chat_format* format = nullptr;
  std::string notice{};  // what was assumed; empty where nothing was
};

namespace detail {

class template_markers {
 public:
  explicit template_markers(std::string_view text) : text_(text) {}

  template <class... Markers>
  bool all(const Markers&... markers) const {
    return (... && (text_.find(markers) != text_.npos));
  }
  template <class... Markers>
  bool any(const Markers&... markers) const {
    return (... || (text_.find(markers) != text_.npos));
  }

 private:
  std::string_view text_;
};

// Phi-4, SmolVLM and Kimi have the same first marker and other turns; some models' answers have to begin with
// a thought. Models after Qwen3 write thoughts as it does, but trim what stands around them.
inline const chat_format* guess_chatml(const template_markers& has) {
  if (!has.all("<|im_end|>") || has.any("<|im_sep|>", "<end_of_utterance>", "<|im_middle|>")) return nullptr;
  if (has.any("assistant\n<think>", "assistant\\n<think>")) return nullptr;
  if (has.all("message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + ",
              "loop.index0 > ns.last_query_index %}", "enable_thinking is false") &&
      !has.any("|trim", "| trim"))
    return &qwen3;
  if (has.any("bos_token")) return &chatml_bos;
  for (const chat_format* format : {&smollm2, &qwen2_5, &qwen2, &qwen1_5})
    if (has.all(std::string(*format->default_system) + "<|im_end|>")) return format;
  return &chatml;
}

// Guards and models that call tools fill the turns with texts of their own.
inline const chat_format* guess_llama_3(const template_markers& has) {
  if (!has.all("'<|start_header_id|>' + message", "<|eot_id|>")) return nullptr;
  if (!has.any("<|end_header_id|>\n\n", "<|end_header_id|>\\n\\n")) return nullptr;
  if (!has.all("Cutting Knowledge Date: December 2023")) return &llama_3;
  return has.any("strftime_now") ? &llama_3_2 : &llama_3_1;
}

// LLaMA 2 and all of Mistral's, which differ in spaces.
inline const chat_format* guess_inst(const template_markers& has) {
  if (!has.all("[/INST]")) return nullptr;
  if (has.all("<<SYS>>"))
    return has.any("bos_token + '[INST] '", "'<s>' + '[INST] '", "'<s>[INST] '") ? &llama_2 : nullptr;
  if (has.all("[SYSTEM_PROMPT]")) return has.all("[SYSTEM_PROMPT] ") ? &mistral_v7 : &mistral_v7_tekken;
  if (has.all(" [INST] ")) return &mistral_v1;
  if (has.any("'[INST]'", "\"[INST]\"")) return &mistral_v3_tekken;
  if (!has.any("'[INST] '", "\"[INST] \"")) return nullptr;
  if (has.any("'[/INST]'", "\"[/INST]\"")) return has.all("|trim") ? &mistral_v3 : &mixtral_8x22b;
  if (!has.all("' [/INST]'")) return nullptr;
  return has.all("eos_token + ' '") ? &mistral_v0_spaced : &mistral_v0;
}

// Phi-3 and others end their turns otherwise; Tulu's questions end with a line feed alone.
inline const chat_format* guess_zephyr(const template_markers& has) {
  const bool ends = has.any("'<|user|>\n' + message['content'] + eos_token",
                            "'<|user|>\\n' + message['content'] + eos_token");
  return ends && has.all("<|system|>", "<|assistant|>") ? &zephyr : nullptr;
}

// Variants put line feeds between their turns, or a name in front of the system text.
inline const chat_format* guess_vicuna(const template_markers& has) {
  if (has.all("'ASSISTANT:'", "<image>") &&
      has.any("message['role'].upper() + ': '", "message['role'] | upper + ': '"))
    return &llava_1_5;
  const bool lines = has.any("+ '\n'", "+ '\\n'", "</s>\n", "</s>\\n", "SYSTEM: ");
  return has.all("'USER: '", "'ASSISTANT: '") && has.any("eos_token", "</s>") && !lines ? &vicuna : nullptr;
}

inline const chat_format* guess_format(std::string_view text) {
  const template_markers has(text);
  if (has.all("<|im_start|>")) return guess_chatml(has);
  if (has.all("<|start_header_id|>")) return guess_llama_3(has);
  if (has.all("[INST]")) return guess_inst(has);
  if (has.all("<|user|>")) return guess_zephyr(has);
  return has.all("ASSISTANT:") ? guess_vicuna(has) : nullptr;
}

}  // namespace detail

/// The format of a chat template; `where` is where it was found, for messages. Silent where the template is
/// known, with a notice where it was guessed. Throws, with the names that there are, where neither helps.
inline chosen_format recognise(std::string_view template_text, const std::string& where,
                               std::span<const known_template> among = known_templates) {
  if (const chat_format* known = format_of_known(template_text, among)) return {known};
  const chat_format* guessed = detail::guess_format(template_text);
  if (guessed == nullptr)
    fail(where, ": the chat template is of no format that is known; --chat-template takes one of ",
         format_names());
  return {
      guessed,
      where + ": the chat template is not known; by its markers it is taken for " +
          std::string(guessed->name) +
          ", without what else it may have, such as a default system text (--chat-template names another)"};
}

}  // namespace corematching::chat
