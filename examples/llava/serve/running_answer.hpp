// SPDX-License-Identifier: Apache-2.0
// One question on its way from admission to the end of its answer: pictures, prompt, then token after token.
// The engine says when it goes on; several of them take their steps together.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/batch/picture_features.hpp"
#include "corematching/model/batch/text_prefixes.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/batch.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "llava/answer_report.hpp"
#include "llava/answer_text.hpp"
#include "llava/decoder_input.hpp"
#include "llava/loaded_model.hpp"
#include "llava/request.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/taken_question.hpp"
#include "llava/serve/token_chances.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/stopwatch.hpp"

namespace corematching::driver {

/// What all answers of an engine share. One thread uses it.
template <sparse_backend B>
struct answering_parts {
  B& be;
  const request& files;
  const loaded_model<B>& model;
  dtype cache_type;
  image_processor processor;
  picture_features<B> pictures;
  text_prefixes<B> prefixes;

  const llama<B>& language() const { return model.language(); }
};

template <sparse_backend B>
class running_answer {
 public:
  using space = typename B::space;

  /// Takes memory for keys and values as they come. `parts` must outlive it.
  running_answer(answering_parts<B>& parts, taken_question taken)
      : parts_(parts),
        asked_(std::move(taken)),
        seq_(parts.language().start(parts.be, asked_.max_new_tokens, parts.cache_type)),
        choose_(sampling_of(asked_.how, parts.files)),
        stops_(stops_of(asked_.how, parts.files)),
        text_(parts.files.words.get(), stops_.texts) {
    report_model(report_, parts.be, parts.language(), asked_.how, parts.files.words != nullptr);
    report_prompt(report_, asked_.prompt, asked_.context);
    if (is_sparse(asked_.how)) sparsity_.emplace(parts.be, asked_.how, parts.language().config());
    const auto waited = std::chrono::steady_clock::now() - asked_.taken_at;
    asked_.stream->push(answer_begun{std::chrono::duration<double>(waited).count()});
  }
  running_answer(const running_answer&) = delete;
  running_answer& operator=(const running_answer&) = delete;

  const taken_question& asked() const { return asked_; }
  const run_report& report() const { return report_; }
  index cached_tokens() const { return cached_tokens_; }
  std::uint64_t cache_bytes_held() const { return seq_.cache.capacity_bytes(); }
  bool ended() const { return ended_; }
  /// Answers whose neurons are chosen alike take steps together best.
  int kind() const {
    return sparsity_ && sparsity_->chooses_for_each_token() ? static_cast<int>(asked_.how.neurons.policy) : 0;
  }

  /// Reads a part of the question: a picture, or up to `layers` layers of the prompt. Returns whether all is
  /// read; the first token is then chosen.
  bool read(index layers) {
    if (looked_ < std::ssize(asked_.seen)) {
      look();
      return false;
    }
    if (!pass_) begin_prompt();
    if (!advance(layers)) return false;
    pass_.reset();
    input_ = {};
    features_ = {};
    take(std::as_const(seq_.logits).view());
    return true;
  }

  /// The step that runs the last token, of this answer alone or with others. Not once it has ended.
  void step() {
    with_decode_hook(sparsity(), [&](const auto& hook) {
      parts_.language().step(parts_.be, seq_, report_.generated_ids.back(), hook);
    });
  }
  batch_member<B> member() {
    batch_member<B> made{&seq_, report_.generated_ids.back(), {}};
    if (sparsity_)
      made.wants =
          with_decode_hook(sparsity(), [&](const auto& hook) { return wants_of(parts_.be, seq_, hook); });
    return made;
  }
  matrix_view<const float, space> logits_of_step() const { return seq_.logits.view(); }

  /// What the step took: seconds, and its share of the work.
  void count_step(double seconds, const work_counters& work, std::uint64_t ffn_bytes) {
    report_.decode_seconds += seconds;
    report_.decode += work;
    report_.ffn_bytes += ffn_bytes;
    ++report_.decode_steps;
  }

  /// Chooses the next token by logits [1, vocabulary], and tells whoever listens; the answer may end.
  void take(matrix_view<const float, space> logits) {
    std::int32_t id = 0;
    if (asked_.with_logprobs) {
      std::vector<float> values;
      download_values(parts_.be, logits, values);
      id = choose_(std::span<const float>(values));
      if (!is_stop(id)) said_.push_back(chances(values, id));
    } else {
      id = choose_(parts_.be, logits);
    }
    if (is_stop(id)) return end(true);
    report_.generated_ids.push_back(id);
    tell(text_.push(id));
    if (text_.ended()) return end(true);
    if (std::ssize(report_.generated_ids) >= asked_.max_new_tokens) end(false);
  }

  /// Says that the answer is complete. Once it has ended.
  void tell_end() const {
    asked_.stream->push(answer_complete{report_, asked_.picture_positions(), cached_tokens_});
  }

 private:
  const sparse_state<B>* sparsity() const { return sparsity_ ? &*sparsity_ : nullptr; }
  bool is_stop(std::int32_t id) const { return std::ranges::count(stops_.ids, id) > 0; }

