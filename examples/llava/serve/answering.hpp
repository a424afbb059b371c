// SPDX-License-Identifier: Apache-2.0
// Where the server ends and the model begins: questions go in, the pieces of their answers come out. Who
// listens and who answers are different threads.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/chat/message.hpp"
#include "llava/options.hpp"
#include "llava/report.hpp"

namespace corematching::driver {

/// What one request asks, checked as far as that goes without the model.
struct question {
  std::vector<chat::message> messages;  // their pictures are bytes
  options how;                          // the server's own, with what the request changes: what is left out,
                                        // sampling, stops, max_new_tokens
  bool with_logprobs = false;           // of the tokens that are said,
  index top_logprobs = 0;               // and of so many that might have been
  bool with_scores = false;             // of image tokens at matching layers
  std::function<void()> go_on = {};     // called between pictures; throws where nobody waits any more
};

/// A token with the natural logarithm of its probability, before temperature and the like.
struct likely_token {
  std::int32_t id = 0;
  std::string text = {};  // bytes, which alone may be no UTF-8; of a special token its name
  double logprob = 0;
  bool is_in_text = true;  // special tokens are not
};
struct said_token {
  likely_token token;
  std::vector<likely_token> others = {};  // the most likely ones, falling
};

/// The question has left the queue: an answer will follow.
struct answer_begun {
  double waited_seconds = 0;
};
/// More of the answer's text, in whole characters, and the tokens said since the last piece.
struct answer_piece {
  std::string text = {};
  std::vector<said_token> tokens = {};  // empty unless asked for
};
/// The answer is complete.
struct answer_complete {
  run_report report = {};
  std::vector<index> picture_positions = {};  // in the prompt, of the first token of each picture
  index cached_tokens = 0;                    // of the prompt that had been read for another question before
};
/// There will be no (more) answer.
enum class refusal : std::uint8_t {
  bad_question,  // whoever asks has to change it
  bad_settings,  // or what is left out
  too_large,     // it does not fit, however long one waits
  too_busy,      // later, perhaps
  failed         // nobody's fault who asks
};
struct answer_failed {
  refusal why = refusal::failed;
  std::string text = {};
};
using answer_event = std::variant<answer_begun, answer_piece, answer_complete, answer_failed>;

/// What a question is told, in order; the last event is answer_complete or answer_failed.
class answer_stream {
 public:
  /// The next event; nothing where there was none within `at_most`.
  std::optional<answer_event> next(std::chrono::milliseconds at_most) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, at_most, [&] { return !events_.empty() || failed_; })) return std::nullopt;
    if (events_.empty()) return answer_failed{refusal::failed, "the answer failed for want of memory"};
    answer_event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  /// Nobody listens any more: the answer ends before its next step.
  void cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }

  void push(answer_event event) {
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_) return;
      events_.push_back(std::move(event));
    }
    changed_.notify_all();
  }
  /// The last event, where there may be no memory left: `text`, or that it could not be said.
  void fail(const char* text, refusal why = refusal::failed) noexcept {
    try {
      push(answer_failed{why, text});
    } catch (const std::exception&) {
      const std::lock_guard lock(mutex_);
      failed_ = true;
      changed_.notify_all();
    }
  }
  bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<answer_event> events_;
  bool cancelled_ = false;
  bool failed_ = false;  // and no event says so
};

/// A question that is refused before it is queued.
class question_refused : public std::runtime_error {
 public:
  question_refused(refusal why, const std::string& text) : std::runtime_error(text), why_(why) {}
  refusal why() const { return why_; }

 private:
  refusal why_;
};

/// What is being done, and has been since the start.
struct answering_state {
  index waiting = 0;                    // questions in the queue
  index running = 0;                    // sequences in the batch
  std::uint64_t cache_bytes = 0;        // of keys and values, of the sequences that run
  std::uint64_t cache_limit_bytes = 0;  // that they may take together
  std::uint64_t answered = 0, cancelled = 0, failed = 0;
  std::uint64_t prompt_tokens = 0, cached_prompt_tokens = 0, answer_tokens = 0;
  std::uint64_t image_tokens = 0, kept_image_tokens = 0;  // of the pictures shown
  std::uint64_t pictures = 0, cached_pictures = 0;        // looked at; of these, known already
  std::uint64_t steps = 0;                                // of decoding, whatever their number of sequences
  double vision_seconds = 0, prefill_seconds = 0, selection_seconds = 0, decode_seconds = 0;
};

/// The model that answers.
struct answering_model {
  std::string name;
  bool sees_pictures = false;
  index context = 0;
  std::string weights;      // storage type
  std::string computed_by;  // backend and instruction set
};

/// Whatever answers questions. All members may be called by any thread.
class answering {
 public:
  virtual ~answering() = default;
  virtual const answering_model& model() const = 0;
  /// Makes the prompt and decodes the pictures, on the caller's thread, and queues the question. Throws
  /// `question_refused` for what cannot or can never be answered, and where the queue is full; and what
  /// `asked.go_on` throws.
  virtual std::shared_ptr<answer_stream> ask(question asked) = 0;
  virtual answering_state state() const = 0;
  /// Takes no further questions, and returns when those that were taken have ended.
  virtual void drain() = 0;
};

}  // namespace corematching::driver
