// SPDX-License-Identifier: Apache-2.0
// What of a prompt enters the decoder: all of it, or less where image tokens are dropped before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/llava/thinning.hpp"
#include "llava/report.hpp"
#include "llava/stopwatch.hpp"

namespace corematching::driver {

template <backend B>
struct decoder_input {
  matrix<B> x;                       // [rows, D]
  std::vector<std::int32_t> places;  // of the rows in the prompt
  index prompt_tokens = 0;           // of the whole prompt
  std::optional<thinned_tokens> thinned = {};
  double thinning_seconds = 0;

  prompt_places where() const { return {{places.data(), std::ssize(places)}, prompt_tokens}; }
};

/// The input for `prompt`, whose first token stands at position `first` and whose image tokens have these
/// features; `thinning` says which of them to drop.
template <backend B>
decoder_input<B> make_decoder_input(B& be, const llama<B>& language, const multimodal_prompt& prompt,
                                    const matrix<B>& features, std::int32_t first,
                                    const std::optional<thinning_config>& thinning) {
  if (!thinning || prompt.image_tokens() == 0) {
    decoder_input<B> whole{embed_prompt(be, language, prompt, features.view()), {}, prompt.size()};
    whole.places.resize(static_cast<std::size_t>(prompt.size()));
    std::iota(whole.places.begin(), whole.places.end(), 0);
    return whole;
  }
  decoder_input<B> input;
  input.prompt_tokens = prompt.size();
  thinned_prompt<B> left;
  {
    const stopwatch watch(input.thinning_seconds);
    left = thin(be, prompt, features.view(), first, *thinning);
  }
  input.x = embed_prompt(be, language, left.prompt, left.image_features.view());
  input.thinned = {std::string(name_of(thinning->criterion)), prompt.image_tokens(), {}};
  for (std::size_t row = 0; row < left.places.size(); ++row)
    if (left.prompt.kinds[row] == token_kind::image)
      input.thinned->kept_image_positions.push_back(first + left.places[row]);
  input.places = std::move(left.places);
  return input;
}

}  // namespace corematching::driver
