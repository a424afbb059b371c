// SPDX-License-Identifier: Apache-2.0
// Chat templates of public models by the hash of their text: what each renders is known to be what a format
// of ours renders (tools/render_chat_templates.py compares them, and prints these lines).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "corematching/chat/formats.hpp"

namespace corematching::chat {

/// FNV-1a in 64 bits (Fowler, Noll, Vo) of a template as Jinja reads it: every line end is a line feed, and
/// one at the end of the text is none. It tells templates apart, not friends from foes: whoever makes up a
/// template with the hash of another gets the format of the other.
constexpr std::uint64_t template_hash(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  std::uint64_t hash = 0xcbf29ce484222325;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool ends_line = text[i] == '\r';
    if (ends_line && i + 1 < text.size() && text[i + 1] == '\n') ++i;
    hash = (hash ^ static_cast<unsigned char>(ends_line ? '\n' : text[i])) * 0x100000001b3;
  }
  return hash;
}

struct known_template {
  std::uint64_t hash;
  const chat_format* format;
};

// Some come twice: their string literals hold line feeds, or escapes that mean line feeds.
inline constexpr std::array<known_template, 45> known_templates{{
    {0xd9ced1d7141b9c24, &llava_1_5},
    {0x8faea8b67ca929d4, &llava_1_5},
    {0xf344eecf1bd3a427, &llama_2},
    {0x4d1512049817743d, &llama_2},
    {0x74891e390e614ae2, &llama_3},
    {0x60b6f54caafc7e66, &llama_3},
    {0x0e60067a5537498e, &llama_3},
    {0x32844fd43eab01d2, &llama_3},
    {0xcc0368e1ffb6b958, &llama_3_1},
    {0x368f4c34b8554414, &llama_3_2},
    {0x8c734b90b4f8d84d, &mistral_v0},
    {0xc730acc029ce6ee0, &mistral_v0_spaced},
    {0x46eac0bf5c765c47, &mistral_v1},
    {0xd99e5b4469be13b3, &mistral_v1},
    {0x2487e6e79d6345cf, &mistral_v3},
    {0x09eb1999b1fcf65f, &mistral_v3},
    {0x2784b402c2ed128f, &mixtral_8x22b},
    {0xbafc68631b91bf13, &mixtral_8x22b},
    {0x20783e9d94168233, &mistral_v3_tekken},
    {0xc134bf40d6f56d76, &mistral_v3_tekken},
    {0xf1784176fabceb43, &mistral_v3_tekken},
    {0xe4a9cc594604808a, &mistral_v7},
    {0x71e04a49fb8f1f9d, &mistral_v7_tekken},
    {0x773d13e188afc917, &chatml},
    {0x17fde6ecda9c7c01, &chatml},
    {0x88bf4138d5c826f0, &chatml},
    {0xa41d6bae9b9141bc, &chatml},
    {0x89bcbd75ce6a3d28, &chatml_bos},
    {0x3d431dbc3308b134, &chatml_bos},
    {0x52642d07ab0602d8, &chatml_bos},
    {0x852314cd81861fe4, &chatml_bos},
    {0x893e758f2b86d461, &qwen1_5},
    {0x049cd3d51562e165, &qwen1_5},
    {0x16bc91fc7006a16d, &qwen2},
    {0xa11ccfbe40440943, &qwen2},
    {0x8a87094e0e1e24c5, &qwen2},
    {0x75e88977b2787cd7, &qwen2},
    {0xadaa2a0bbac0305f, &qwen2_5},
    {0xe642ce246d7f2e3d, &qwen2_5},
    {0x959a4551391a6549, &qwen3},
    {0x2bfdb7aa9754484e, &qwen3},
    {0x45ec583d4d25bc3a, &smollm2},
    {0x09b5156a5cf6abfc, &smollm2},
    {0xcd8b49000db02c2c, &zephyr},
    {0x0af6ea9cf9896e56, &zephyr},
}};

/// The format that renders what this template renders; null if the template is not among the known ones.
constexpr const chat_format* format_of_known(std::string_view template_text,
                                             std::span<const known_template> among = known_templates) {
  const std::uint64_t hash = template_hash(template_text);
  for (const known_template& known : among)
    if (known.hash == hash) return known.format;
  return nullptr;
}

}  // namespace corematching::chat
