// SPDX-License-Identifier: Apache-2.0
// Measures configurations beside the dense run, item by item, on any backend. What is scored is decoded token
// by token with the given ids, whatever the model would have said: each configuration, by its own hooks,
// behind the same prompt. Prompts are dense but for dropped tokens, so configurations that drop none share
// one prefill.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "llava/console.hpp"
#include "llava/loaded_model.hpp"
#include "llava/measure/prediction.hpp"
#include "llava/measure/run.hpp"
#include "llava/measure/shared_prefill.hpp"
#include "llava/request.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/stopwatch.hpp"

namespace corematching::driver {

template <selecting_backend B>
class measurement {
 public:
  measurement(B& be, const measurement_plan& plan, console& terminal)
      : be_(be), plan_(plan), terminal_(terminal) {}

  void run(const measurement_listener& to) {
    const auto items = std::ssize(plan_.items);
    const index done = to.begin(be_.describe());
    if (done == items) return;
    model_.emplace(load_model(be_, plan_.base, plan_.config, terminal_));
    bytes_beside_ffn_ = language().head_weight_bytes();
    for (index i = 0; i < language().config().layers; ++i)
      bytes_beside_ffn_ += language().bytes_of_layer(i).attention;
    for (index i = done; i < items; ++i) {
      runs_done_ = i * runs_of_item();
      to.on_item(measured(plan_.items[static_cast<std::size_t>(i)]));
    }
    terminal_.clear();
  }

 private:
  using states =
      std::vector<std::unique_ptr<core_matching<B>>>;  // of configurations; null where there is none

  const llama<B>& language() const { return model_->language(); }
  index runs_of_item() const { return 1 + std::ssize(plan_.configurations); }

  std::vector<tally> measured(const scored_item& item) {
    try {
      features_ = seen(item);
      dense_logits_.clear();
      std::vector<tally> all(static_cast<std::size_t>(runs_of_item()));
      measure_on_one_prompt(item, all);
      for (std::size_t i = 0; i < plan_.configurations.size(); ++i)
        if (drops_tokens(item, plan_.configurations[i]))
          all[i + 1] = measured_alone(item, plan_.configurations[i]);
      return all;
    } catch (const error& problem) {
      fail(item.name, ": ", problem.what());
    }
  }

  static bool drops_tokens(const scored_item& item, const configuration& one) {
    return one.how.sparsity.sparse_tokens && item.prompt.image_tokens() > 0;
  }

  // The tokens of the item's picture.
  matrix<B> seen(const scored_item& item) {
    if (!item.picture) return {};
    const picture shown = read_seen_picture(plan_.base, plan_.config, *item.picture);
    const image_processor processor(image_options(plan_.base, plan_.config));
    return model_->multimodal()->encode_image(be_, processor.normalise(shown));
  }

  // The dense run, and the configurations that only its prompt is counted for.
  void measure_on_one_prompt(const scored_item& item, std::vector<tally>& all) {
    states of(plan_.configurations.size());
    shared_prefill_hook<B> hook;
    index rows = 0;
    for (std::size_t i = 0; i < of.size(); ++i) {
      const configuration& one = plan_.configurations[i];
      if (drops_tokens(item, one)) continue;
      of[i] = started(item, one);
      hook.add(*of[i]);
      rows = std::max(rows, ffn_rows(one.how, item.prompt.size()));
    }
    sequence<B> seq = empty_sequence(item);
    const std::vector<float> foretold =
        read(seq, item, std::max(rows, ffn_rows(plan_.base, item.prompt.size())), hook);
    all.front() =
        decoded(seq, item, foretold, no_hook{}, [this](index, std::span<const float> logits, tally& sums) {
          dense_logits_.insert(dense_logits_.end(), logits.begin(), logits.end());
          ++sums.agreed;
        });
    all.front().kept_image_tokens = all.front().image_tokens;
    for (std::size_t i = 0; i < of.size(); ++i) {
      if (!of[i]) continue;
      seq.take_back(std::ssize(item.scored) - 1);
      all[i + 1] = compared(seq, item, foretold, *of[i]);
    }
  }

