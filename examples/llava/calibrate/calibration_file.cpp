// SPDX-License-Identifier: Apache-2.0
#include "llava/calibrate/calibration_file.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/output_file.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/identity.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

constexpr const char* format_name = "corematching calibration 1";

}  // namespace

std::string weights_name(const options& o) {
  std::optional<dtype> type = o.weights.type;
  if (!type && !o.weights.packed.empty()) type = packed_weights(o.weights.packed);
  return type ? name_of(*type) : "stored";
}

std::filesystem::path calibration_path(const options& o) {
  std::string policy = policy_name(o);
  for (char& c : policy)
    if (c == ':') c = '-';
  const std::string what = policy + "-" + weights_name(o) + ".calibration.json";
  std::error_code ignored;
  if (std::filesystem::is_regular_file(o.model, ignored)) return o.model.string() + "-" + what;
  return o.model / ("corematching-" + what);
}

void write_calibration(const std::filesystem::path& path, const calibration& found,
                       const std::filesystem::path& model) {
  const nlohmann::ordered_json object{
      {"format", format_name},
      {"model", model_identity(model)},
      {"neurons", found.policy},
      {"weights", found.weights},
      {"tolerance", found.tolerance},
      {"beta", found.beta_of_layer},
      {"measured",
       {{"text", found.text},
        {"tokens", found.tokens},
        {"perplexity_to_dense", found.perplexity_to_dense},
        {"ffn_bytes_to_dense", found.ffn_bytes_to_dense}}},
      {"layers_alone", {{"beta", found.measured_shares}, {"kl_divergence", found.damage_of_layer}}}};
  const std::string text = io::json_text(object, 1) + "\n";
  io::output_file file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

bool is_calibration(const std::filesystem::path& path) {
  try {
    const std::string name = path.string();
    const io::json parsed = io::parse_json(io::mapped_file::open(path).bytes(), name);
    return io::json_object(parsed, name).string("format") == format_name;
  } catch (const error&) {
    return false;
  }
}

calibration read_calibration(const std::filesystem::path& path, const std::filesystem::path& model) {
  const std::string name = path.string();
  const io::json parsed = io::parse_json(io::mapped_file::open(path).bytes(), name);
  const io::json_object object(parsed, name);
  if (object.string("format") != format_name) object.refuse("format", io::in_quotes(format_name));
  if (io::json_text(io::json(object.string("model"))) != io::json_text(io::json(model_identity(model))))
    object.contradict("model",
                      "it was made for another checkpoint: make it anew with llava calibrate, or "
                      "remove it");
  const io::json* betas = object.find("beta");
  const auto is_share = [](const io::json& value) {
    return value.is_number() && value.get<double>() > 0 && value.get<double>() <= 1;
  };
  if (betas == nullptr || !betas->is_array() || betas->empty() || !std::ranges::all_of(*betas, is_share))
    object.refuse("beta", "an array of numbers in (0, 1]");
  const io::json* measured = object.find("measured");
  if (measured == nullptr) object.refuse("measured", "an object");
  const io::json_object on(*measured, name, "measured");
  return {.policy = object.string("neurons"),
          .weights = object.string("weights"),
          .tolerance = object.number("tolerance", 0, 1e9),
          .beta_of_layer = betas->get<std::vector<double>>(),
          .text = on.string("text"),
          .tokens = static_cast<std::uint64_t>(on.integer("tokens", 0, std::int64_t{1} << 62)),
          .perplexity_to_dense = on.number("perplexity_to_dense", 0, 1e300),
          .ffn_bytes_to_dense = on.number("ffn_bytes_to_dense", 0, 1),
          .measured_shares = {},
          .damage_of_layer = {}};
}

std::optional<calibration> find_calibration(const options& o) {
  const std::filesystem::path path = calibration_path(o);
  std::error_code ignored;  // what is there and cannot be read is refused by reading it
  if (std::filesystem::status(path, ignored).type() == std::filesystem::file_type::not_found)
    return std::nullopt;
  calibration found = read_calibration(path, o.model);
  require(found.policy == policy_name(o) && found.weights == weights_name(o), path.string(),
          ": is a calibration of --neurons ", io::in_quotes(found.policy), " with weights ",
          io::in_quotes(found.weights), ", which its name does not say");
  return found;
}

void take_calibrated_shares(options& o) {
  require(policy_name(o) == "gate" || policy_name(o) == "predicted",
          "--beta: calibrated are --neurons gate and predicted, and no others");
  auto found = find_calibration(o);
  require(found.has_value(), "--beta: ", calibration_path(o).string(),
          ": there is no such calibration: make it with "
          "llava calibrate");
  o.neurons.beta_of_layer = std::move(found->beta_of_layer);
}

}  // namespace corematching::driver
