// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/service.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "llava/serve/chat_answer.hpp"
#include "llava/serve/chat_request.hpp"
#include "llava/serve/followed_answer.hpp"
#include "llava/serve/page.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view chat_path = "/v1/chat/completions";
constexpr std::string_view models_path = "/v1/models";

bool is_for_reading(std::string_view path) {
  return path == "/" || path == "/health" || path == "/metrics" || path == models_path ||
         (path.starts_with(models_path) && path[models_path.size()] == '/');
}

bool needs_key(std::string_view path) {
  return path != "/" && path != "/health";
}

void check_method(const http_head& head) {
  const bool is_chat = head.path == chat_path;
  if (!is_chat && !is_for_reading(head.path))
    throw api_error(404, "not_found", "there is no " + io::in_quotes(head.path) + " here");
  if (is_chat ? head.method == "POST" : head.method == "GET" || head.method == "HEAD") return;
  throw api_error(405, "method_not_allowed",
                  head.path + " takes " + (is_chat ? "POST" : "GET") + ", not " + io::in_quotes(head.method))
      .with("Allow", is_chat ? "POST" : "GET, HEAD");
}

void check_body(const http_head& head, const serve_limits& limits) {
  if (head.method != "POST") {
    if (head.has_body()) throw api_error(400, "bad_request", head.method + " takes no body");
    return;
  }
  const std::string* type = head.find("content-type");
  if (type == nullptr || lower_case(type->substr(0, type->find_first_of("; \t"))) != "application/json")
    throw api_error(415, "unsupported_media_type",
                    "the body is expected to be of Content-Type: application/json");
  const std::string* coding = head.find("content-encoding");
  if (coding != nullptr && *coding != "identity")
    throw api_error(415, "unsupported_media_type", "compressed bodies are not read (Content-Encoding)");
  if (!head.length && !head.is_chunked)
    throw api_error(411, "length_required", "the length of the body is not said (Content-Length)");
  if (head.length.value_or(0) > limits.body_bytes)
    throw api_error(413, "body_too_large",
                    "the body of " + std::to_string(*head.length) + " bytes is longer than the limit of " +
                        std::to_string(limits.body_bytes));
}

/// Nothing from elsewhere is loaded into the page, nothing of it is sent elsewhere, and nobody frames it.
http_reply page_reply() {
  return {
      .type = "text/html; charset=utf-8",
      .body = std::string(page_html),
      .fields = {
          {"Content-Security-Policy",
           "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' "
           "data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
          {"Referrer-Policy", "no-referrer"}}};
}

std::int64_t seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

/// One of those who may parse and decode at a time, for as long as the object lives. While it waits for its
/// turn it calls `go_on`, which may throw.
class turn_to_ask {
 public:
  turn_to_ask(std::counting_semaphore<>& turns, const std::function<void()>& go_on) : turns_(turns) {
    constexpr std::chrono::milliseconds look_up{20};
    do go_on();
    while (!turns_.try_acquire_for(look_up));
  }
  turn_to_ask(const turn_to_ask&) = delete;
  turn_to_ask& operator=(const turn_to_ask&) = delete;
  ~turn_to_ask() { turns_.release(); }

 private:
  std::counting_semaphore<>& turns_;
};

/// Asks, and turns what is refused into what clients are told.
std::shared_ptr<answer_stream> ask_model(answering& model, question asked) {
  try {
    return model.ask(std::move(asked));
  } catch (const question_refused& refused) {
    throw error_of(refused.why(), refused.what());
  } catch (const error& refused) {
    throw api_error(400, "invalid_value", refused.what(), "messages");
  }
}

api_error nobody_waits() {
  return {499, "client_closed_request", "nobody waits for the answer"};
}

/// A whole answer, once it is complete.
http_reply whole_reply(const answer_heading& heading, followed_answer& answer, const answer_listener& to,
                       const std::atomic<bool>& abandoned, serve_metrics& metrics) {
  std::vector<said_token> tokens;
  answer_listener collecting = to;
  collecting.on_piece = [&](const answer_piece& piece) {
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
    return true;
  };
  const answer_outcome outcome = answer.follow(collecting, abandoned);
  if (const auto* problem = std::get_if<api_error>(&outcome)) throw *problem;
  if (std::holds_alternative<vanished>(outcome)) {
    metrics.add_vanished();
    throw nobody_waits();
  }
  metrics.add_answer(answer.times());
  return {.body = whole_answer(heading, std::get<answer_complete>(outcome), tokens, answer.times())};
}

/// The events of an answer as it comes. Says whether all of them could be sent.
bool stream_answer(const answer_heading& heading, followed_answer& answer, answer_listener to,
                   const std::atomic<bool>& abandoned, serve_metrics& metrics, const piece_writer& write) {
  const auto send = [&](const std::string& data) { return write(event_of(data)); };
  to.on_piece = [&](const answer_piece& piece) {
    return (piece.text.empty() && piece.tokens.empty()) || send(text_chunk(heading, piece));
  };
  to.on_silence = [&] { return write(": still at it\n\n"); };
  const answer_outcome outcome =
      send(first_chunk(heading)) ? answer.follow(to, abandoned) : answer_outcome(vanished());
  if (const auto* problem = std::get_if<api_error>(&outcome)) return send(error_json(*problem));
  if (std::holds_alternative<vanished>(outcome)) {
    metrics.add_vanished();
    return false;
  }
  metrics.add_answer(answer.times());
  const auto& end = std::get<answer_complete>(outcome);
  return send(last_chunk(heading, end, answer.times())) &&
         (!heading.includes_usage || send(usage_chunk(heading, end))) && send("[DONE]");
}

}  // namespace

