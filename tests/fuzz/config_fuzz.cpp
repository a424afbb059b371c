// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as the JSON files of a model directory: accepted or refused with corematching::error, and
// what is accepted keeps the promises that model code relies on.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/model/config.hpp"

namespace {

using corematching::index;

void check(bool holds) {
  if (!holds) std::abort();
}

// A refusal is one line that starts with the name of the file.
template <class Body>
void refuse_or(Body&& body) {
  try {
    body();
  } catch (const corematching::error& refused) {
    const std::string text = refused.what();
    check(text.starts_with("input: ") && text.find('\n') == std::string::npos);
  }
}

bool is_size(index value) {
  return value > 0 && value <= (index{1} << 24);
}

void check_text(const corematching::llama_config& text) {
  for (const index size : {text.vocab_size, text.hidden_size, text.intermediate_size, text.layers, text.heads,
                           text.kv_heads, text.head_dim})
    check(is_size(size));
  check(text.heads % text.kv_heads == 0 && text.head_dim % 2 == 0 && text.rms_norm_eps > 0);
  check(text.max_positions > 0 && text.rope.theta >= 1 && text.rope.factor >= 1);
  check(text.rope.scaling != corematching::rope_scaling::llama3 ||
        (text.rope.high_freq_factor > text.rope.low_freq_factor && text.rope.original_max_positions > 0));
}

void check_llava(const corematching::llava_config& llava) {
  const auto& vision = llava.vision;
  for (const index size : {vision.hidden_size, vision.intermediate_size, vision.layers, vision.heads,
                           vision.head_dim(), vision.patch_size, vision.image_size})
    check(is_size(size));
  check(vision.patches() > 0 && vision.image_size % vision.patch_size == 0);
  check(llava.vision_layers() >= 0 && llava.vision_layers() <= vision.layers);
  check(llava.image_token_index >= 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace corematching;
  const auto bytes = std::as_bytes(std::span(data, size));
  refuse_or([&] {
    const model_config config = parse_model_config(bytes, "input");
    check_text(config.text());
    if (config.llava()) check_llava(*config.llava());
  });
  refuse_or([&] {
    const io::json document = io::parse_json(bytes, "input");
    const auto image = parse_image_processor(io::json_object(document, "input"));
    check(image.resize_shortest_edge > 0 && image.crop_height > 0 && image.crop_width > 0 &&
          image.std[0] > 0);
  });
  return 0;
}
