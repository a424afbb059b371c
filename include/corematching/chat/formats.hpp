// SPDX-License-Identifier: Apache-2.0
// The chat formats: each one what the template of a public model renders, which tests hold it to. The
// comment names the model whose repository holds the template.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "corematching/chat/format.hpp"
#include "corematching/core/error.hpp"

namespace corematching::chat {

// llava-hf/llava-1.5-7b-hf. Its template writes no first token; its processor adds one.
inline constexpr chat_format llava_1_5{.name = "llava-1.5",
                                       .begin = "{prefix}",
                                       .user = {"USER: ", ""},
                                       .assistant = {"ASSISTANT: ", ""},
                                       .prompt = "ASSISTANT:",
                                       .end = "{eos}",
                                       .after_text = " "};

// lmsys/vicuna-7b-v1.5, which has no template; FastChat's conversation `vicuna_v1.1`, and the `vicuna_v1` of
// LLaVA's own code, without their system sentences.
inline constexpr chat_format vicuna{.name = "vicuna",
                                    .begin = "{prefix}",
                                    .system = {"", " "},
                                    .user = {"USER: ", " "},
                                    .assistant = {"ASSISTANT: ", "{eos}"},
                                    .prompt = "ASSISTANT:",
                                    .end = "{eos}",
                                    .system_in = system_place::first_turn};

// meta-llama/Llama-2-7b-chat-hf
inline constexpr chat_format llama_2{.name = "llama-2",
                                     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
                                     .user = {"{bos}[INST] ", " [/INST]"},
                                     .assistant = {" ", " {eos}"},
                                     .end = "{eos}",
                                     .system_in = system_place::first_question,
                                     .trims = {.user = true, .assistant = true},
                                     .alternates = true};

// meta-llama/Meta-Llama-3-8B-Instruct
inline constexpr chat_format llama_3{
    .name = "llama-3",
    .begin = "{bos}",
    .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
    .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
    .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
    .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",
    .end = "<|eot_id|>",
    .trims = {.system = true, .user = true, .assistant = true},
    .other_ends = {"<|end_of_text|>", "<|eom_id|>"}};

namespace detail {

constexpr chat_format named(chat_format format, std::string_view name) {
  format.name = name;
  return format;
}

// A system text with a preamble, which stands there without a text too.
constexpr chat_format with_preamble(chat_format format, std::string_view name, std::string_view preamble) {
  format.default_system = "";
  format.system_preamble = preamble;
  return named(format, name);
}

constexpr chat_format with_default_system(chat_format format, std::string_view name, std::string_view text) {
  format.default_system = text;
  return named(format, name);
}

constexpr chat_format with_bos(chat_format format, std::string_view name) {
  format.begin = "{bos}";
  return named(format, name);
}

constexpr chat_format with_trimmed_answers(chat_format format, std::string_view name) {
  format.trims.assistant = true;
  return named(format, name);
}

constexpr chat_format with_thoughts(chat_format format, std::string_view name, thought_markup thought) {
  format.thought = thought;
  return named(format, name);
}

// Mistral's formats before the seventh, which differ in spaces and in where the system text goes.
constexpr chat_format mistral(std::string_view name, turn_markup user, turn_markup assistant,
                              system_place system_in) {
  return {.name = name,
          .begin = "{bos}",
          .system = {"", "\n\n"},
          .user = user,
          .assistant = assistant,
          .end = "{eos}",
          .system_in = system_in,
          .alternates = true};
}

}  // namespace detail

// meta-llama/Llama-3.1-8B-Instruct, meta-llama/Llama-3.3-70B-Instruct: the date is part of the template.
inline constexpr chat_format llama_3_1 = detail::with_preamble(
    llama_3, "llama-3.1", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");

// meta-llama/Llama-3.2-3B-Instruct
inline constexpr chat_format llama_3_2 = detail::with_preamble(
    llama_3, "llama-3.2", "Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n");

// mistralai/Mixtral-8x7B-Instruct-v0.1, in its first revisions; mistralai/Mistral-7B-Instruct-v0.2 likewise
inline constexpr chat_format mistral_v0 =
    detail::mistral("mistral-v0", {"[INST] ", " [/INST]"}, {"", "{eos}"}, system_place::nowhere);

// mistralai/Mistral-7B-Instruct-v0.1, in its first revisions
inline constexpr chat_format mistral_v0_spaced =
    detail::mistral("mistral-v0-spaced", {"[INST] ", " [/INST]"}, {"", "{eos} "}, system_place::nowhere);

// mistralai/Mixtral-8x7B-Instruct-v0.1
inline constexpr chat_format mistral_v1 =
    detail::mistral("mistral-v1", {" [INST] ", " [/INST]"}, {" ", "{eos}"}, system_place::first_question);

// mistralai/Mixtral-8x22B-Instruct-v0.1
inline constexpr chat_format mixtral_8x22b =
    detail::mistral("mixtral-8x22b", {"[INST] ", "[/INST]"}, {" ", "{eos}"}, system_place::last_question);

// mistralai/Mistral-7B-Instruct-v0.3
inline constexpr chat_format mistral_v3 = detail::with_trimmed_answers(mixtral_8x22b, "mistral-v3");

// mistralai/Mistral-Nemo-Instruct-2407
inline constexpr chat_format mistral_v3_tekken =
    detail::mistral("mistral-v3-tekken", {"[INST]", "[/INST]"}, {"", "{eos}"}, system_place::last_question);

// mistralai/Mistral-Large-Instruct-2411
inline constexpr chat_format mistral_v7{.name = "mistral-v7",
                                        .begin = "{bos}",
                                        .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
                                        .user = {"[INST] ", "[/INST]"},
                                        .assistant = {" ", "{eos}"},
                                        .end = "{eos}"};

// mistralai/Mistral-Small-24B-Instruct-2501, without the system text that its own template assumes
inline constexpr chat_format mistral_v7_tekken{.name = "mistral-v7-tekken",
                                               .begin = "{bos}",
                                               .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
                                               .user = {"[INST]", "[/INST]"},
                                               .assistant = {"", "{eos}"},
                                               .end = "{eos}"};

// teknium/OpenHermes-2.5-Mistral-7B
inline constexpr chat_format chatml{.name = "chatml",
                                    .system = {"<|im_start|>system\n", "<|im_end|>\n"},
                                    .user = {"<|im_start|>user\n", "<|im_end|>\n"},
                                    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
                                    .prompt = "<|im_start|>assistant\n",
                                    .end = "<|im_end|>",
                                    .other_ends = {"<|endoftext|>"}};

// NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO, internlm/internlm2-chat-1_8b
inline constexpr chat_format chatml_bos = detail::with_bos(chatml, "chatml-bos");

// Qwen/Qwen1.5-0.5B-Chat
inline constexpr chat_format qwen1_5 =
    detail::with_default_system(chatml, "qwen1.5", "You are a helpful assistant");

// Qwen/Qwen2-0.5B-Instruct
inline constexpr chat_format qwen2 =
    detail::with_default_system(chatml, "qwen2", "You are a helpful assistant.");

// Qwen/Qwen2.5-7B-Instruct
inline constexpr chat_format qwen2_5 = detail::with_default_system(
    chatml, "qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");

// Qwen/Qwen3-0.6B, where the model is let think
inline constexpr chat_format qwen3 = detail::with_thoughts(chatml, "qwen3", {"<think>", "</think>"});

// HuggingFaceTB/SmolLM2-135M-Instruct
inline constexpr chat_format smollm2 = detail::with_default_system(
    chatml, "smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face");

// HuggingFaceH4/zephyr-7b-beta, TinyLlama/TinyLlama-1.1B-Chat-v1.0
inline constexpr chat_format zephyr{.name = "zephyr",
                                    .system = {"<|system|>\n", "{eos}\n"},
                                    .user = {"<|user|>\n", "{eos}\n"},
                                    .assistant = {"<|assistant|>\n", "{eos}\n"},
                                    .prompt = "<|assistant|>\n",
                                    .end = "{eos}"};

// Whatever was not trained to chat: texts one after the other.
inline constexpr chat_format none{.name = "none",
                                  .begin = "{prefix}",
                                  .system = {"", " "},
                                  .end = "{eos}",
                                  .system_in = system_place::first_turn};

inline constexpr std::array<const chat_format*, 23> formats{&llava_1_5,     &vicuna,
                                                            &llama_2,       &llama_3,
                                                            &llama_3_1,     &llama_3_2,
                                                            &mistral_v0,    &mistral_v0_spaced,
                                                            &mistral_v1,    &mistral_v3,
                                                            &mixtral_8x22b, &mistral_v3_tekken,
                                                            &mistral_v7,    &mistral_v7_tekken,
                                                            &chatml,        &chatml_bos,
                                                            &qwen1_5,       &qwen2,
                                                            &qwen2_5,       &qwen3,
                                                            &smollm2,       &zephyr,
                                                            &none};

/// The names of all formats, for messages: "llava-1.5, vicuna, ..., none".
inline std::string format_names() {
  std::string names;
  for (const chat_format* format : formats) names += (names.empty() ? "" : ", ") + std::string(format->name);
  return names;
}

/// The format of that name. Throws, with the list of names, if there is none.
inline const chat_format& format_of(std::string_view name) {
  for (const chat_format* format : formats)
    if (format->name == name) return *format;
  fail("there is no chat format '", name, "'; there are ", format_names());
}

}  // namespace corematching::chat
