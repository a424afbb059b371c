// SPDX-License-Identifier: Apache-2.0
// An answer as it comes, for as long as somebody waits for it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "llava/serve/answering.hpp"
#include "llava/serve/api_error.hpp"
#include "llava/serve/chat_answer.hpp"
#include "llava/serve/core_matching_field.hpp"

namespace corematching::driver {

/// What happens while an answer is followed.
struct answer_listener {
  std::function<bool()> is_gone;                      // whether nobody waits any more
  std::function<bool(const answer_piece&)> on_piece;  // false: it could not be told
  std::function<bool()> on_silence;                   // nothing came for some seconds; false as above
};

/// Why there is no (more) answer: nobody was there to be told.
struct vanished {};

using answer_outcome = std::variant<answer_complete, api_error, vanished>;

/// How a refusal of who answers is told to a client.
inline api_error error_of(refusal why, const std::string& text) {
  switch (why) {
    case refusal::bad_question: return {400, "invalid_value", text, "messages"};
    case refusal::bad_settings: return core_matching_error(text);
    case refusal::too_large: return {413, "too_large", text, "messages"};
    case refusal::too_busy: return api_error(429, "too_busy", text).with("Retry-After", "1");
    case refusal::failed: break;
  }
  return {500, "failed", text};
}

/// Why an answer ends that somebody waits for.
inline api_error server_ends() {
  return {503, "shutting_down", "the server is being shut down"};
}
inline api_error time_is_over() {
  return {503, "too_late", "the answer was not complete within the time limit"};
}

class followed_answer {
 public:
  using clock = std::chrono::steady_clock;

  /// `received` is when the whole request was there, and `until` how long it may take.
  followed_answer(std::shared_ptr<answer_stream> stream, clock::time_point received, clock::time_point asked,
                  clock::time_point until)
      : stream_(std::move(stream)), received_(received), until_(until), last_said_(clock::now()) {
    times_.asking = seconds(asked - received);
  }
  followed_answer(const followed_answer&) = delete;
  followed_answer& operator=(const followed_answer&) = delete;
  /// An answer that was not followed to its end is waited for by nobody.
  ~followed_answer() {
    if (!has_ended_) stream_->cancel();
  }

  /// Follows the answer to its end, or until nobody waits, `abandoned` is set, or its time is over.
  answer_outcome follow(const answer_listener& to, const std::atomic<bool>& abandoned) {
    using namespace std::chrono_literals;
    constexpr auto look_up = 20ms;      // at whether somebody still waits
    constexpr auto long_silence = 10s;  // after which proxies may think that nobody answers
    for (;;) {
      auto event = stream_->next(look_up);
      if (to.is_gone()) return vanished();
      if (abandoned) return server_ends();
      if (clock::now() > until_) return time_is_over();
      if (!event) {
        if (clock::now() - last_said_ < long_silence) continue;
        last_said_ = clock::now();
        if (!to.on_silence()) return vanished();
      } else if (auto outcome = hear(*event, to)) {
        return std::move(*outcome);
      }
    }
  }

  /// Known when the outcome is.
  const answer_times& times() const { return times_; }

 private:
  static double seconds(clock::duration time) { return std::chrono::duration<double>(time).count(); }

  std::optional<answer_outcome> hear(answer_event& event, const answer_listener& to) {
    if (const auto* begun = std::get_if<answer_begun>(&event)) {
      times_.waiting = begun->waited_seconds;
      return std::nullopt;
    }
    last_said_ = clock::now();
    if (times_.first_token == 0) times_.first_token = seconds(last_said_ - received_);
    if (const auto* piece = std::get_if<answer_piece>(&event))
      return to.on_piece(*piece) ? std::nullopt : std::optional<answer_outcome>(vanished());
    has_ended_ = true;
    times_.total = seconds(last_said_ - received_);
    if (const auto* failed = std::get_if<answer_failed>(&event)) return error_of(failed->why, failed->text);
    return std::get<answer_complete>(std::move(event));
  }

  std::shared_ptr<answer_stream> stream_;
  clock::time_point received_, until_, last_said_;
  answer_times times_{};
  bool has_ended_ = false;
};

}  // namespace corematching::driver