  tally measured_alone(const scored_item& item, const configuration& one) {
    const auto state = started(item, one);
    sequence<B> seq = empty_sequence(item);
    const std::vector<float> foretold = with_prefill_hook(
        *state, [&](auto hook) { return read(seq, item, ffn_rows(one.how, item.prompt.size()), hook); });
    return compared(seq, item, foretold, *state);
  }

  std::unique_ptr<core_matching<B>> started(const scored_item& item, const configuration& one) {
    auto state = std::make_unique<core_matching<B>>(*sparsity_of(be_, one.how, language().config()));
    state->begin_prompt(0, item.prompt.kinds);
    return state;
  }

  sequence<B> empty_sequence(const scored_item& item) {
    return language().start(be_, std::ssize(item.scored),
                            cache_type_of<B>(plan_.base, language().weight_type()));
  }

  // Logits behind the prompt.
  template <class Hook>
  std::vector<float> read(sequence<B>& seq, const scored_item& item, index rows, Hook&& hook) {
    matrix<B> x = embed_prompt(be_, language(), item.prompt, std::as_const(features_).view());
    return language().prefill(be_, seq, x.view(), rows, hook);
  }

  // What the dense run foretold is at hand.
  tally compared(sequence<B>& seq, const scored_item& item, const std::vector<float>& foretold,
                 const core_matching<B>& state) {
    const auto compare = [this](index i, std::span<const float> logits, tally& sums) {
      const auto all = std::span<const float>(dense_logits_);
      const prediction now(logits),
          dense(all.subspan(static_cast<std::size_t>(i) * logits.size(), logits.size()));
      sums.divergence += dense.divergence_to(now);
      sums.agreed += now.likeliest() == dense.likeliest();
    };
    tally sums = with_decode_hook(
        &state, [&](const auto& hook) { return decoded(seq, item, foretold, hook, compare); });
    sums.kept_image_tokens =
        state.matches().empty() ? sums.image_tokens : state.matches().back().kept_image_positions.size();
    return sums;
  }

  // Decodes the scored tokens behind the prompt, `logits` behind which are given; observe(place, logits,
  // sums) sees what is foretold of each.
  template <class Hook, class Observe>
  tally decoded(sequence<B>& seq, const scored_item& item, std::vector<float> logits, const Hook& hook,
                const Observe& observe) {
    tally sums{.items = 1, .image_tokens = static_cast<std::uint64_t>(item.prompt.image_tokens())};
    const work_counters before = be_.counters();
    bool exact = true;
    for (index i = 0; i < std::ssize(item.scored); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (i > 0) {
        const stopwatch watch(sums.seconds);
        logits = language().decode(be_, seq, item.scored[at - 1], hook);
      }
      const prediction now(logits);
      sums.surprise += now.surprise(item.scored[at]);
      exact = exact && now.likeliest() == item.scored[at];
      observe(i, logits, sums);
    }
    const work_counters work = be_.counters() - before;
    sums.tokens = item.scored.size();
    sums.steps = sums.tokens - 1;
    sums.exact = exact;
    sums.weight_bytes = work.weight_bytes;
    sums.ffn_bytes = work.weight_bytes - sums.steps * bytes_beside_ffn_;
    sums.kv_bytes = work.kv_bytes;
    terminal_.progress("measuring", static_cast<double>(++runs_done_),
                       static_cast<double>(std::ssize(plan_.items) * runs_of_item()));
    return sums;
  }

  B& be_;
  const measurement_plan& plan_;
  console& terminal_;
  std::optional<loaded_model<B>> model_;
  std::uint64_t bytes_beside_ffn_ = 0;  // of weights that a step reads outside of feed-forward blocks
  index runs_done_ = 0;
  matrix<B> features_;               // of the item's picture
  std::vector<float> dense_logits_;  // [scored, vocabulary] of the item's dense run
};

}  // namespace corematching::driver
