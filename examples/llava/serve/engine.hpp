// SPDX-License-Identifier: Apache-2.0
// Answers many questions at once with one model. Whoever asks has the prompt made on the own thread; one
// thread owns backend and model, and does in turn what there is to do: admit the next question if keys and
// values of its answer fit beside those of the others, read a part of a prompt, and run one step of all that
// answer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "corematching/model/batch/admission.hpp"
#include "llava/console.hpp"
#include "llava/loaded_model.hpp"
#include "llava/presets.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/engine_limits.hpp"
#include "llava/serve/running_answer.hpp"
#include "llava/serve/taken_question.hpp"

namespace corematching::driver {

template <sparse_backend B>
class engine final : public answering {
 public:
  /// Loads the model that `o` names onto `be`. Throws `error` where that cannot be done.
  engine(B be, const options& o, const engine_limits& limits, console& terminal)
      : be_(std::move(be)),
        limits_((limits.validate(), limits)),
        files_(read_files(o, terminal)),
        loaded_(load_model(be_, o, files_.config, terminal)),
        parts_{be_,
               files_,
               loaded_,
               cache_type_of<B>(o, loaded_.language().weight_type()),
               image_processor(image_options(o, files_.config)),
               picture_features<B>(limits_.picture_bytes),
               text_prefixes<B>(loaded_.language().steps_together() ? limits_.prefix_bytes : 0)},
        budget_(limits_.cache_bytes) {
    const llama<B>& language = loaded_.language();
    // Under a limit of memory there is one sequence's subset of the weights.
    if (!language.steps_together()) limits_.running = 1;
    memory_.emplace(language.make_batch(be_, limits_.running));
    const linked::description by = be_.describe();
    model_ = {name_of_model(o.model), files_.config.llava() != nullptr, files_.config.text().context(),
              weights_label(o, language.weight_type()),
              by.device + (by.instruction_set.empty() ? "" : " " + by.instruction_set)};
    state_.cache_limit_bytes = limits_.cache_bytes;
    worker_ = std::thread([this] { work(); });
  }
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  /// What has not been answered fails.
  ~engine() override {
    {
      const std::lock_guard lock(mutex_);
      draining_ = stopped_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }

  const answering_model& model() const override { return model_; }

  std::shared_ptr<answer_stream> ask(question asked) override {
    require_place();  // before pictures are decoded in vain
    taken_question taken = take_question(std::move(asked), files_, parts_.cache_type, limits_);
    auto stream = taken.stream;
    {
      const std::lock_guard lock(mutex_);
      require_place_locked();
      waiting_.push_back(std::move(taken));
    }
    changed_.notify_all();
    return stream;
  }

  answering_state state() const override {
    const std::lock_guard lock(mutex_);
    answering_state now = state_;
    now.waiting = std::ssize(waiting_);
    return now;
  }

  void drain() override {
    std::unique_lock lock(mutex_);
    draining_ = true;
    changed_.wait(lock, [&] { return waiting_.empty() && idle_; });
  }

 private:
  using answer = running_answer<B>;
  using answer_pointer = std::unique_ptr<answer>;

  static request read_files(const options& o, console& terminal) {
    request files = read_model_files(o);
    require(files.words != nullptr, o.model.string(),
            ": has no tokenizer, without which nothing can be asked");
    files.format = &chosen_format(o, files.config, [&](const std::string& text) { terminal.notice(text); });
    return files;
  }

  // The last part of its path, which may end with a slash or be ".".
  static std::string name_of_model(const std::filesystem::path& model) {
    const auto whole = std::filesystem::weakly_canonical(model);
    return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
  }

  void require_place() const {
    const std::lock_guard lock(mutex_);
    require_place_locked();
  }
  void require_place_locked() const {
    if (draining_) throw question_refused(refusal::too_busy, "no more questions are taken");
    if (std::ssize(waiting_) >= limits_.waiting)
      throw question_refused(refusal::too_busy,
                             std::to_string(waiting_.size()) + " questions are waiting already");
  }

  void work() {
    while (wait_for_work()) {
      drop_cancelled();
      admit();
      if (reading_) guarded(reading_, [&] { read(); });
      if (!answering_.empty()) step();
    }
    fail_all("the server stops");
  }

  // Returns whether there is to be more work.
  bool wait_for_work() {
    const bool busy = reading_ || !answering_.empty();
    std::unique_lock lock(mutex_);
    state_.running = std::ssize(answering_) + (reading_ ? 1 : 0);
    state_.cache_bytes = budget_.taken();
    const cache_uses& pictures = parts_.pictures.uses();
    state_.pictures = pictures.found + pictures.missed;
    state_.cached_pictures = pictures.found;
    idle_ = !busy;
    if (idle_) changed_.notify_all();
    changed_.wait(lock, [&] { return stopped_ || busy || !waiting_.empty(); });
    idle_ = false;
    return !stopped_;
  }

  void drop_cancelled() {
    const auto is_cancelled = [](const taken_question& taken) { return taken.stream->cancelled(); };
    {
      const std::lock_guard lock(mutex_);
      state_.cancelled += std::erase_if(waiting_, is_cancelled);
    }
    const auto drop = [&](answer_pointer& of) {
      if (!of || !is_cancelled(of->asked())) return;
      leave(*of);
      of = nullptr;
      const std::lock_guard lock(mutex_);
      ++state_.cancelled;
    };
    drop(reading_);
    for (answer_pointer& each : answering_) drop(each);
    std::erase(answering_, nullptr);
  }

  // The longest waiting question, if it fits; who comes later does not overtake it.
  void admit() {
    if (reading_ || std::ssize(answering_) >= limits_.running) return;
    std::optional<taken_question> next;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty() || !budget_.fits(waiting_.front().cache_bytes)) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    budget_.take(next->cache_bytes);
    const auto stream = next->stream;
    const std::uint64_t bytes = next->cache_bytes;
    try {
      reading_ = std::make_unique<answer>(parts_, std::move(*next));
    } catch (const std::exception& problem) {
      budget_.give_back(bytes);
      fail(*stream, problem.what());
    }
  }