  void look() {
    const stopwatch watch(report_.vision_seconds);
    const llava<B>& model = *parts_.model.multimodal();
    const index tokens = model.config().image_tokens();
    if (looked_ == 0)
      features_ =
          matrix<B>(parts_.be, std::ssize(asked_.seen) * tokens, parts_.language().config().hidden_size);
    picture& seen = asked_.seen[static_cast<std::size_t>(looked_)];
    const auto one = parts_.pictures.of(parts_.be, model, parts_.processor, seen);
    parts_.be.copy(features_.view().middle_rows(looked_ * tokens, tokens), one->view());
    seen = {};
    ++looked_;
  }

  // The text in front of the pictures may have been read before; hooks hear of what follows it.
  void begin_prompt() {
    const stopwatch watch(report_.prefill_seconds);
    const work_counters before = parts_.be.counters();
    const auto text = static_cast<std::size_t>(begin_with_text());
    multimodal_prompt rest = asked_.prompt;
    rest.ids.erase(rest.ids.begin(), rest.ids.begin() + static_cast<std::ptrdiff_t>(text));
    rest.kinds.erase(rest.kinds.begin(), rest.kinds.begin() + static_cast<std::ptrdiff_t>(text));
    const auto first = static_cast<std::int32_t>(text);
    if (sparsity_) begin_sparsity(first, rest);
    input_ =
        make_decoder_input(parts_.be, parts_.language(), rest, features_, first, thinning_of(asked_.how));
    report_.thinned = input_.thinned;
    report_.selection_seconds = input_.thinning_seconds;
    const auto x = input_.x.view();
    pass_.emplace(parts_.be, parts_.language(), seq_, x, input_.where(), ffn_rows(asked_.how, x.rows));
    report_.prefill = parts_.be.counters() - before;
  }

  // Settings that suit no such prompt, an anchor beyond it for example, are the fault of whoever asks.
  void begin_sparsity(std::int32_t first, const multimodal_prompt& rest) {
    try {
      sparsity_->begin_prompt(first, rest.kinds, rest.picture_sizes);
    } catch (const error& problem) {
      throw question_refused(refusal::bad_settings, problem.what());
    }
  }

  index begin_with_text() {
    const index text = asked_.text_before_pictures();
    if (text == 0 || !parts_.prefixes.enabled() || looks_at_text_before_pictures(asked_.how)) return 0;
    const std::span<const std::int32_t> ids(asked_.prompt.ids);
    if (parts_.prefixes.begin(parts_.be, parts_.language(), seq_, ids.first(static_cast<std::size_t>(text))))
      cached_tokens_ = text;
    return text;
  }

  bool advance(index layers) {
    const stopwatch watch(report_.prefill_seconds);
    const work_counters before = parts_.be.counters();
    const bool complete =
        sparsity_ ? with_prefill_hook(*sparsity_,
                                      [&](auto hook) { return pass_->advance(parts_.be, layers, hook); })
                  : pass_->advance(parts_.be, layers);
    report_.prefill += parts_.be.counters() - before;
    return complete;
  }

  said_token chances(std::span<const float> logits, std::int32_t id) const {
    return chances_of(logits, answer_ids(parts_.files), id, asked_.top_logprobs, parts_.files.words.get(),
                      text_.tokens());
  }

  // Tokens whose characters are not whole yet wait for the text that they are part of.
  void tell(const std::string& text) {
    report_.answer += text;
    const bool without_text = parts_.files.words == nullptr && !said_.empty();
    if (!text.empty() || without_text) asked_.stream->push(answer_piece{text, std::exchange(said_, {})});
  }

  void end(bool by_itself) {
    ended_ = true;
    const std::string rest = text_.finish();
    report_.answer += rest;
    if (!rest.empty() || !said_.empty()) asked_.stream->push(answer_piece{rest, std::exchange(said_, {})});
    report_.finished = finished_by(by_itself, asked_.max_new_tokens, asked_.how.max_new_tokens);
    report_costs(report_, parts_.language(), seq_, parts_.cache_type, asked_.prompt.size());
    report_decisions(report_, sparsity());
    if (sparsity_) report_.selection_seconds += sparsity_->selection_seconds();
    report_.dense_prefill = forward_cost(parts_.language(),
                                         dense_loads(parts_.language().config(), 0, asked_.prompt.size(),
                                                     ffn_rows(asked_.how, asked_.prompt.size())),
                                         parts_.cache_type);
  }

  answering_parts<B>& parts_;
  taken_question asked_;
  run_report report_;
  sequence<B> seq_;
  std::optional<sparse_state<B>> sparsity_;  // nothing: a dense run
  sampler choose_;
  answer_stops stops_;
  answer_text text_;
  matrix<B> features_;  // of the pictures seen so far, until the prompt is read
  index looked_ = 0;    // pictures
  decoder_input<B> input_;
  std::optional<prompt_pass<B>> pass_;
  std::vector<said_token> said_;  // not told yet
  index cached_tokens_ = 0;
  bool ended_ = false;
};

}  // namespace corematching::driver
