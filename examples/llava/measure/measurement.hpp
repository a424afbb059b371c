// SPDX-License-Identifier: Apache-2.0
// Measures configurations beside the dense run, item by item, on any backend. What is scored is decoded with
// the given ids, whatever the model would have said: each configuration, by its own hooks, behind the same
// prompt. Prompts are dense but for dropped tokens, so configurations that drop none share one prefill.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "llava/console.hpp"
#include "llava/decoder_input.hpp"
#include "llava/loaded_model.hpp"
#include "llava/measure/prediction.hpp"
#include "llava/measure/run.hpp"
#include "llava/measure/shared_prefill.hpp"
#include "llava/request.hpp"
#include "llava/sparse_hooks.hpp"
#include "llava/stopwatch.hpp"

namespace corematching::driver {

template <sparse_backend B>
class measurement {
 public:
  measurement(B& be, const measurement_plan& plan, console& terminal)
      : be_(be), plan_(plan), terminal_(terminal) {}

  void run(const measurement_listener& to) {
    const auto items = std::ssize(plan_.items);
    const index done = to.begin(be_.describe());
    if (done == items) return;
    model_.emplace(load_model(be_, plan_.base, plan_.config, terminal_));
    for (index i = done; i < items; ++i) {
      runs_done_ = i * runs_of_item();
      to.on_item(measured(plan_.items[static_cast<std::size_t>(i)]));
    }
    terminal_.clear();
  }

 private:
  const llama<B>& language() const { return model_->language(); }
  index runs_of_item() const { return 1 + std::ssize(plan_.configurations); }

  // Of the dense run and of every configuration.
  std::vector<tally> measured(const scored_item& item) {
    try {
      features_ = seen(item);
      std::vector<tally> runs(static_cast<std::size_t>(runs_of_item()));
      measure_behind_one_prompt(item, runs);
      for (std::size_t i = 0; i < plan_.configurations.size(); ++i)
        if (drops_tokens(item, plan_.configurations[i]))
          runs[1 + i] = measured_alone(item, plan_.configurations[i]);
      return runs;
    } catch (const error& problem) {
      fail(item.name, ": ", problem.what());
    }
  }

  static bool drops_tokens(const scored_item& item, const configuration& one) {
    return driver::drops_tokens(one.how) && item.prompt.image_tokens() > 0;
  }

  // The tokens of the item's picture.
  matrix<B> seen(const scored_item& item) {
    if (!item.picture) return {};
    const picture shown = read_seen_picture(plan_.base, plan_.config, *item.picture);
    const image_processor processor(image_options(plan_.base, plan_.config));
    return model_->multimodal()->encode_image(be_, processor.normalise(shown));
  }

  // Of the dense run and of the configurations that drop no tokens, whose prompt is the same.
  void measure_behind_one_prompt(const scored_item& item, std::vector<tally>& runs) {
    std::vector<std::unique_ptr<sparse_state<B>>> states(plan_.configurations.size());
    shared_prefill<B> prompt;
    index rows = ffn_rows(plan_.base, item.prompt.size());
    for (std::size_t i = 0; i < states.size(); ++i) {
      const configuration& one = plan_.configurations[i];
      if (drops_tokens(item, one)) continue;
      states[i] = started(item, one);
      if (states[i]) prompt.add(*states[i]);
      rows = std::max(rows, ffn_rows(one.how, item.prompt.size()));
    }
    sequence<B> seq = empty_sequence(item);
    decoder_input<B> input = entering(item, std::nullopt);
    const std::vector<float> first =
        prompt.with_hook([&](auto hook) { return read(seq, input, rows, hook); });
    runs.front() = measured_densely(seq, item, first);
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (drops_tokens(item, plan_.configurations[i])) continue;
      seq.take_back(std::ssize(item.scored) - 1);
      runs[1 + i] = compared(seq, item, first, states[i].get(), item.prompt.image_tokens());
    }
  }

  tally measured_alone(const scored_item& item, const configuration& one) {
    const auto state = started(item, one);
    sequence<B> seq = empty_sequence(item);
    decoder_input<B> input = entering(item, thinning_of(one.how));
    const index rows = ffn_rows(one.how, input.x.rows());
    const std::vector<float> first =
        state ? with_prefill_hook(*state, [&](auto hook) { return read(seq, input, rows, hook); })
              : read(seq, input, rows, no_hook{});
    const index entered =
        input.thinned ? std::ssize(input.thinned->kept_image_positions) : item.prompt.image_tokens();
    return compared(seq, item, first, state.get(), entered);
  }

  // Null where the decoder leaves nothing out.
  std::unique_ptr<sparse_state<B>> started(const scored_item& item, const configuration& one) {
    if (!is_sparse(one.how)) return nullptr;
    auto state = std::make_unique<sparse_state<B>>(be_, one.how, language().config());
    state->begin_prompt(0, item.prompt.kinds, item.prompt.picture_sizes);
    return state;
  }

