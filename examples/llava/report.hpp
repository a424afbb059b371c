// SPDX-License-Identifier: Apache-2.0
// What a run of the driver found out, and its two forms for people and for programs.
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/linked/operations.hpp"
#include "corematching/hooks/core_matching.hpp"

namespace corematching::driver {

/// What of the pictures entered the decoder where some of their tokens were dropped before.
struct thinned_tokens {
  std::string criterion;
  index image_tokens = 0;                          // that there were
  std::vector<std::int32_t> kept_image_positions;  // original
};

struct run_report {
  std::string answer;
  bool has_text = false;  // without a tokenizer there are ids alone
  std::vector<std::int32_t> generated_ids;
  // What ended the answer: "stop", the model or a stop string; "length", the limit that was asked for;
  // "context", that of the model.
  std::string finished;
  std::string weights;  // storage type
  linked::description computed_by;

  index context = 0;        // positions that prompt and answer may use
  index prompt_tokens = 0;  // image tokens included
  index image_tokens = 0;
  index image_position = 0;  // of the first image token
  std::optional<thinned_tokens> thinned;
  std::vector<token_match> matches;  // one for each matching layer
  std::string policy;                // by which neurons are left out; empty: none are
  std::string statistic;             // by which a sentence's are chosen; empty for other policies
  std::vector<double> betas;         // by layer: share of the neurons that answer; empty: all
  bool chooses_for_each_token = false;
  std::vector<index> neurons;        // by layer: neurons that answer each token
  std::vector<index> silent_layers;  // layers in which no token has core neurons
  index all_neurons = 0;             // of one layer
  index layers = 0;

  double load_seconds = 0;
  double vision_seconds = 0;
  double prefill_seconds = 0;  // selection included
  double selection_seconds = 0;
  double decode_seconds = 0;

  work_counters prefill, decode;              // as the backend counted them
  work_counters dense_prefill, dense_decode;  // what the formulas give for the same lengths without sparsity
  std::uint64_t ffn_bytes = 0;                // of decode.weight_bytes, those of feed-forward blocks
  std::uint64_t dense_ffn_bytes = 0;
  std::uint64_t kv_bytes = 0;  // of the rows in the cache at the end
  std::uint64_t dense_kv_bytes = 0;
  std::uint64_t held_weight_bytes = 0;  // of the language model, most at once
  bool is_streamed = false;             // under a memory limit
  std::uint64_t streamed_bytes = 0;     // of weights read from a file while decoding
  std::uint64_t peak_memory_bytes = 0;

  /// Image tokens of the prompt that later ones see.
  index image_tokens_left() const {
    if (!matches.empty()) return std::ssize(matches.back().kept_image_positions);
    return thinned ? std::ssize(thinned->kept_image_positions) : image_tokens;
  }

  /// Steps that decoding computed: the first token comes from prefill.
  index decode_steps = 0;
  std::uint64_t per_step(std::uint64_t bytes) const {
    return decode_steps > 0 ? bytes / static_cast<std::uint64_t>(decode_steps) : 0;
  }
  double decode_tokens_per_second() const {
    return decode_seconds > 0 ? static_cast<double>(decode_steps) / decode_seconds : 0;
  }
};

/// Largest resident size of this program so far, in bytes. Not getrusage's where there is a /proc: that one
/// goes on counting from what the process was before it became this program.
std::uint64_t peak_memory();

/// One JSON object on one line.
void print_json(const run_report& report, std::ostream& out);

/// A table for people.
void print_statistics(const run_report& report, std::ostream& out);

}  // namespace corematching::driver
