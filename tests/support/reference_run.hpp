// SPDX-License-Identifier: Apache-2.0
// The runs that tests/reference/make_reference.py stored: prompts, options, and what transformers computed.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corematching/hooks/core_matching_config.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/llava/thinning.hpp"
#include "support/paths.hpp"

namespace corematching::test {

/// The value that `names` gives to the name under `key`.
template <class Value>
Value named(const io::json& options, const char* key, const std::map<std::string, Value>& names) {
  return names.at(options.at(key).get<std::string>());
}

/// The options of a stored run as the library takes them.
inline core_matching_config config_of(const io::json& o) {
  core_matching_config config;
  const auto sparsity = o.at("sparsity").get<std::string>();
  config.sparse_neurons = sparsity == "neurons" || sparsity == "both";
  config.sparse_tokens = sparsity == "tokens" || sparsity == "both";
  config.rho = o.at("rho");
  config.beta = o.at("beta");
  config.match_layers = o.at("match_layers").get<std::vector<index>>();
  config.anchor = o.at("anchor");
  config.seed = o.at("seed");
  config.criterion = named<token_criterion>(o, "criterion",
                                            {{"overlap", token_criterion::overlap},
                                             {"rarity", token_criterion::rarity},
                                             {"contrast", token_criterion::contrast},
                                             {"attention", token_criterion::attention},
                                             {"projection", token_criterion::projection},
                                             {"random", token_criterion::random}});
  config.reference = named<reference_set>(o, "reference",
                                          {{"sentence", reference_set::sentence},
                                           {"anchor", reference_set::anchor},
                                           {"question", reference_set::question},
                                           {"text", reference_set::text}});
  config.count_over = named<counted_tokens>(
      o, "count_over",
      {{"all", counted_tokens::all}, {"text", counted_tokens::text}, {"image", counted_tokens::image}});
  config.count = named<core_count>(
      o, "core_count", {{"per_token", core_count::per_token}, {"mean_count", core_count::mean_count}});
  config.pruning = named<pruning_mode>(o, "pruning",
                                       {{"everywhere", pruning_mode::everywhere},
                                        {"later_layers", pruning_mode::later_layers},
                                        {"zero_in_place", pruning_mode::zero_in_place}});
  config.positions = named<position_policy>(
      o, "positions", {{"original", position_policy::original}, {"contiguous", position_policy::contiguous}});
  using select::keep_rule;
  config.keep.rule = named<keep_rule>(
      o, "keep",
      {{"max_distance", keep_rule::max_distance}, {"top_k", keep_rule::top_k}, {"ratio", keep_rule::ratio}});
  config.keep.strict = o.at("strict");
  config.keep.min_tokens = o.at("min_tokens");
  if (!o.at("keep_count").is_null()) config.keep.count = o.at("keep_count");
  if (!o.at("keep_ratio").is_null()) config.keep.ratio = o.at("keep_ratio");
  if (!o.at("max_tokens").is_null()) config.keep.max_tokens = o.at("max_tokens").get<index>();
  if (!o.at("neuron_layers").is_null()) {
    config.neuron_layers_begin = o.at("neuron_layers").at(0);
    config.neuron_layers_end = o.at("neuron_layers").at(1).get<index>();
  }
  return config;
}

/// How a stored run drops image tokens before the decoder.
inline thinning_config thinning_of(const io::json& o) {
  using select::keep_rule;
  thinning_config config;
  config.criterion = named<thinning_criterion>(
      o, "criterion",
      {{"duplication", thinning_criterion::duplication}, {"random", thinning_criterion::random}});
  config.keep.rule = named<keep_rule>(o, "keep", {{"top_k", keep_rule::top_k}, {"ratio", keep_rule::ratio}});
  if (!o.at("keep_count").is_null()) config.keep.count = o.at("keep_count");
  if (!o.at("keep_ratio").is_null()) config.keep.ratio = o.at("keep_ratio");
  config.seed = o.at("seed");
  return config;
}

class reference_run {
 public:
  reference_run(std::filesystem::path directory, io::json description)
      : directory_(std::move(directory)),
        description_(std::move(description)),
        tensors_(io::checkpoint::open(directory_ / description_.at("file").get<std::string>())) {}

  std::string name() const { return description_.at("name"); }
  bool has_picture() const { return !description_.at("picture").is_null(); }
  std::filesystem::path picture() const { return directory_ / description_.at("picture").get<std::string>(); }
  bool pads() const { return description_.at("options").at("image_fit") == "pad"; }
  bool is_sparse() const { return description_.at("options").at("sparsity") != "none"; }
  core_matching_config config() const { return config_of(description_.at("options")); }
  std::optional<thinning_config> thinning() const {
    if (!description_.contains("thinning")) return std::nullopt;
    return thinning_of(description_.at("thinning"));
  }
  std::vector<std::int32_t> prompt_ids() const { return description_.at("prompt_ids"); }
  std::vector<std::int32_t> generated_ids() const { return description_.at("generated_ids"); }

  auto tensor_names() const { return tensors_.names(); }
  bool has(const std::string& tensor) const { return tensors_.contains(tensor); }
  template <class T>
  std::vector<T> values(const std::string& tensor) const {
    const io::tensor& stored = tensors_.at(tensor);
    std::vector<T> result(stored.bytes.size() / sizeof(T));
    std::memcpy(result.data(), stored.bytes.data(), stored.bytes.size());
    return result;
  }

 private:
  std::filesystem::path directory_;
  io::json description_;
  io::checkpoint tensors_;
};

/// Directory of a case; the model's files lie there too unless the case says otherwise.
inline std::filesystem::path reference_directory(const std::string& name) {
  return support::test_directory() / "reference/data" / name;
}

inline io::json reference_description(const std::string& name) {
  const auto path = reference_directory(name) / "reference.json";
  return io::parse_json(io::mapped_file::open(path).bytes(), path.string());
}

}  // namespace corematching::test
