// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/metrics.hpp"

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

namespace corematching::driver {
namespace {

class exposition {
 public:
  explicit exposition(std::ostream& out) : out_(out) {}

  template <class Value>
  void counter(const std::string& name, const char* help, Value value) {
    add(name, help, "counter", value);
  }
  template <class Value>
  void gauge(const std::string& name, const char* help, Value value) {
    add(name, help, "gauge", value);
  }
  void describe(const std::string& name, const char* help, const char* type) {
    out_ << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
  }

 private:
  template <class Value>
  void add(const std::string& name, const char* help, const char* type, Value value) {
    describe(name, help, type);
    out_ << name << ' ' << value << '\n';
  }

  std::ostream& out_;
};

/// As a label's value is written.
std::string label_text(const std::string& value) {
  std::string escaped;
  for (const char c : value) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

void add_state(exposition& to, const answering_state& s) {
  to.gauge("llava_questions_waiting", "Questions in the queue.", s.waiting);
  to.gauge("llava_sequences_running", "Sequences in the batch.", s.running);
  to.gauge("llava_kv_cache_bytes", "Bytes of keys and values of the sequences that run.", s.cache_bytes);
  to.gauge("llava_kv_cache_limit_bytes", "Bytes of keys and values that sequences may take together.",
           s.cache_limit_bytes);
  to.counter("llava_answers_total", "Questions that were answered.", s.answered);
  to.counter("llava_cancelled_total", "Questions whose answer nobody waited for.", s.cancelled);
  to.counter("llava_failed_total", "Questions that could not be answered.", s.failed);
  to.counter("llava_prompt_tokens_total", "Tokens of prompts.", s.prompt_tokens);
  to.counter("llava_cached_prompt_tokens_total", "Tokens of prompts that had been read for another question.",
             s.cached_prompt_tokens);
  to.counter("llava_answer_tokens_total", "Tokens of answers.", s.answer_tokens);
  to.counter("llava_image_tokens_total", "Tokens of the pictures shown.", s.image_tokens);
  to.counter("llava_kept_image_tokens_total", "Tokens of the pictures shown that were kept.",
             s.kept_image_tokens);
  to.counter("llava_pictures_total", "Pictures that were looked at.", s.pictures);
  to.counter("llava_cached_pictures_total", "Pictures that were known already.", s.cached_pictures);
  to.counter("llava_decode_steps_total", "Steps of decoding, whatever their number of sequences.", s.steps);
  to.counter("llava_vision_seconds_total", "Time of vision tower and projector.", s.vision_seconds);
  to.counter("llava_prefill_seconds_total", "Time of reading prompts, selection included.",
             s.prefill_seconds);
  to.counter("llava_selection_seconds_total", "Time of choosing neurons and tokens.", s.selection_seconds);
  to.counter("llava_decode_seconds_total", "Time of decoding.", s.decode_seconds);
}

}  // namespace

void serve_metrics::add_status(int status) {
  const std::lock_guard lock(mutex_);
  ++statuses_[status];
}

void serve_metrics::add_answer(const answer_times& times) {
  const std::lock_guard lock(mutex_);
  first_token_.add(times.first_token);
  total_.add(times.total);
  waiting_.add(times.waiting);
}

void serve_metrics::add_vanished() {
  const std::lock_guard lock(mutex_);
  ++vanished_;
}

void serve_metrics::histogram::add(double seconds) {
  std::size_t at = 0;
  while (at < bounds.size() && seconds > bounds[at]) ++at;
  ++counts[at];
  sum += seconds;
}

std::string serve_metrics::histogram::text(const std::string& name, const std::string& help) const {
  std::ostringstream out;
  out.precision(17);
  exposition(out).describe(name, help.c_str(), "histogram");
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    total += counts[i];
    std::ostringstream bound;
    bound << bounds[i];
    out << name << "_bucket{le=\"" << bound.str() << "\"} " << total << '\n';
  }
  total += counts.back();
  out << name << "_bucket{le=\"+Inf\"} " << total << '\n'
      << name << "_sum " << sum << '\n'
      << name << "_count " << total << '\n';
  return out.str();
}

std::string serve_metrics::text(const answering_state& state, const answering_model& model,
                                std::size_t open_connections, std::size_t cut_connections) const {
  std::ostringstream out;
  out.precision(17);
  exposition to(out);
  to.describe("llava_info", "The model that answers.", "gauge");
  out << "llava_info{model=\"" << label_text(model.name) << "\",weights=\"" << label_text(model.weights)
      << "\",computed_by=\"" << label_text(model.computed_by) << "\"} 1\n";
  add_state(to, state);
  to.gauge("llava_connections", "Open connections.", open_connections);
  to.counter("llava_connections_cut_total",
             "Connections that were cut because others came and none was free.", cut_connections);
  const std::lock_guard lock(mutex_);
  to.counter("llava_clients_vanished_total", "Clients that left before their answer was complete.",
             vanished_);
  to.describe("llava_http_requests_total", "Requests by the status of their answer.", "counter");
  for (const auto& [status, count] : statuses_)
    out << "llava_http_requests_total{status=\"" << status << "\"} " << count << '\n';
  out << waiting_.text("llava_queue_seconds", "Time in the queue.")
      << first_token_.text("llava_first_token_seconds",
                           "From the whole request to the first piece of its answer.")
      << total_.text("llava_answer_seconds", "From the whole request to the end of its answer.");
  return out.str();
}

}  // namespace corematching::driver
