// SPDX-License-Identifier: Apache-2.0
#include "llava/batch/command.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/batch/options.hpp"
#include "llava/batch/request_lines.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_answer.hpp"
#include "llava/serve/chat_request.hpp"
#include "llava/serve/followed_answer.hpp"

namespace corematching::driver {
namespace {

using namespace std::chrono_literals;

class batch_run {
 public:
  batch_run(const batch_options& o, answering& model, const request_lines& asked, answer_lines& answers,
            console& terminal)
      : options_(o),
        model_(model),
        asked_(asked),
        answers_(answers),
        terminal_(terminal),
        done_(answers.size()) {}

  /// Answers what has no answer yet; returns how many could not be.
  std::size_t run() {
    // One more than run at a time, so that its prompt is made before it has its turn.
    const auto threads = static_cast<std::size_t>(options_.engine.running) + 1;
    std::vector<std::thread> all;
    for (std::size_t i = 0; i < std::min(threads, asked_.all().size()); ++i)
      all.emplace_back([this] { work(); });
    for (std::thread& one : all) one.join();
    terminal_.clear();
    if (problem_) std::rethrow_exception(problem_);
    return refused_;
  }

 private:
  void work() {
    try {
      for (std::size_t at; !has_failed_ && (at = next_++) < asked_.all().size();)
        if (!answers_.has(asked_.all()[at].id)) put(asked_.all()[at]);
    } catch (...) {  // nothing can be written: the others have no use either
      const std::lock_guard lock(mutex_);
      has_failed_ = true;
      if (!problem_) problem_ = std::current_exception();
    }
  }

  void put(const request_line& line) {
    const std::string text = asked_.text_of(line);
    std::string said;
    try {
      said = answer(text);
    } catch (const api_error& problem) {
      refuse(line, problem);
    } catch (const std::exception& problem) {  // of this line: the others may do better
      if (has_failed_) throw;
      refuse(line, api_error(500, "failed", problem.what()));
    }
    if (!said.empty()) answers_.add_answer(line.id, said);
    const std::lock_guard lock(mutex_);
    terminal_.progress("answering", static_cast<double>(++done_), static_cast<double>(asked_.all().size()));
  }

  void refuse(const request_line& line, const api_error& problem) {
    answers_.add_error(line.id, io::json_text(io::json::parse(error_json(problem)).at("error")));
    ++refused_;
  }

  /// The object of an answer.
  std::string answer(const std::string& text) {
    chat_request request = parse_chat_request(
        text, {options_.base, model_.model(), static_cast<std::size_t>(options_.engine.pictures),
               options_.input.parent_path()});
    if (request.is_streamed)
      throw api_error(400, "invalid_value", "stream: lines are written whole", "stream");
    const auto began = followed_answer::clock::now();
    answer_heading heading = new_heading(model_.model());
    heading.with_scores = request.asked.with_scores;
    heading.with_logprobs = request.asked.with_logprobs;
    auto stream = ask(std::move(request.asked));
    followed_answer following(std::move(stream), began, followed_answer::clock::now(),
                              followed_answer::clock::time_point::max());
    std::vector<said_token> tokens;
    const answer_outcome outcome =
        following.follow({.is_gone = [this] { return has_failed_.load(); },
                          .on_piece =
                              [&](const answer_piece& piece) {
                                tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
                                return true;
                              },
                          .on_silence = [] { return true; }},
                         never_);
    if (const auto* problem = std::get_if<api_error>(&outcome)) throw *problem;
    require(!std::holds_alternative<vanished>(outcome), "the answers cannot be written");
    return whole_answer(heading, std::get<answer_complete>(outcome), tokens, following.times());
  }

  /// Waits where the queue is full.
  std::shared_ptr<answer_stream> ask(question asked) {
    for (;;) {
      try {
        return model_.ask(asked);
      } catch (const question_refused& refused) {
        if (refused.why() != refusal::too_busy) throw error_of(refused.why(), refused.what());
        require(!has_failed_, "the answers cannot be written");
      } catch (const error& refused) {
        throw api_error(400, "invalid_value", refused.what(), "messages");
      }
      std::this_thread::sleep_for(50ms);
    }
  }

  const batch_options& options_;
  answering& model_;
  const request_lines& asked_;
  answer_lines& answers_;
  console& terminal_;
  std::atomic<std::size_t> next_ = 0, refused_ = 0;
  std::atomic<bool> has_failed_ = false;
  const std::atomic<bool> never_ = false;
  std::mutex mutex_;
  std::exception_ptr problem_;
  std::size_t done_;
};

}  // namespace

bool run_batch(int argc, const char* const* argv, console& terminal, const engine_maker& make_engine) {
  const batch_options o = parse_batch_options(argc, argv);
  const request_lines asked(o.input);
  answer_lines answers(o.output, asked);
  const std::size_t before = answers.size();
  std::size_t refused = 0;
  if (before < asked.all().size()) {
    const std::unique_ptr<answering> engine = make_engine(o.base, o.engine, terminal);
    refused = batch_run(o, *engine, asked, answers, terminal).run();
    engine->drain();
  }
  std::cout << o.output.string() << ": " << asked.all().size() - before - refused << " answers, " << refused
            << " errors, " << before << " lines that were there before\n"
            << std::flush;
  return refused == 0;
}

}  // namespace corematching::driver
