// SPDX-License-Identifier: Apache-2.0
// The steps of one run on any backend: picture, prompt, prefill, decode.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/model/generation/generate.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/cost.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "llava/answer_report.hpp"
#include "llava/answer_text.hpp"
#include "llava/console.hpp"
#include "llava/decoder_input.hpp"
#include "llava/dump.hpp"
#include "llava/loaded_model.hpp"
#include "llava/options.hpp"
#include "llava/picture_file.hpp"
#include "llava/report.hpp"
#include "llava/request.hpp"
#include "llava/run.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/sparse_settings.hpp"
#include "llava/stopwatch.hpp"
#include "llava/token_figure.hpp"
#include "llava/token_picture.hpp"

namespace corematching::driver {

template <sparse_backend B>
class conversation {
 public:
  conversation(B& be, const options& o, console& terminal) : be_(be), options_(o), terminal_(terminal) {}

  /// Answers the prompt that the options give, if they give one, and then questions until there is none.
  /// Returns whether all of them could be asked.
  bool run(const listener& to) {
    read();
    load();
    look();
    // Room for a long answer is taken as it grows.
    seq_.emplace(model_->language().start(be_, std::min<index>(options_.max_new_tokens, 1024), cache_type()));
    if (asked_.prompt.size() > 0) answer_prompt(to);
    bool all = true;
    while (const auto question = to.next_question()) {
      if (take(*question))
        answer_prompt(to);
      else
        all = false;
    }
    return all;
  }

 private:
  // All that can be refused without the weights.
  void read() {
    {
      const stopwatch watch(constant_.load_seconds);
      asked_ = read_request(options_, [this](const std::string& text) { terminal_.notice(text); });
    }
    const stopwatch watch(constant_.vision_seconds);
    for (const chat::picture& shown : asked_.pictures)
      seen_.push_back(read_seen_picture(options_, asked_.config, shown));
  }

  // Makes the prompt of a question. One that cannot be asked changes nothing, and the next one may.
  bool take(const std::string& question) {
    try {
      asked_.prompt = seq_->next_position == 0
                          ? first_question(options_, asked_, question)
                          : further_question(options_, asked_, question, unread_, seq_->next_position);
      return true;
    } catch (const error& problem) {
      terminal_.notice(problem.what());
      return false;
    }
  }

  void answer_prompt(const listener& to) {
    const multimodal_prompt& prompt = asked_.prompt;
    report_ = constant_;
    constant_.load_seconds = constant_.vision_seconds = 0;  // it is done
    report_prompt(report_, prompt, context_of(options_, asked_));
    // The last token of an answer is never read, so it needs no place.
    past_ = seq_->next_position;
    max_new_tokens_ = std::min(options_.max_new_tokens, report_.context - past_ - prompt.size() + 1);
    decode(prefill(), to.on_text);
    finish();
    to.on_answer(report_);
  }

  void load() {
    const stopwatch watch(constant_.load_seconds);
    model_.emplace(load_model(be_, options_, asked_.config, terminal_));
    report_model(constant_, be_, model_->language(), options_, asked_.words != nullptr);
    if (is_sparse(options_)) sparsity_.emplace(be_, options_, model_->language().config());
  }

  // The tokens of all pictures, one after the other.
  void look() {
    if (seen_.empty()) return;
    const llava<B>* model = model_->multimodal();
    const index tokens = model->config().image_tokens(), side = model->config().vision.image_size;
    const auto pictures = std::ssize(seen_);
    const stopwatch watch(constant_.vision_seconds);
    const image_processor processor(image_options(options_, asked_.config));
    features_ = matrix<B>(be_, pictures * tokens, model->language().config().hidden_size);
    std::vector<float> all_pixels;
    for (index i = 0; i < pictures; ++i) {
      terminal_.progress("looking", static_cast<double>(i), static_cast<double>(pictures));
      const std::vector<float> pixels = processor.normalise(seen_[static_cast<std::size_t>(i)]);
      const matrix<B> one = model->encode_image(be_, pixels);
      be_.copy(features_.view().middle_rows(i * tokens, tokens), one.view());
      if (dumps()) all_pixels.insert(all_pixels.end(), pixels.begin(), pixels.end());
    }
    if (dumps()) {
      dump_.add("pixel_values", {3 * pictures, side, side}, std::move(all_pixels));
      add_to_dump("image_features", features_);
    }
    terminal_.clear();
  }

  std::vector<float> prefill() {
    sequence<B>& seq = *seq_;
    const multimodal_prompt& prompt = asked_.prompt;
    const llama<B>& language = model_->language();
    if (sparsity_) {
      sparsity_->begin_prompt(seq.next_position, prompt.kinds, prompt.picture_sizes);
      selection_before_ = sparsity_->selection_seconds();
    }
    // Pictures are read once: nothing of them is left to be put into later prompts.
    const matrix<B> features = std::exchange(features_, {});
    decoder_input<B> input =
        make_decoder_input(be_, language, prompt, features, seq.next_position, thinning_of(options_));
    report_.thinned = input.thinned;
    report_.prefill_seconds = report_.selection_seconds = input.thinning_seconds;
    if (dumps()) add_to_dump("inputs_embeds", input.x);

    const work_counters before = be_.counters();
    std::vector<float> logits;
    {
      const stopwatch watch(report_.prefill_seconds);
      progress_hook progress([&](index done) {
        terminal_.progress("reading", static_cast<double>(done), static_cast<double>(report_.layers));
      });
      logits = sparsity_ ? with_prefill_hook(*sparsity_,
                                             [&](auto hook) {
                                               return prefill_with(seq, input, chain{progress, hook});
                                             })
                         : prefill_with(seq, input, progress);
    }
    terminal_.clear();
    report_.prefill = be_.counters() - before;
    report_.dense_prefill = forward_cost(
        language, dense_loads(language.config(), past_, prompt.size(), ffn_rows(options_, prompt.size())),
        cache_type());
    return logits;
  }

