// SPDX-License-Identifier: Apache-2.0
#include "llava/request.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>
#include <variant>

#include "corematching/chat/formats.hpp"
#include "corematching/chat/message_list.hpp"
#include "corematching/chat/render.hpp"
#include "corematching/chat/template_file.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/text/checkpoint_tokenizer.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"
#include "llava/option_checks.hpp"
#include "llava/picture_file.hpp"
#include "llava/prompt.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

std::int32_t image_token_of(const model_config& config) {
  return config.llava() != nullptr ? config.llava()->image_token_index : -1;
}

/// What a model that cannot see may lack.
std::string hint_of_mmproj(const options& o) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(o.model, ignored)
             ? "; beside a GGUF file, --mmproj names that of a vision tower"
             : "";
}

/// The messages of a file; paths of pictures in it are taken from where it lies.
std::vector<chat::message> read_messages(const std::filesystem::path& path) {
  std::vector<chat::message> messages =
      chat::parse_messages(io::mapped_file::open(path).bytes(), path.string());
  require(messages.back().from == chat::role::user, path.string(), ": messages[", messages.size() - 1,
          "] is the ", chat::name_of(messages.back().from),
          "'s, expected a question of the user's at the end");
  require(!messages.back().content.empty(), path.string(), ": messages[", messages.size() - 1,
          "].content is empty: nothing is asked");
  for (chat::message& message : messages)
    for (chat::part& part : message.content)
      if (auto* shown = std::get_if<chat::picture>(&part); shown != nullptr && !shown->path.empty())
        shown->path = (path.parent_path() / shown->path).string();
  return messages;
}

/// The pictures in messages, in their order; those that are given elsewhere are --image.
std::vector<chat::picture> pictures_of(const options& o, const std::vector<chat::message>& messages) {
  std::vector<chat::picture> pictures;
  bool takes_option = false;
  for (const chat::message& message : messages)
    for (const chat::part& part : message.content) {
      const auto* shown = std::get_if<chat::picture>(&part);
      if (shown == nullptr) continue;
      const bool elsewhere = shown->path.empty() && shown->bytes.empty();
      require(!elsewhere || !o.image.empty(), o.messages.string(),
              ": a picture without a file is shown, and --image gives none");
      takes_option = takes_option || elsewhere;
      pictures.push_back(elsewhere ? chat::picture{.path = o.image.string()} : *shown);
    }
  require(takes_option || o.image.empty(), "--image: ", o.image.string(), ": no message of ",
          o.messages.string(), " shows it ({\"type\": \"image\"} does)");
  return pictures;
}

/// `ids` with image tokens expanded. Throws where they show other pictures than there are.
multimodal_prompt expanded_images(const options& o, const request& r, const std::vector<std::int32_t>& ids,
                                  index pictures) {
  const std::int32_t image_token = image_token_of(r.config);
  const auto* described = r.config.llava();
  const index tokens_per_image = described != nullptr ? described->image_tokens() : 0;
  const index marked = std::ranges::count(ids, image_token);
  // Processors of transformers expand the image token themselves, and their ids come as they are.
  const bool are_expanded = pictures > 0 && !o.prompt_ids.empty() && marked == pictures * tokens_per_image;
  require(are_expanded || marked == pictures, "the prompt names ", marked, " images, but ",
          pictures == 0   ? "none is"
          : pictures == 1 ? "one is"
                          : std::to_string(pictures) + " are",
          " given (the image token is ", image_token, ")");
  for (const std::int32_t id : ids)
    if (id != image_token) r.config.text().require_known({&id, 1});
  multimodal_prompt prompt = expand_images(ids, image_token, are_expanded ? 1 : tokens_per_image);
  prompt.picture_sizes.assign(static_cast<std::size_t>(pictures), tokens_per_image);
  return prompt;
}

/// The same for a conversation at position `position`; throws, too, where the context has no room for it.
multimodal_prompt expanded(const options& o, const request& r, const std::vector<std::int32_t>& ids,
                           index pictures, index position) {
  multimodal_prompt prompt = expanded_images(o, r, ids, pictures);
  const index context = context_of(o, r);
  require(position + prompt.size() <= context, "the prompt of ", prompt.size(), " tokens",
          position > 0 ? " behind " + std::to_string(position) + " others" : "", " does not fit ",
          context_text(r.config, context));
  return prompt;
}

