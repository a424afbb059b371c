// SPDX-License-Identifier: Apache-2.0
// The driver's command line as a struct.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llava/thinning.hpp"
#include "corematching/model/picture/image_processor.hpp"

namespace corematching::driver {

/// How the weights of the language model are wanted.
struct weight_options {
  std::optional<dtype> type;                  // nothing: as stored
  std::filesystem::path packed;               // empty: the model's own packed file, where there is one
  std::optional<std::uint64_t> memory_limit;  // bytes held at once
};

/// What computes.
struct device_choice {
  enum class kind : std::uint8_t { cpu, eigen, cuda };
  kind what = kind::cpu;
  int number = 0;  // of a CUDA device
};

/// Which neurons answer: one set for a whole answer, as in the paper, or each token's own, chosen by its
/// gates, weighted by the prompt or plain, or by what the upper planes of the weights foretell.
enum class neuron_policy : std::uint8_t { sentence, gate, plain_gate, predicted };

/// By which statistic of the prompt `sentence` chooses: the paper's, how often a neuron is a core neuron of a
/// token; or the mean magnitude of its activation.
enum class neuron_statistic : std::uint8_t { frequency, magnitude };

/// How neurons are chosen where some are left out; beta, layers and counted tokens are those of `sparsity`.
struct neuron_options {
  neuron_policy policy = neuron_policy::sentence;
  neuron_statistic statistic = neuron_statistic::frequency;
  std::vector<double> beta_of_layer;  // instead of one for all, where there are any
  bool calibrated = false;            // these are those of the model's calibration
};

/// What is left out where it is not said option by option: what answers as the dense model does, what the
/// paper leaves out, or nothing.
enum class preset_choice : std::uint8_t { safe, paper, dense };

struct options {
  std::filesystem::path model;
  std::filesystem::path mmproj;  // tower and projector beside a GGUF file; empty: none
  weight_options weights;
  std::filesystem::path image;     // empty: a text run
  std::string prompt;              // the question; not used with prompt_ids
  std::string raw_prompt;          // the whole prompt instead, special tokens included
  std::string prompt_ids;          // exact ids, the image token marking the image
  std::filesystem::path messages;  // JSON file of a conversation instead
  bool chat = false;               // ask one question after the other
  std::string system;              // goes in front of the prompt
  std::string chat_template;       // name of a chat format; empty: what the model's files say
  std::optional<image_fit> fit;    // nothing: what the model's files say

  preset_choice preset = preset_choice::safe;
  // Nothing, unless options or the preset say otherwise: the library's default is what the paper leaves out.
  core_matching_config sparsity{.sparse_neurons = false, .sparse_tokens = false};
  std::optional<thinning_config> thin;  // of pictures, before the decoder; nothing: all tokens enter it
  neuron_options neurons;
  sampling_options sampling;
  index max_new_tokens = 256;
  std::vector<std::string> stops;  // texts that end the answer
  device_choice device;
  int threads = 0;                  // of the CPU; 0: as many as may run at once
  std::optional<dtype> cache_type;  // of keys and values; nothing: what fits the weights

  bool stats = false;
  bool json = false;
  std::filesystem::path show_tokens;  // empty: no picture
  std::filesystem::path dump;         // empty: no dump
};

/// Thrown by `parse_options` when there is nothing to run: the text is for the terminal (help, version, a
/// usage error), the code for exit().
struct usage_exit {
  int code;
};

/// `base` with the sparsity options in `text`, which are written as on the command line. Throws `error` for
/// whatever is wrong with them.
options parse_sparsity(const std::string& text, options base);

/// The names of these options, as on the command line but for the dashes in front.
std::vector<std::string> sparsity_option_names();

/// Reads the command line. Prints help or what is wrong, and throws `usage_exit`.
options parse_options(int argc, const char* const* argv);

}  // namespace corematching::driver
