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
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/model/cost.hpp"
#include "corematching/model/generate.hpp"
#include "corematching/model/image_processor.hpp"
#include "corematching/model/multimodal_prompt.hpp"
#include "corematching/model/sampling.hpp"
#include "llava/console.hpp"
#include "llava/dump.hpp"
#include "llava/loaded_model.hpp"
#include "llava/options.hpp"
#include "llava/picture_file.hpp"
#include "llava/report.hpp"
#include "llava/request.hpp"
#include "llava/stopwatch.hpp"
#include "llava/token_picture.hpp"

namespace corematching::driver {

template <backend B>
class conversation {
 public:
  conversation(B& be, const options& o, console& terminal) : be_(be), options_(o), terminal_(terminal) {}

  run_report run(const std::function<void(const std::string&)>& on_text) {
    read();
    load();
    look();
    const multimodal_prompt& prompt = asked_.prompt;
    // Room for a long answer is taken as it grows.
    sequence<B> seq = model_->language().start(be_, std::min<index>(max_new_tokens_, 1024), cache_type());
    std::vector<float> logits = prefill(seq, prompt);
    decode(seq, std::move(logits), on_text);
    finish(seq, prompt);
    return std::move(report_);
  }

 private:
  // All that can be refused without the weights.
  void read() {
    {
      const stopwatch watch(report_.load_seconds);
      asked_ = read_request(options_);
    }
    if (!options_.image.empty()) {
      const stopwatch watch(report_.vision_seconds);
      seen_ = read_seen_picture(options_, asked_.config);
    }
    const multimodal_prompt& prompt = asked_.prompt;
    report_.prompt_tokens = prompt.size();
    report_.image_tokens = prompt.image_tokens();
    report_.image_position = std::ranges::find(prompt.kinds, token_kind::image) - prompt.kinds.begin();
    // The last token of an answer is never read, so it needs no place.
    const index context = context_of(options_, asked_.config.text());
    max_new_tokens_ = std::min(options_.max_new_tokens, context - prompt.size() + 1);
    report_.context = context;
  }

  void load() {
    const stopwatch watch(report_.load_seconds);
    model_.emplace(
        be_, options_.model, asked_.config, options_.weights,
        [this](std::uint64_t done, std::uint64_t total) {
          terminal_.progress("loading", static_cast<double>(done), static_cast<double>(total));
        },
        [this](const std::string& text) { terminal_.notice(text); });
    terminal_.clear();
    const llama_config& config = model_->language().config();
    report_.layers = config.layers;
    report_.all_neurons = config.intermediate_size;
    report_.weights = name_of(model_->language().weight_type());
  }

  void look() {
    if (options_.image.empty()) return;
    const llava<B>* model = model_->multimodal();
    terminal_.progress("looking", 0, 1);
    const stopwatch watch(report_.vision_seconds);
    std::vector<float> pixels = image_processor(image_options(options_, asked_.config)).normalise(seen_);
    features_ = model->encode_image(be_, pixels);
    if (dumps()) {
      const index side = model->config().vision.image_size;
      dump_.add("pixel_values", {3, side, side}, std::move(pixels));
      add_to_dump("image_features", features_);
    }
    terminal_.clear();
  }

  std::vector<float> prefill(sequence<B>& seq, const multimodal_prompt& prompt) {
    const llama<B>& language = model_->language();
    if (is_sparse(options_)) {
      sparsity_.emplace(be_, options_.sparsity, report_.layers, shape_of(language.config()));
      sparsity_->begin_prompt(seq.next_position, prompt.kinds);
    }
    matrix<B> x = embed_prompt(be_, language, prompt, std::as_const(features_).view());
    if (dumps()) add_to_dump("inputs_embeds", x);

    const work_counters before = be_.counters();
    std::vector<float> logits;
    {
      const stopwatch watch(report_.prefill_seconds);
      progress_hook progress([&](index done) {
        terminal_.progress("reading", static_cast<double>(done), static_cast<double>(report_.layers));
      });
      logits = sparsity_ ? with_prefill_hook(*sparsity_,
                                             [&](auto hook) {
                                               return prefill_with(seq, x, chain{progress, hook});
                                             })
                         : prefill_with(seq, x, progress);
    }
    terminal_.clear();
    report_.prefill = be_.counters() - before;
    report_.dense_prefill = forward_cost(
        language, dense_loads(language.config(), 0, prompt.size(), ffn_rows(prompt.size())), cache_type());
    return logits;
  }

  // Rounding keys and values to 16 bits is nothing beside rounding the weights to 8 or 4, and halves the
  // cache. On a device they are stored as the weights are, which is what its matrix units multiply.
  dtype cache_type() const {
    const dtype weights = model_->language().weight_type();
    constexpr bool on_device = std::is_same_v<typename B::space, device_space>;
    const dtype exact = on_device ? weights : dtype_of<typename B::value_type>;
    return options_.cache_type.value_or(is_quantised(weights) ? dtype::f16 : exact);
  }

  // All rows at once, unless that takes more memory than it is worth; the rule mean_count needs them all.
  index ffn_rows(index tokens) const {
    const bool whole = sparsity_ && options_.sparsity.count == core_count::mean_count;
    return whole ? tokens : std::min<index>(tokens, 1024);
  }

  template <class Hook>
  std::vector<float> prefill_with(sequence<B>& seq, matrix<B>& x, Hook hook) {
    const index rows = ffn_rows(x.rows());
    const llama<B>& language = model_->language();
    if (!dumps()) return language.prefill(be_, seq, x.view(), rows, hook);
    layer_recording recording;
    std::vector<float> logits =
        language.prefill(be_, seq, x.view(), rows, chain{record_hook<B>(recording), hook});
    dump_.add(std::move(recording));
    return logits;
  }