  dtype cache_type() const { return cache_type_of<B>(options_, model_->language().weight_type()); }

  template <class Hook>
  std::vector<float> prefill_with(sequence<B>& seq, decoder_input<B>& input, Hook hook) {
    const auto x = input.x.view();
    const index rows = ffn_rows(options_, x.rows);
    const llama<B>& language = model_->language();
    if (!dumps()) return language.prefill(be_, seq, x, input.where(), rows, hook);
    layer_recording recording;
    std::vector<float> logits =
        language.prefill(be_, seq, x, input.where(), rows, chain{record_hook<B>(recording), hook});
    dump_.add(std::move(recording));
    return logits;
  }

  void decode(std::vector<float> logits, const std::function<void(const std::string&)>& on_text) {
    sequence<B>& seq = *seq_;
    sampling_options sampling = sampling_of(options_, asked_);
    sampling.seed += turn_++;  // or all answers would be drawn alike
    sampler choose(sampling);
    const answer_stops stops = stops_of(options_, asked_);
    answer_text text(asked_.words.get(), stops.texts);
    const auto emit = [&](const std::string& piece) {
      report_.answer += piece;
      on_text(piece);
    };
    std::vector<float> all_logits;
    const auto choose_and_keep = [&](std::span<const float> from) {
      all_logits.insert(all_logits.end(), from.begin(), from.end());
      return choose(from);
    };
    const auto on_token = [&](std::int32_t id) {
      report_.generated_ids.push_back(id);
      emit(text.push(id));
      return !text.ended();
    };
    const stop_rule stop{max_new_tokens_, stops.ids};
    const work_counters before = be_.counters();
    const std::uint64_t streamed = model_->language().streamed_weight_bytes();
    const std::int32_t first = seq.next_position;
    {
      const stopwatch watch(report_.decode_seconds);
      const answer_end end = dumps() ? answer(seq, std::move(logits), choose_and_keep, stop, on_token)
                                     : answer(seq, std::move(logits), choose, stop, on_token);
      report_.finished = finished_by(end != answer_end::length, max_new_tokens_, options_.max_new_tokens);
      unread_.clear();  // the token that ends an answer is not one of it; others are read by the next step
      if (end != answer_end::stop_token && !report_.generated_ids.empty())
        unread_ = {report_.generated_ids.back()};
    }
    emit(text.finish());
    report_.decode = be_.counters() - before;
    report_.decode_steps = seq.next_position - first;
    report_.streamed_bytes = model_->language().streamed_weight_bytes() - streamed;
    report_.ffn_bytes = report_.decode.weight_bytes - static_cast<std::uint64_t>(report_.decode_steps) *
                                                          bytes_beside_ffn(model_->language());
    const index vocabulary = model_->language().config().vocab_size;
    const index rows = std::ssize(all_logits) / vocabulary;
    if (dumps()) dump_.add("logits", {rows, vocabulary}, std::move(all_logits));
  }

  template <class Choose, class OnToken>
  answer_end answer(sequence<B>& seq, std::vector<float> logits, Choose& choose, const stop_rule& stop,
                    const OnToken& on_token) {
    return with_decode_hook(sparsity_ ? &*sparsity_ : nullptr, [&](const auto& hook) {
      return generate(be_, model_->language(), seq, std::move(logits), choose, stop, hook, on_token);
    });
  }

  void finish() {
    const llama<B>& language = model_->language();
    report_costs(report_, language, *seq_, cache_type(), past_ + asked_.prompt.size());
    report_decisions(report_, sparsity_ ? &*sparsity_ : nullptr);
    if (sparsity_) {
      report_.selection_seconds += sparsity_->selection_seconds() - selection_before_;
      if (dumps()) dump_.add_decisions(be_, sparsity_->matching(), report_.layers);
    }
    if (dumps() && report_.thinned)
      dump_.add("before_decoder.kept_image_positions", report_.thinned->kept_image_positions);
    if (dumps()) dump_.write(options_.dump);
    if (!options_.show_tokens.empty())
      write_png(draw_token_figure(
                    figure_of(report_, model_->multimodal()->config(), seen_.front(), options_.prompt)),
                options_.show_tokens);
  }

  bool dumps() const { return !options_.dump.empty(); }
  void add_to_dump(const char* name, const matrix<B>& m) {
    std::vector<float> values;
    download_values(be_, m.view(), values);
    dump_.add(name, {m.rows(), m.cols()}, std::move(values));
  }

  B& be_;
  const options& options_;
  console& terminal_;
  run_report constant_;  // what is the same of every answer, and what only the first one has to wait for
  run_report report_;
  request asked_;
  std::optional<loaded_model<B>> model_;
  std::optional<sparse_state<B>> sparsity_;  // nothing: a dense run
  std::vector<picture> seen_;                // what the model sees of the pictures
  matrix<B> features_;                       // their tokens, until they are read
  std::optional<sequence<B>> seq_;
  std::vector<std::int32_t> unread_;  // ids of the last answer that no step has read
  index past_ = 0;                    // positions before the prompt
  index max_new_tokens_ = 0;
  std::uint64_t turn_ = 0;
  double selection_before_ = 0;
  dump dump_;
};

}  // namespace corematching::driver
