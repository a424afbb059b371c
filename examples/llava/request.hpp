// SPDX-License-Identifier: Apache-2.0
// What is asked of which model, read and checked before weights are: what is wrong with a question is said at
// once, not after minutes of loading.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "corematching/chat/format.hpp"
#include "corematching/chat/message.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/picture.hpp"
#include "corematching/text/tokenizer.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

using notice = std::function<void(const std::string& text)>;

struct request {
  model_config config;
  std::unique_ptr<text::tokenizer> words;     // null for a model without one
  const chat::chat_format* format = nullptr;  // null where the whole prompt is given as it is
  std::vector<chat::picture> pictures;        // in the order in which the prompt shows them
  multimodal_prompt prompt;  // image tokens expanded; empty where the question is yet to come
};

/// The small files of the model's directory, and nothing asked yet. Throws `error` where it is no directory
/// of a model.
request read_model_files(const options& o);

/// The chat format that `o` names or the model's files stand for; `say` hears what was assumed.
const chat::chat_format& chosen_format(const options& o, const model_config& config, const notice& say);

/// Reads the small files of the model's directory and the prompt; `say` hears what was assumed. Throws
/// `error` for settings that the model cannot have and for a prompt that it cannot be given.
request read_request(const options& o, const notice& say);

/// The prompt of a list of messages that shows so many pictures, whose system text is its own; whether the
/// context has room for it is the caller's to ask. Throws `error` for what the model cannot be given.
multimodal_prompt prompt_of(const options& o, const request& r, std::span<const chat::message> messages,
                            index pictures);

/// The prompt of the first question of a conversation, with its system text and its picture.
multimodal_prompt first_question(const options& o, const request& r, const std::string& question);

/// What a further question appends to a conversation that stands at position `position` of the model's
/// context: `unread`, ids of the last answer that are not in the cache yet, what ends that answer, and the
/// question.
multimodal_prompt further_question(const options& o, const request& r, const std::string& question,
                                   std::span<const std::int32_t> unread, index position);

/// The prompt of the first question, and the ids of `answer` behind it with what ends an answer in the
/// request's format. Throws `error` where a token reaches over the end of the prompt.
struct answered_question {
  multimodal_prompt prompt;
  std::vector<std::int32_t> answer;
};
answered_question first_question_with_answer(const options& o, const request& r, const std::string& question,
                                             const std::string& answer);

/// How many positions a conversation may use, one that shows so many pictures.
index context_of(const options& o, const request& r);
index context_of(const options& o, const model_config& config, index pictures);

/// What such a context is, for messages: of a model with a sliding window it may be less than the model's.
std::string context_text(const model_config& config, index context);

/// What ends an answer in the request's format: ids of tokens, and texts that the tokenizer has no token for.
struct answer_stops {
  std::vector<std::int32_t> ids;
  std::vector<std::string> texts;
};
answer_stops stops_of(const options& o, const request& r);

/// How many ids may be answered: those from there on have no token, since the vocabulary was padded with
/// their rows.
index answer_ids(const request& r);

/// Ids that are nothing to say: what stands for a picture or fills batches, unless it is what ends answers.
std::vector<std::int32_t> no_answers(const request& r);

/// How the next token is chosen: as `o` says, and never what is nothing to say.
sampling_options sampling_of(const options& o, const request& r);

/// A picture as the model will see it: decoded, resized, and cut or padded to a square. Throws `error` where
/// there is none to be had.
picture read_seen_picture(const options& o, const model_config& config, const chat::picture& from);

/// How `o` and the model want pictures processed.
image_processor_options image_options(const options& o, const model_config& config);

}  // namespace corematching::driver