  void decode(sequence<B>& seq, std::vector<float> logits,
              const std::function<void(const std::string&)>& on_text) {
    sampling_options sampling = options_.sampling;
    sampling.vocabulary_limit = answer_ids();
    sampling.never = no_answers();
    sampler choose(sampling);
    const auto text = asked_.words ? asked_.words->detokenize() : nullptr;
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
      if (text) emit(text->push(id));
    };
    stop_rule stop{max_new_tokens_, model_->language().config().eos_token_ids};
    if (stop.stop_ids.empty() && asked_.words && asked_.words->frame().eos >= 0)
      stop.stop_ids.push_back(asked_.words->frame().eos);
    const work_counters before = be_.counters();
    const std::uint64_t streamed = model_->language().streamed_weight_bytes();
    const std::int32_t first = seq.next_position;
    {
      const stopwatch watch(report_.decode_seconds);
      const answer_end end = dumps() ? answer(seq, std::move(logits), choose_and_keep, stop, on_token)
                                     : answer(seq, std::move(logits), choose, stop, on_token);
      report_.finished = end != answer_end::length                   ? "stop"
                         : max_new_tokens_ < options_.max_new_tokens ? "context"
                                                                     : "length";
    }
    if (text) emit(text->finish());
    report_.decode = be_.counters() - before;
    report_.decode_steps = seq.next_position - first;
    report_.streamed_bytes = model_->language().streamed_weight_bytes() - streamed;
    const index vocabulary = model_->language().config().vocab_size;
    const index rows = std::ssize(all_logits) / vocabulary;
    if (dumps()) dump_.add("logits", {rows, vocabulary}, std::move(all_logits));
  }

  template <class Choose, class OnToken>
  answer_end answer(sequence<B>& seq, std::vector<float> logits, Choose& choose, const stop_rule& stop,
                    const OnToken& on_token) {
    const auto with = [&](const auto& hook) {
      return generate(be_, model_->language(), seq, std::move(logits), choose, stop, hook, on_token);
    };
    return sparsity_ ? with(typename core_matching<B>::decode_hook(*sparsity_)) : with(no_hook{});
  }

  void finish(const sequence<B>& seq, const multimodal_prompt& prompt) {
    const llama<B>& language = model_->language();
    report_.kv_bytes = seq.cache.bytes();
    report_.held_weight_bytes = language.held_weight_bytes();
    const std::uint64_t row =
        2 * stored_bytes(cache_type(), 1, language.config().kv_heads * language.config().head_dim);
    report_.dense_kv_bytes =
        row * static_cast<std::uint64_t>(report_.layers * (prompt.size() + report_.decode_steps));
    for (index step = 0; step < report_.decode_steps; ++step)
      report_.dense_decode +=
          forward_cost(language, dense_loads(language.config(), prompt.size() + step, 1), cache_type());
    for (index layer = 0; layer < report_.layers; ++layer) {
      const auto neurons = sparsity_ ? sparsity_->decode_neurons(layer) : std::nullopt;
      report_.neurons.push_back(neurons ? neurons->size : report_.all_neurons);
    }
    if (sparsity_) {
      report_.selection_seconds = sparsity_->selection_seconds();
      report_.matches = sparsity_->matches();
      report_.silent_layers = sparsity_->silent_layers();
      if (dumps()) dump_.add_decisions(be_, *sparsity_, report_.layers);
    }
    report_.peak_memory_bytes = peak_memory();
    if (dumps()) dump_.write(options_.dump);
    if (!options_.show_tokens.empty()) show_tokens();
  }

  // Ids from here on have no token: the vocabulary was padded with their rows.
  index answer_ids() const {
    const index rows = model_->language().config().vocab_size;
    return asked_.words ? std::min<index>(rows, asked_.words->size()) : rows;
  }

  // What stands for a picture or fills batches is nothing to say, unless it is what ends answers.
  std::vector<std::int32_t> no_answers() const {
    std::vector<std::int32_t> ids;
    const llama_config& config = model_->language().config();
    if (model_->multimodal()) ids.push_back(model_->multimodal()->config().image_token_index);
    if (config.pad_token_id && !std::ranges::count(config.eos_token_ids, *config.pad_token_id))
      ids.push_back(*config.pad_token_id);
    return ids;
  }

  void show_tokens() {
    const llava_config& config = model_->multimodal()->config();
    const auto side = static_cast<int>(config.vision.image_size / config.vision.patch_size);
    token_figure figure{seen_, side, side, options_.prompt, report_.answer, {}};
    // Where the class token is a token too, it stands before the patches and has no place in the picture.
    const index first = report_.image_position + config.image_tokens() - config.vision.patches();
    for (const token_match& match : report_.matches) {
      token_panel panel{static_cast<int>(match.layer), {}};
      for (const std::int32_t position : match.kept_image_positions)
        if (position >= first) panel.kept.push_back(static_cast<std::int32_t>(position - first));
      figure.panels.push_back(std::move(panel));
    }
    write_png(draw_token_figure(figure), options_.show_tokens);
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
  run_report report_;
  request asked_;
  std::optional<loaded_model<B>> model_;
  std::optional<core_matching<B>> sparsity_;
  picture seen_;        // what the model sees of the picture
  matrix<B> features_;  // the image's tokens
  index max_new_tokens_ = 0;
  dump dump_;
};

}  // namespace corematching::driver