  decoder_input<B> entering(const scored_item& item, const std::optional<thinning_config>& thinning) {
    return make_decoder_input(be_, language(), item.prompt, features_, 0, thinning);
  }

  sequence<B> empty_sequence(const scored_item& item) {
    return language().start(be_, std::ssize(item.scored),
                            cache_type_of<B>(plan_.base, language().weight_type()));
  }

  // Logits behind the prompt.
  template <class Hook>
  std::vector<float> read(sequence<B>& seq, decoder_input<B>& input, index rows, Hook&& hook) {
    return language().prefill(be_, seq, input.x.view(), input.where(), rows, hook);
  }

  // `first` are the logits behind the prompt.
  tally measured_densely(sequence<B>& seq, const scored_item& item, const std::vector<float>& first) {
    dense_.clear();
    dense_logits_.clear();
    dense_logits_.reserve(item.scored.size() * first.size());  // so that they stay where they are
    const auto keep = [this](index, const prediction& now, tally& sums) {
      const std::span<const float> logits = now.logits();
      dense_logits_.insert(dense_logits_.end(), logits.begin(), logits.end());
      dense_.emplace_back(std::span<const float>(dense_logits_).last(logits.size()));
      ++sums.agreed;
    };
    tally sums = decoded(seq, item, first, no_hook{}, keep);
    sums.kept_image_tokens = sums.image_tokens;
    return sums;
  }

  // Beside the dense run of the same item; of its image tokens `entered` were not dropped before the decoder.
  tally compared(sequence<B>& seq, const scored_item& item, const std::vector<float>& first,
                 const sparse_state<B>* state, index entered) {
    const auto compare = [this](index i, const prediction& now, tally& sums) {
      const prediction& dense = dense_[static_cast<std::size_t>(i)];
      sums.divergence += dense.divergence_to(now);
      sums.agreed += now.likeliest() == dense.likeliest();
    };
    tally sums =
        with_decode_hook(state, [&](const auto& hook) { return decoded(seq, item, first, hook, compare); });
    const bool matched = state != nullptr && !state->matching().matches().empty();
    sums.kept_image_tokens = matched ? state->matching().matches().back().kept_image_positions.size()
                                     : static_cast<std::uint64_t>(entered);
    return sums;
  }

  // Decodes the scored tokens behind the prompt, `first` the logits behind it; observe(place, prediction,
  // sums) sees what is foretold of each. Time and bytes are those of steps of one token.
  template <class Hook, class Observe>
  tally decoded(sequence<B>& seq, const scored_item& item, const std::vector<float>& first, const Hook& hook,
                const Observe& observe) {
    const std::span<const std::int32_t> ids(item.scored);
    tally sums{.tokens = ids.size(),
               .items = 1,
               .exact = 1,
               .image_tokens = static_cast<std::uint64_t>(item.prompt.image_tokens())};
    const auto look = [&](std::size_t at, std::span<const float> logits) {
      const prediction now(logits);
      sums.surprise += now.surprise(ids[at]);
      if (now.likeliest() != ids[at]) sums.exact = 0;
      observe(static_cast<index>(at), now, sums);
    };
    look(0, first);
    const std::size_t steps = std::min(ids.size() - 1, timed_steps());
    const work_counters before = be_.counters();
    const auto timed_step = [&](std::int32_t id) {
      const stopwatch watch(sums.seconds);
      return language().decode(be_, seq, id, hook);
    };
    for (std::size_t i = 1; i <= steps; ++i) look(i, timed_step(ids[i - 1]));
    const work_counters work = be_.counters() - before;
    sums.steps = steps;
    sums.weight_bytes = work.weight_bytes;
    sums.ffn_bytes = work.weight_bytes - sums.steps * bytes_beside_ffn(language());
    sums.kv_bytes = work.kv_bytes;
    for (std::size_t i = steps + 1, count; i < ids.size(); i += count) {
      count = std::min(ids.size() - i, at_once);
      const std::vector<float> logits = language().decode(be_, seq, ids.subspan(i - 1, count), hook);
      for (std::size_t j = 0; j < count; ++j)
        look(i + j, std::span(logits).subspan(j * first.size(), first.size()));
    }
    terminal_.progress("measuring", static_cast<double>(++runs_done_),
                       static_cast<double>(std::ssize(plan_.items) * runs_of_item()));
    return sums;
  }

  static constexpr std::size_t at_once = 64;  // tokens decoded in one pass, where that is not timed
  std::size_t timed_steps() const {
    return plan_.timed_steps ? static_cast<std::size_t>(*plan_.timed_steps)
                             : std::numeric_limits<std::size_t>::max();
  }

  B& be_;
  const measurement_plan& plan_;
  console& terminal_;
  std::optional<loaded_model<B>> model_;
  index runs_done_ = 0;
  matrix<B> features_;               // of the item's picture
  std::vector<float> dense_logits_;  // [scored, vocabulary] of the item's dense run
  std::vector<prediction> dense_;    // one for each of its rows
};

}  // namespace corematching::driver