  void read() {
    if (!reading_->read(limits_.layers_at_once)) return;
    if (reading_->ended()) return finish(reading_);
    // Neighbours choose their neurons alike.
    const auto place = std::ranges::upper_bound(answering_, reading_->kind(), {},
                                                [](const answer_pointer& each) { return each->kind(); });
    answering_.insert(place, std::move(reading_));
  }

  void step() {
    double seconds = 0;
    const work_counters before = be_.counters();
    std::vector<matrix_view<const float, typename B::space>> logits;
    {
      const stopwatch watch(seconds);
      logits = answering_.size() == 1 ? step_apart() : step_together();
    }
    std::erase(answering_, nullptr);
    count_step(seconds, be_.counters() - before);
    for (std::size_t i = 0; i < answering_.size(); ++i)
      guarded(answering_[i], [&] {
        answering_[i]->take(logits[i]);
        if (answering_[i]->ended()) finish(answering_[i]);
      });
    std::erase(answering_, nullptr);
  }

  using logits_views = std::vector<matrix_view<const float, typename B::space>>;

  // Where the step fails, those whose fault it is not take it alone.
  logits_views step_together() {
    try {
      std::vector<batch_member<B>> members;
      for (const answer_pointer& each : answering_) members.push_back(each->member());
      logits_views logits;
      logits.reserve(answering_.size());  // behind the step nothing may fail: caches are longer then
      const auto all = loaded_.language().step_together(be_, *memory_, members);
      for (index i = 0; i < all.rows; ++i) logits.emplace_back(all.middle_rows(i, 1));
      return logits;
    } catch (const std::exception&) {
      return step_apart();
    }
  }

  logits_views step_apart() {
    logits_views logits;
    for (answer_pointer& each : answering_)
      guarded(each, [&] {
        each->step();
        logits.push_back(std::as_const(*each).logits_of_step());
      });
    return logits;
  }

  // Of a step's work everyone has an equal share, and of its time all.
  void count_step(double seconds, const work_counters& work) {
    const auto members = std::max<std::uint64_t>(answering_.size(), 1);
    const std::uint64_t beside = std::min(work.weight_bytes, bytes_beside_ffn(loaded_.language()));
    for (const answer_pointer& each : answering_)
      each->count_step(seconds, {work.flops / members, work.weight_bytes / members, work.kv_bytes / members},
                       (work.weight_bytes - beside) / members);
    const std::lock_guard lock(mutex_);
    ++state_.steps;
    state_.decode_seconds += seconds;
  }

  // Runs `body`; if it fails, that is the end of `of`, and of nothing else.
  template <class Body>
  void guarded(answer_pointer& of, Body&& body) {
    const std::shared_ptr<answer_stream> stream = of->asked().stream;
    const auto give_up = [&](const char* text, refusal why) {
      if (of) leave(*of);
      of = nullptr;
      fail(*stream, text, why);
    };
    try {
      body();
    } catch (const question_refused& problem) {
      give_up(problem.what(), problem.why());
    } catch (const std::exception& problem) {
      give_up(problem.what(), refusal::failed);
    }
  }

  void fail(answer_stream& stream, const char* text, refusal why = refusal::failed) {
    stream.fail(text, why);
    const std::lock_guard lock(mutex_);
    ++state_.failed;
  }

  void fail_all(const char* why) {
    if (reading_) fail(*reading_->asked().stream, why);
    for (const answer_pointer& each : answering_) fail(*each->asked().stream, why);
    reading_ = nullptr;
    answering_.clear();
    for (const taken_question& taken : waiting_) fail(*taken.stream, why);  // no more are taken
    {
      const std::lock_guard lock(mutex_);
      waiting_.clear();
      idle_ = true;
    }
    changed_.notify_all();
  }

  void leave(const answer& of) { budget_.give_back(of.asked().cache_bytes); }

  // Counted first: who is told may look.
  void finish(answer_pointer& of) {
    const run_report& report = of->report();
    {
      const std::lock_guard lock(mutex_);
      ++state_.answered;
      state_.prompt_tokens += static_cast<std::uint64_t>(report.prompt_tokens);
      state_.cached_prompt_tokens += static_cast<std::uint64_t>(of->cached_tokens());
      state_.answer_tokens += report.generated_ids.size();
      state_.image_tokens += static_cast<std::uint64_t>(report.image_tokens);
      state_.kept_image_tokens += static_cast<std::uint64_t>(report.image_tokens_left());
      state_.vision_seconds += report.vision_seconds;
      state_.prefill_seconds += report.prefill_seconds;
      state_.selection_seconds += report.selection_seconds;
    }
    of->tell_end();
    leave(*of);
    of = nullptr;
  }

  B be_;
  engine_limits limits_;
  const request files_;
  const loaded_model<B> loaded_;
  answering_parts<B> parts_;
  memory_budget budget_;
  std::optional<batch_memory<B>> memory_;
  answering_model model_;

  // Of the thread that works.
  answer_pointer reading_;                 // whose prompt is being read
  std::vector<answer_pointer> answering_;  // sorted by kind

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<taken_question> waiting_;
  answering_state state_;
  bool draining_ = false;
  bool stopped_ = false;
  bool idle_ = true;
  std::thread worker_;
};

}  // namespace corematching::driver
