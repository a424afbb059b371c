// SPDX-License-Identifier: Apache-2.0
#include "llava/request.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/checkpoint_tokenizer.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"
#include "llava/option_checks.hpp"
#include "llava/picture_file.hpp"
#include "llava/prompt.hpp"

namespace corematching::driver {
namespace {

std::int32_t image_token_of(const model_config& config) {
  return config.llava() != nullptr ? config.llava()->image_token_index : -1;
}

/// The ids that the options ask for; the image token stands for the picture.
std::vector<std::int32_t> asked_ids(const options& o, const request& r) {
  if (!o.prompt_ids.empty()) return parse_ids(o.prompt_ids);
  if (!o.raw_prompt.empty()) return encode_raw_prompt(*r.words, o.raw_prompt, image_token_of(r.config)).ids;
  const auto format = r.config.llava() != nullptr ? prompt_format::vicuna : prompt_format::plain;
  return encode_prompt(*r.words, {o.prompt, o.system, format, !o.image.empty(), image_token_of(r.config)})
      .ids;
}

multimodal_prompt read_prompt(const options& o, const request& r) {
  const std::int32_t image_token = image_token_of(r.config);
  const std::vector<std::int32_t> ids = asked_ids(o, r);
  const auto* described = r.config.llava();
  const index tokens_per_image = described != nullptr ? described->image_tokens() : 0;
  const index marked = std::ranges::count(ids, image_token);
  // Processors of transformers expand the image token themselves, and their ids come as they are.
  const bool expanded = !o.image.empty() && !o.prompt_ids.empty() && marked == tokens_per_image;
  const index images = expanded ? 1 : marked;
  require(images == (o.image.empty() ? 0 : 1), "the prompt names ", images, " images, but ",
          o.image.empty() ? "none is" : "one is", " given (the image token is ", image_token, ")");
  for (const std::int32_t id : ids)
    if (id != image_token) r.config.text().require_known({&id, 1});
  multimodal_prompt prompt = expand_images(ids, image_token, expanded ? 1 : tokens_per_image);
  const index context = context_of(o, r.config.text());
  require(prompt.size() <= context, "the prompt of ", prompt.size(),
          " tokens does not fit the model's context of ", context);
  return prompt;
}

}  // namespace

request read_request(const options& o) {
  request r{read_model_config(o.model), nullptr, {}};
  if (is_sparse(o)) check_sparsity(o.sparsity, r.config.text().layers, r.config.text().intermediate_size);
  r.words = text::open_tokenizer(o.model, text::sentencepiece_tokenizer::open);
  require(r.words || !o.prompt_ids.empty(), o.model.string(),
          ": has neither tokenizer.json nor tokenizer.model; without a tokenizer give the prompt with "
          "--prompt-ids");
  require(o.image.empty() || r.config.llava() != nullptr, o.model.string(),
          ": a text model cannot look at a picture (--image)");
  r.prompt = read_prompt(o, r);
  return r;
}

index context_of(const options& o, const llama_config& config) {
  const bool drops = o.sparsity.sparse_tokens && !o.image.empty();
  return drops ? config.context_when_dropping() : config.context();
}

image_processor_options image_options(const options& o, const model_config& config) {
  image_processor_options how = config.image;
  how.fit = o.fit.value_or(how.fit);
  return how;
}

picture read_seen_picture(const options& o, const model_config& config) {
  return image_processor(image_options(o, config)).resize_and_crop(read_picture(o.image));
}

}  // namespace corematching::driver
