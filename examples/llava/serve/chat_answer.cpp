// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/chat_answer.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/json.hpp"

namespace corematching::driver {
namespace {

using ordered = nlohmann::ordered_json;

ordered token_json(const likely_token& token) {
  constexpr double least = -9999;  // JSON has no infinity; the API says this of what is hardly possible
  ordered bytes = nullptr;
  if (token.is_in_text) {
    bytes = ordered::array();
    for (const char c : token.text) bytes.push_back(static_cast<unsigned char>(c));
  }
  return {{"token", token.text}, {"logprob", std::max(token.logprob, least)}, {"bytes", std::move(bytes)}};
}

ordered logprobs_json(const answer_heading& heading, const std::vector<said_token>& tokens) {
  if (!heading.with_logprobs) return nullptr;
  ordered content = ordered::array();
  for (const said_token& said : tokens) {
    ordered token = token_json(said.token);
    token["top_logprobs"] = ordered::array();
    for (const likely_token& other : said.others) token["top_logprobs"].push_back(token_json(other));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

ordered usage_json(const answer_complete& end) {
  const index said = std::ssize(end.report.generated_ids);
  return {{"prompt_tokens", end.report.prompt_tokens},
          {"completion_tokens", said},
          {"total_tokens", end.report.prompt_tokens + said},
          {"prompt_tokens_details", {{"cached_tokens", end.cached_tokens}}}};
}

/// Those of `positions`, which ascend in the prompt, that lie in a picture, counted from its first token.
ordered places_in_picture(std::span<const std::int32_t> positions, index first, index tokens) {
  ordered places = ordered::array();
  const auto from = std::ranges::lower_bound(positions, first);
  for (auto at = from; at != positions.end() && *at < first + tokens; ++at) places.push_back(*at - first);
  return places;
}

/// Of each token of a picture, null where it was not alive any more.
ordered scores_in_picture(const token_match& match, index first, index tokens) {
  ordered scores(static_cast<std::size_t>(tokens), ordered());
  for (const auto& [position, score] : match.image_scores) {
    if (position < first || position >= first + tokens) continue;
    const auto whole = static_cast<std::int64_t>(score);
    scores[static_cast<std::size_t>(position - first)] =
        static_cast<double>(whole) == score ? ordered(whole) : ordered(score);
  }
  return scores;
}

/// For each picture, which of its tokens entered the decoder and which each matching layer kept.
ordered pictures_json(const answer_complete& end, bool with_scores) {
  const run_report& report = end.report;
  ordered pictures = ordered::array();
  const index count = std::ssize(end.picture_positions);
  for (index i = 0; i < count; ++i) {
    const index first = end.picture_positions[static_cast<std::size_t>(i)];
    const index tokens = report.image_tokens / count;  // all of the same size
    const auto kept = [&](const std::vector<std::int32_t>& positions) {
      return places_in_picture(positions, first, tokens);
    };
    ordered layers = ordered::array();
    for (const token_match& match : report.matches) {
      layers.push_back({{"layer", match.layer}, {"kept", kept(match.kept_image_positions)}});
      if (with_scores) layers.back()["scores"] = scores_in_picture(match, first, tokens);
    }
    pictures.push_back({{"position", first},
                        {"tokens", tokens},
                        {"entered", report.thinned ? kept(report.thinned->kept_image_positions) : ordered()},
                        {"layers", std::move(layers)}});
  }
  return pictures;
}

ordered neurons_json(const run_report& report) {
  if (report.policy.empty()) return nullptr;
  ordered neurons{{"policy", report.policy}};
  if (!report.statistic.empty()) neurons["statistic"] = report.statistic;
  neurons["beta"] = report.betas;
  neurons["answering"] = report.neurons;
  neurons["of"] = report.all_neurons;
  neurons["layers_without_core_neurons"] = report.silent_layers;
  return neurons;
}

ordered core_matching_json(const answer_heading& heading, const answer_complete& end,
                           const answer_times& times) {
  const run_report& report = end.report;
  return {{"pictures", pictures_json(end, heading.with_scores)},
          {"neurons", neurons_json(report)},
          {"finished", report.finished},
          {"seconds",
           {{"asking", times.asking},
            {"waiting", times.waiting},
            {"vision", report.vision_seconds},
            {"prefill", report.prefill_seconds},
            {"selection", report.selection_seconds},
            {"decode", report.decode_seconds},
            {"first_token", times.first_token},
            {"total", times.total}}},
          {"kv_cache_bytes", report.kv_bytes},
          {"dense_kv_cache_bytes", report.dense_kv_bytes}};
}

/// The API knows no limit but that of tokens.
const char* finish_reason(const run_report& report) {
  return report.finished == "stop" ? "stop" : "length";
}

ordered chunk(const answer_heading& heading, ordered delta, ordered logprobs, ordered reason) {
  ordered object{{"id", heading.id},
                 {"object", "chat.completion.chunk"},
                 {"created", heading.created},
                 {"model", heading.model},
                 {"choices", ordered::array({{{"index", 0},
                                              {"delta", std::move(delta)},
                                              {"logprobs", std::move(logprobs)},
                                              {"finish_reason", std::move(reason)}}})}};
  if (heading.includes_usage) object["usage"] = nullptr;
  return object;
}

}  // namespace

answer_heading new_heading(const answering_model& model) {
  static thread_local std::mt19937_64 source((std::uint64_t{std::random_device{}()} << 32) ^
                                             std::random_device{}());
  std::ostringstream id;
  id << "chatcmpl-" << std::hex << std::setfill('0');
  for (int i = 0; i < 2; ++i) id << std::setw(16) << source();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.id = id.str(),
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
          .model = model.name};
}

std::string whole_answer(const answer_heading& heading, const answer_complete& end,
                         const std::vector<said_token>& tokens, const answer_times& times) {
  const ordered message{{"role", "assistant"}, {"content", end.report.answer}, {"refusal", nullptr}};
  return io::json_text(ordered{{"id", heading.id},
                               {"object", "chat.completion"},
                               {"created", heading.created},
                               {"model", heading.model},
                               {"choices", ordered::array({{{"index", 0},
                                                            {"message", message},
                                                            {"logprobs", logprobs_json(heading, tokens)},
                                                            {"finish_reason", finish_reason(end.report)}}})},
                               {"usage", usage_json(end)},
                               {"core_matching", core_matching_json(heading, end, times)}});
}

std::string first_chunk(const answer_heading& heading) {
  return io::json_text(chunk(heading, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr));
}

std::string text_chunk(const answer_heading& heading, const answer_piece& piece) {
  return io::json_text(
      chunk(heading, {{"content", piece.text}}, logprobs_json(heading, piece.tokens), nullptr));
}

std::string last_chunk(const answer_heading& heading, const answer_complete& end, const answer_times& times) {
  ordered object = chunk(heading, ordered::object(), nullptr, finish_reason(end.report));
  object["core_matching"] = core_matching_json(heading, end, times);
  return io::json_text(object);
}

std::string usage_chunk(const answer_heading& heading, const answer_complete& end) {
  ordered object = chunk(heading, nullptr, nullptr, nullptr);
  object["choices"] = ordered::array();
  object["usage"] = usage_json(end);
  return io::json_text(object);
}

}  // namespace corematching::driver
