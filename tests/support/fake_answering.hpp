// SPDX-License-Identifier: Apache-2.0
// Answers every question with the same words, a step apart, and remembers what it was asked: a server is
// tested without a model.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "llava/serve/answering.hpp"

namespace support {

struct fake_behaviour {
  std::vector<std::string> words = {"Two", " red", " cubes", "."};
  std::chrono::milliseconds step{1};
  std::chrono::milliseconds queue{0};
  std::function<void(const corematching::driver::question&)> refuse = {};  // by throwing
  std::optional<corematching::driver::answer_failed> fails = {};           // behind the words
};

class fake_answering : public corematching::driver::answering {
 public:
  explicit fake_answering(fake_behaviour how = {}) : how_(std::move(how)) {}
  ~fake_answering() override { drain(); }

  const corematching::driver::answering_model& model() const override { return model_; }
  std::shared_ptr<corematching::driver::answer_stream> ask(corematching::driver::question asked) override {
    if (how_.refuse) how_.refuse(asked);
    auto stream = std::make_shared<corematching::driver::answer_stream>();
    const std::lock_guard lock(mutex_);
    last_ = asked;
    ++asked_;
    ++running_;
    threads_.emplace_back([this, stream, asked = std::move(asked)] {
      answer(*stream, asked);
      --running_;
    });
    return stream;
  }
  corematching::driver::answering_state state() const override {
    corematching::driver::answering_state state;
    state.running = running_;
    state.answered = answered_;
    state.cancelled = cancelled_;
    state.steps = steps_;
    return state;
  }
  void drain() override {
    std::vector<std::thread> ending;
    {
      const std::lock_guard lock(mutex_);
      ending.swap(threads_);
    }
    for (std::thread& one : ending) one.join();
  }

  corematching::driver::question last() const {
    const std::lock_guard lock(mutex_);
    return last_;
  }
  int asked() const { return asked_; }
  int running() const { return running_; }
  int answered() const { return answered_; }
  int cancelled() const { return cancelled_; }
  int steps() const { return steps_; }
  corematching::driver::answering_model& described() { return model_; }

 private:
  void answer(corematching::driver::answer_stream& to, const corematching::driver::question& asked) {
    namespace driver = corematching::driver;
    std::this_thread::sleep_for(how_.queue);
    to.push(driver::answer_begun{.waited_seconds = 0.25});
    driver::answer_complete end = report_of(asked);
    for (const std::string& word : how_.words) {
      if (to.cancelled()) {
        ++cancelled_;
        return;
      }
      std::this_thread::sleep_for(how_.step);
      ++steps_;
      const auto id = static_cast<std::int32_t>(end.report.generated_ids.size());
      end.report.generated_ids.push_back(id);
      end.report.answer += word;
      driver::answer_piece piece{.text = word};
      if (asked.with_logprobs) {
        driver::said_token said{{id, word, -0.5}};
        for (corematching::index i = 0; i < asked.top_logprobs; ++i)
          said.others.push_back({id, word, -0.5 - static_cast<double>(i)});
        piece.tokens.push_back(said);
      }
      to.push(std::move(piece));
    }
    if (how_.fails) {
      to.push(*how_.fails);
      return;
    }
    ++answered_;
    to.push(std::move(end));
  }

  /// Two pictures of four tokens, from positions 3 and 9, of which one layer keeps three.
  static corematching::driver::answer_complete report_of(const corematching::driver::question& asked) {
    corematching::driver::answer_complete end;
    end.report.has_text = true;
    end.report.finished = "stop";
    end.report.prompt_tokens = 15;
    end.report.layers = 2;
    end.report.all_neurons = 8;
    end.report.prefill_seconds = 0.5;
    end.report.policy = asked.how.sparsity.sparse_neurons ? "sentence" : "";
    end.report.neurons = {3, 4};
    end.report.betas = {0.4, 0.4};
    end.report.image_tokens = 8;
    end.report.matches.push_back({.layer = 1,
                                  .kept_positions = {0, 1, 4, 6, 9},
                                  .kept_image_positions = {4, 6, 9},
                                  .image_tokens = 8});
    end.picture_positions = {3, 9};
    end.cached_tokens = 5;
    return end;
  }

  corematching::driver::answering_model model_{
      .name = "fake", .sees_pictures = true, .context = 4096, .weights = "f32", .computed_by = "nobody"};
  fake_behaviour how_;
  mutable std::mutex mutex_;
  std::vector<std::thread> threads_;
  corematching::driver::question last_;
  std::atomic<int> asked_ = 0, running_ = 0, answered_ = 0, cancelled_ = 0, steps_ = 0;
};

}  // namespace support