multimodal_prompt encoded(const options& o, const request& r, const std::vector<chat::segment>& segments) {
  return expanded(o, r, encode(*r.words, segments, image_token_of(r.config)), std::ssize(r.pictures), 0);
}

multimodal_prompt rendered(const options& o, const request& r, const std::vector<chat::message>& messages,
                           chat::picture_place place) {
  return encoded(o, r, chat::render(*r.format, messages, {.pictures = place}));
}

}  // namespace

request read_model_files(const options& o) {
  request r{read_model_config(o.model, o.mmproj), nullptr, nullptr, {}, {}};
  if (is_sparse(o)) {
    const llama_config& text = r.config.text();
    check_sparsity(matching_of(o), text.layers, text.intermediate_size);
    check_beta(o, text.layers);
  }
  r.words = text::open_tokenizer(o.model, text::sentencepiece_tokenizer::open);
  return r;
}

const chat::chat_format& chosen_format(const options& o, const model_config& config, const notice& say) {
  if (!o.chat_template.empty()) return chat::format_of(o.chat_template);
  const chat::chosen_format chosen = chat::choose_format(o.model, config.llava() != nullptr);
  if (!chosen.notice.empty()) say(chosen.notice);
  return *chosen.format;
}

request read_request(const options& o, const notice& say) {
  request r = read_model_files(o);
  require(
      r.words || !o.prompt_ids.empty(), o.model.string(),
      ": has neither tokenizer.json nor tokenizer.model, nor a GGUF file's tokenizer; without one give the "
      "prompt with --prompt-ids");
  require(o.image.empty() || r.config.llava() != nullptr, o.model.string(),
          ": a text model cannot look at a picture (--image)", hint_of_mmproj(o));
  if (o.prompt_ids.empty() && o.raw_prompt.empty()) r.format = &chosen_format(o, r.config, say);
  std::vector<chat::message> messages;
  if (!o.messages.empty()) {
    messages = read_messages(o.messages);
    r.pictures = pictures_of(o, messages);
    require(r.pictures.empty() || r.config.llava() != nullptr, o.messages.string(),
            ": shows a picture, which a text model cannot look at", hint_of_mmproj(o));
  } else if (!o.image.empty()) {
    r.pictures = {{.path = o.image.string()}};
  }
  for (const chat::picture& shown : r.pictures) {
    check_picture_stays(shown.path, o.dump, "--dump");
    check_picture_stays(shown.path, o.show_tokens, "--show-tokens");
  }
  if (o.sparsity.sparse_tokens && !o.sparsity.sparse_neurons && o.image.empty() && o.messages.empty())
    say("--sparsity tokens: without --image there are no image tokens, so nothing is left out");
  const auto shown = std::ssize(r.pictures);
  if (!o.prompt_ids.empty())
    r.prompt = expanded(o, r, parse_ids(o.prompt_ids), shown, 0);
  else if (!o.raw_prompt.empty())
    r.prompt = expanded(o, r, encode(*r.words, raw_prompt(o.raw_prompt), image_token_of(r.config)), shown, 0);
  else if (!messages.empty())
    r.prompt = rendered(o, r, messages, chat::picture_place::in_front);
  else if (!o.chat || !o.prompt.empty())
    r.prompt = first_question(o, r, o.prompt);
  return r;
}

multimodal_prompt prompt_of(const options& o, const request& r, std::span<const chat::message> messages,
                            index pictures) {
  require(pictures == 0 || r.config.llava() != nullptr, "a text model cannot look at a picture");
  const auto segments = chat::render(*r.format, messages, {.pictures = chat::picture_place::in_front});
  return expanded_images(o, r, encode(*r.words, segments, image_token_of(r.config)), pictures);
}

multimodal_prompt first_question(const options& o, const request& r, const std::string& question) {
  const asked_messages asked = ask(question, o.system, !r.pictures.empty());
  return rendered(o, r, asked.messages, asked.pictures);
}

