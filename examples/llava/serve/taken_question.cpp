// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/taken_question.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/batch/admission.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "llava/option_checks.hpp"
#include "llava/picture_file.hpp"
#include "llava/picture_limit.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

[[noreturn]] void refuse(refusal why, const std::string& text) {
  throw question_refused(why, text);
}

std::string picture_name(std::size_t number) {
  return "picture " + std::to_string(number);
}

void check_left_out(const options& o, const llama_config& config) {
  try {
    if (o.sparsity.sparse_neurons) check_neuron_policy(o);
    if (is_sparse(o)) {
      check_sparsity(matching_of(o), config.layers, config.intermediate_size);
      check_beta(o, config.layers);
    }
    if (o.thin) o.thin->validate();
  } catch (const error& problem) {
    refuse(refusal::bad_settings, problem.what());
  }
}

void check_settings(const options& o, const llama_config& config) {
  require(o.max_new_tokens > 0, "an answer of ", o.max_new_tokens, " tokens is none");
  o.sampling.validate();
  for (const std::string& stop : o.stops) require(!stop.empty(), "a stop string is empty");
  check_left_out(o, config);
}

/// The pictures of `asked`, which are as many as may be, and of bytes.
std::vector<const chat::picture*> shown_pictures(const question& asked, const request& r,
                                                 const engine_limits& limits) {
  std::vector<const chat::picture*> shown;
  for (const chat::message& message : asked.messages)
    for (const chat::part& part : message.content)
      if (const auto* one = std::get_if<chat::picture>(&part)) {
        shown.push_back(one);
        require(!one->bytes.empty(), picture_name(shown.size()),
                ": its bytes are missing: files are not read for who asks");
      }
  if (std::ssize(shown) > limits.pictures)
    refuse(refusal::too_large, "more than " + std::to_string(limits.pictures) + " pictures are shown");
  require(shown.empty() || r.config.llava() != nullptr, "a text model cannot look at a picture");
  return shown;
}

/// What the model sees of them. Each may take a second, which nobody may wait for any more.
std::vector<picture> seen_pictures(const std::vector<const chat::picture*>& shown, const question& asked,
                                   const request& r, std::int64_t most_pixels) {
  const image_processor processor(image_options(asked.how, r.config));
  std::vector<picture> seen;
  for (const chat::picture* one : shown) {
    if (asked.go_on) asked.go_on();
    const std::string name = picture_name(seen.size() + 1);
    seen.push_back(processor.resize_and_crop(decode_picture(one->bytes, name, most_pixels)));
  }
  return seen;
}

/// Refuses texts that cannot fit before they are made tokens, which takes some thirty times their memory.
void check_text(const question& asked, const model_config& config, index context) {
  constexpr std::size_t longest_token = 128;  // bytes, of the vocabularies that there are
  std::size_t bytes = 0;
  for (const chat::message& message : asked.messages)
    for (const chat::part& part : message.content)
      if (const auto* text = std::get_if<std::string>(&part)) bytes += text->size();
  if (bytes / longest_token > static_cast<std::size_t>(context))
    refuse(refusal::too_large,
           "a text of " + std::to_string(bytes) + " bytes does not fit " + context_text(config, context));
}

void check_room(const taken_question& taken, const model_config& config, const engine_limits& limits) {
  if (taken.prompt.size() > taken.context)
    refuse(refusal::too_large, "the prompt of " + std::to_string(taken.prompt.size()) +
                                   " tokens does not fit " + context_text(config, taken.context));
  if (taken.cache_bytes > limits.cache_bytes)
    refuse(refusal::too_large, "keys and values of " + std::to_string(taken.prompt.size()) +
                                   " tokens and an answer of " + std::to_string(taken.max_new_tokens) +
                                   " take " + std::to_string(taken.cache_bytes) + " bytes, and there are " +
                                   std::to_string(limits.cache_bytes));
}

}  // namespace

index taken_question::text_before_pictures() const {
  const auto first = std::ranges::find(prompt.kinds, token_kind::image);
  return first == prompt.kinds.end() ? 0 : first - prompt.kinds.begin();
}

std::vector<index> taken_question::picture_positions() const {
  std::vector<index> positions;
  index place = 0;
  for (const index size : prompt.picture_sizes) {
    place =
        std::find(prompt.kinds.begin() + place, prompt.kinds.end(), token_kind::image) - prompt.kinds.begin();
    positions.push_back(place);
    place += size;
  }
  return positions;
}

taken_question take_question(question asked, const request& r, dtype cache_type,
                             const engine_limits& limits) {
  try {
    require(!asked.messages.empty() && asked.messages.back().from == chat::role::user,
            "the last message is not the user's");
    check_settings(asked.how, r.config.text());
    const std::vector<const chat::picture*> shown = shown_pictures(asked, r, limits);
    const auto pictures = std::ssize(shown);
    taken_question taken{.how = {}, .prompt = {}};
    taken.context = context_of(asked.how, r.config, pictures);
    check_text(asked, r.config, taken.context);
    taken.prompt = prompt_of(asked.how, r, asked.messages, pictures);
    // The last token of an answer is never read, so it needs no place.
    taken.max_new_tokens =
        std::min(asked.how.max_new_tokens, std::max<index>(taken.context - taken.prompt.size() + 1, 0));
    taken.cache_bytes =
        cache_bytes_of(r.config.text(), taken.prompt.size() + taken.max_new_tokens, cache_type);
    check_room(taken, r.config, limits);
    taken.seen = seen_pictures(shown, asked, r, limits.picture_pixels);
    taken.with_logprobs = asked.with_logprobs;
    taken.top_logprobs = asked.top_logprobs;
    taken.how = std::move(asked.how);
    return taken;
  } catch (const picture_too_large& problem) {
    refuse(refusal::too_large, problem.what());
  } catch (const error& problem) {
    refuse(refusal::bad_question, problem.what());
  }
}

}  // namespace corematching::driver