http_reply reply_of(const api_error& problem) {
  return {.status = problem.status(), .body = error_json(problem), .fields = problem.fields()};
}

service::service(answering& model, options base, access_rules access, const serve_limits& limits,
                 std::string image_fit, const connections& clients)
    : model_(model),
      base_(std::move(base)),
      access_(std::move(access)),
      limits_(limits),
      image_fit_(std::move(image_fit)),
      clients_(clients),
      started_(seconds_since_1970()),
      asking_(std::max(1u, std::thread::hardware_concurrency())) {}

void service::admit(const http_head& head) const {
  check_host(head, access_);
  check_method(head);
  if (needs_key(head.path)) check_key(head, access_);
  check_body(head, limits_);
  if (head.path == chat_path && is_draining_)
    throw api_error(503, "shutting_down", "the server is being shut down and takes no further questions");
}

http_reply service::answer(const http_head& head, received_body body, const std::function<bool()>& is_gone) {
  if (head.path == chat_path) return chat(std::move(body), is_gone);
  if (head.path == "/") return page_reply();
  if (head.path == "/health") {
    const bool draining = is_draining_;
    return {.status = draining ? 503 : 200,
            .body = draining ? R"({"status":"draining"})" : R"({"status":"ok"})"};
  }
  if (head.path == "/metrics")
    return {.type = "text/plain; version=0.0.4; charset=utf-8",
            .body = metrics_.text(model_.state(), model_.model(), clients_.open(), clients_.total_cut())};
  if (head.path == models_path) return {.body = models_json()};
  if (head.path.substr(models_path.size() + 1) != model_.model().name)
    throw api_error(404, "model_not_found", "there is no such model here", "model");
  return {.body = model_json()};
}

std::string service::model_json() const {
  const answering_model& m = model_.model();
  return io::json_text(nlohmann::ordered_json{{"id", m.name},
                                              {"object", "model"},
                                              {"created", started_},
                                              {"owned_by", "corematching"},
                                              {"core_matching",
                                               {{"sees_pictures", m.sees_pictures},
                                                {"image_fit", image_fit_},
                                                {"context", m.context},
                                                {"weights", m.weights},
                                                {"computed_by", m.computed_by}}}});
}

std::string service::models_json() const {
  return R"({"object":"list","data":[)" + model_json() + "]}";
}

void service::require_use(const std::function<bool()>& is_gone, std::chrono::steady_clock::time_point until) {
  if (is_gone()) {
    metrics_.add_vanished();
    throw nobody_waits();
  }
  if (is_abandoned_) throw server_ends();
  if (std::chrono::steady_clock::now() > until) throw time_is_over();
}

http_reply service::chat(received_body body, const std::function<bool()>& is_gone) {
  const auto received = followed_answer::clock::now();
  const auto until = received + limits_.answering;
  const auto go_on = [&] { require_use(is_gone, until); };
  chat_request request;
  std::shared_ptr<answer_stream> stream;
  answer_heading heading = new_heading(model_.model());
  {
    const turn_to_ask turn(asking_, go_on);
    request = parse_chat_request(body.text(), {base_, model_.model(), limits_.pictures});
    heading.with_scores = request.asked.with_scores;
    heading.with_logprobs = request.asked.with_logprobs;
    heading.includes_usage = request.includes_usage;
    body.release();
    request.asked.go_on = go_on;
    stream = ask_model(model_, std::move(request.asked));
  }
  const auto answer =
      std::make_shared<followed_answer>(std::move(stream), received, followed_answer::clock::now(), until);
  const answer_listener to{.is_gone = is_gone, .on_piece = {}, .on_silence = [] { return true; }};
  if (!request.is_streamed) return whole_reply(heading, *answer, to, is_abandoned_, metrics_);
  return {.type = "text/event-stream",
          .fields = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}},
          .stream = [this, heading, answer, to](const piece_writer& write) {
            return stream_answer(heading, *answer, to, is_abandoned_, metrics_, write);
          }};
}

}  // namespace corematching::driver