answered_question first_question_with_answer(const options& o, const request& r, const std::string& question,
                                             const std::string& answer) {
  const asked_messages asked = ask(question, o.system, !r.pictures.empty());
  std::vector<chat::segment> segments = chat::render(*r.format, asked.messages, {.pictures = asked.pictures});
  answered_question result{encoded(o, r, segments), {}};
  const auto behind = answer_segments(*r.format, answer);
  segments.insert(segments.end(), behind.begin(), behind.end());
  const std::vector<std::int32_t> whole = encoded(o, r, segments).ids;
  const std::vector<std::int32_t>& prompt = result.prompt.ids;
  require(whole.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), whole.begin()),
          "the first token of the answer ", io::in_quotes(answer), " reaches into the prompt");
  result.answer.assign(whole.begin() + std::ssize(prompt), whole.end());
  return result;
}

multimodal_prompt further_question(const options& o, const request& r, const std::string& question,
                                   std::span<const std::int32_t> unread, index position) {
  const asked_messages asked = ask(question, "", false);
  // What ends an answer is chosen and never read.
  const auto segments = chat::render_further(*r.format, chat::answer_end::missing, asked.messages);
  std::vector<std::int32_t> ids(unread.begin(), unread.end());
  const std::vector<std::int32_t> more = encode(*r.words, segments, image_token_of(r.config));
  ids.insert(ids.end(), more.begin(), more.end());
  return expanded(o, r, ids, 0, position);
}

index context_of(const options& o, const request& r) {
  return context_of(o, r.config, std::ssize(r.pictures));
}

index context_of(const options& o, const model_config& config, index pictures) {
  const bool drops = drops_tokens(o) && pictures > 0;
  return drops ? config.text().context_when_dropping() : config.text().context();
}

std::string context_text(const model_config& config, index context) {
  const std::string length = std::to_string(context);
  if (context == config.text().context()) return "the model's context of " + length;
  return "the model's sliding window of " + length + ", beyond which no image tokens can be dropped";
}

answer_stops stops_of(const options& o, const request& r) {
  answer_stops stops{r.config.text().eos_token_ids, o.stops};
  const auto add = [&](std::int32_t id) {
    if (id >= 0 && std::ranges::count(stops.ids, id) == 0) stops.ids.push_back(id);
  };
  if (r.words && stops.ids.empty()) add(r.words->frame().eos);
  if (r.format == nullptr) return stops;
  for (const chat::segment& end : chat::stops_of(*r.format)) {
    const std::int32_t id =
        end.kind == chat::segment_kind::eos ? r.words->frame().eos : r.words->find(end.text);
    if (id >= 0)
      add(id);
    else if (!end.text.empty())
      stops.texts.push_back(end.text);
  }
  return stops;
}

index answer_ids(const request& r) {
  const index rows = r.config.text().vocab_size;
  return r.words ? std::min<index>(rows, r.words->size()) : rows;
}

std::vector<std::int32_t> no_answers(const request& r) {
  std::vector<std::int32_t> ids;
  const llama_config& config = r.config.text();
  if (r.config.llava() != nullptr) ids.push_back(r.config.llava()->image_token_index);
  if (config.pad_token_id && !std::ranges::count(config.eos_token_ids, *config.pad_token_id))
    ids.push_back(*config.pad_token_id);
  return ids;
}

sampling_options sampling_of(const options& o, const request& r) {
  sampling_options sampling = o.sampling;
  sampling.vocabulary_limit = answer_ids(r);
  sampling.never = no_answers(r);
  return sampling;
}

image_processor_options image_options(const options& o, const model_config& config) {
  image_processor_options how = config.image;
  how.fit = o.fit.value_or(how.fit);
  return how;
}

picture read_seen_picture(const options& o, const model_config& config, const chat::picture& from) {
  const picture whole = from.bytes.empty() ? read_picture(from.path)
                                           : decode_picture(from.bytes, o.messages.string() + ": a picture");
  return image_processor(image_options(o, config)).resize_and_crop(whole);
}

}  // namespace corematching::driver
