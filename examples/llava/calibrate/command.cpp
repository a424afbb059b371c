// SPDX-License-Identifier: Apache-2.0
#include "llava/calibrate/command.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "llava/calibrate/calibration_file.hpp"
#include "llava/calibrate/options.hpp"
#include "llava/calibrate/shares_path.hpp"
#include "llava/figures.hpp"
#include "llava/measure/identity.hpp"
#include "llava/measure/items.hpp"
#include "llava/measure/state_file.hpp"
#include "llava/measure/tally.hpp"
#include "llava/presets.hpp"
#include "llava/request.hpp"
#include "llava/sparse_settings.hpp"

namespace corematching::driver {
namespace {

using betas = std::vector<double>;

// Where the damage of a layer alone is measured, in parts of share_parts; between them it is smooth.
constexpr std::array<index, 3> measured_parts{4, 8, 14};
// Paths that are measured at a time, of which the last one within the tolerance is followed.
constexpr int tried_at_once = 3;
constexpr int rounds = 3;
// Of files beside the calibration that keep what has been measured until it is written.
constexpr const char* kept_suffix = ".stage-";

/// Measures shares of neurons on the text, beside the dense run.
class trials {
 public:
  trials(const calibrate_options& o, console& terminal, const measurer& measure)
      : o_(o), terminal_(terminal), measure_(measure), model_(read_model_files(o.base)) {
    require(model_.words != nullptr, o.base.model.string(),
            ": has neither tokenizer.json nor tokenizer.model, without which there are no texts");
  }

  index layers() const { return model_.config.text().layers; }

  /// The dense run's sums over `tokens` tokens, then those with each of `tried`. One token of each chunk is
  /// decoded alone, on which bytes are counted. What has been measured of this stage is kept in a file.
  std::vector<tally> run(const std::vector<betas>& tried, index tokens) {
    measure_options from;
    from.base = o_.base;
    from.text = o_.text;
    from.chunk = o_.chunk;
    from.most_tokens = tokens;
    measurement_plan plan{o_.base, model_.config, {}, read_text_chunks(from, model_), index{1}};
    for (const betas& shares : tried) {
      configuration& one = plan.configurations.emplace_back();
      one.how = o_.sparse;
      one.how.neurons.beta_of_layer = shares;
    }
    state_file state;
    std::filesystem::path kept;
    const measurement_listener to{.begin =
                                      [&](const linked::description& by) {
                                        const io::json identity = identity_of(plan, tried, by);
                                        state = state_file(state_path(identity), identity, plan.items.size(),
                                                           1 + tried.size());
                                        kept = state_path(identity);
                                        return std::ssize(state.items());
                                      },
                                  .on_item = [&](const std::vector<tally>& item) { state.add(item); }};
    try {
      measure_(plan, terminal_, to);
    } catch (...) {
      std::error_code ignored;
      if (state.items().empty()) std::filesystem::remove(kept, ignored);  // there is nothing to go on from
      throw;
    }
    std::vector<tally> sums(1 + tried.size());
    for (const std::vector<tally>& item : state.items())
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += item[i];
    return sums;
  }

  /// Removes what was kept, of earlier starts with other settings, too. What cannot be removed does no harm.
  void forget() const {
    const std::filesystem::path directory = o_.output.has_parent_path() ? o_.output.parent_path() : ".";
    std::error_code ignored;
    std::vector<std::filesystem::path> kept;
    for (const auto& file : std::filesystem::directory_iterator(directory, ignored))
      if (is_kept(file.path().filename().string()) && file.is_regular_file(ignored))
        kept.push_back(file.path());
    for (const std::filesystem::path& file : kept) std::filesystem::remove(file, ignored);
  }

 private:
  // Whether state_path() makes such names.
  bool is_kept(std::string_view name) const {
    const std::string begin = o_.output.filename().string() + kept_suffix;
    const std::uint64_t any = 0;
    return name.starts_with(begin) && name.size() == begin.size() + checksum_text({&any, 1}).size() &&
           name.find_first_not_of("0123456789abcdef", begin.size()) == name.npos;
  }

  // One for each stage and setting.
  std::filesystem::path state_path(const io::json& identity) const {
    const std::string text = io::json_text(identity);
    const std::uint64_t sum = data_checksum(std::as_bytes(std::span(text)));
    std::filesystem::path path = o_.output;
    path += kept_suffix + checksum_text({&sum, 1});
    return path;
  }

  io::json identity_of(const measurement_plan& plan, const std::vector<betas>& tried,
                       const linked::description& by) const {
    io::json identity = identity_of_runs(o_.base, plan.items, by);
    identity.update(
        {{"measured", "for a calibration"}, {"neurons", policy_name(o_.sparse)}, {"beta", tried}});
    return identity;
  }

  const calibrate_options& o_;
  console& terminal_;
  const measurer& measure_;
  request model_;
};

/// The largest share below 1, in parts, with which a layer reads less than with all its neurons: where what
/// is chosen is read twice, most shares near 1 read more. All three matrices have as many bytes.
index most_parts(const options& o) {
  const auto weights = type_of_weights(o);
  index parts = share_parts - 1;
  if (o.neurons.policy != neuron_policy::predicted || !weights) return parts;
  constexpr std::size_t some = 1024;  // weights, which are whole blocks of every format
  const auto all = static_cast<index>(bytes_of(*weights, some)),
             upper = static_cast<index>(upper_bytes_of(*weights, some)),
             finishing = static_cast<index>(finishing_bytes_of(*weights, some));
  while (2 * share_parts * upper + parts * (2 * finishing + all) >= 3 * share_parts * all) --parts;
  return parts;
}

betas measured_shares() {
  betas shares;
  for (const index parts : measured_parts) shares.push_back(static_cast<double>(parts) / share_parts);
  return shares;
}

std::vector<layer_damage> damage_of_layers(trials& trial, index tokens) {
  const auto layers = static_cast<std::size_t>(trial.layers());
  std::vector<betas> tried;
  for (std::size_t layer = 0; layer < layers; ++layer)
    for (const double share : measured_shares()) tried.emplace_back(layers, 1.0)[layer] = share;
  const std::vector<tally> sums = trial.run(tried, tokens);
  std::vector<layer_damage> found(layers, {measured_shares(), {}});
  for (std::size_t i = 0; i < tried.size(); ++i) {
    const tally& run = sums[1 + i];
    found[i / measured_parts.size()].damage.push_back(run.per_token(run.divergence));
  }
  return found;
}

/// The last place of a path whose damage, were that of layers a sum, is at most `damage`.
std::size_t place_of(const std::vector<path_step>& path, double damage) {
  const auto beyond = std::ranges::upper_bound(path, damage, {}, &path_step::damage);
  return static_cast<std::size_t>(std::max(beyond - path.begin(), std::ptrdiff_t{1}) - 1);
}

/// Places from which on it is tried: about where the sum of damages promises the tolerance, which is right to
/// a factor.
std::vector<std::size_t> first_places(const std::vector<path_step>& path, double tolerance) {
  std::vector<std::size_t> places;
  for (double factor = 0.5; std::ssize(places) < tried_at_once; factor *= 2)
    places.push_back(place_of(path, factor * tolerance));
  return places;
}

std::vector<std::size_t> places_between(std::size_t within, std::size_t beyond) {
  std::vector<std::size_t> places;
  for (int i = 1; i <= tried_at_once; ++i)
    places.push_back(within + (beyond - within) * static_cast<std::size_t>(i) / (tried_at_once + 1));
  return places;
}

/// A place of a path, and what was measured there.
struct found_place {
  std::size_t at = 0;
  betas beta_of_layer = {};
  double perplexity_to_dense = 1, ffn_bytes_to_dense = 1;
  std::uint64_t tokens = 0;
};

/// The farthest place of the path whose perplexity was measured to be within the tolerance.
found_place farthest_within(trials& trial, const std::vector<path_step>& path, const calibrate_options& o) {
  found_place within;
  std::size_t beyond = path.size();
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::size_t> places =
        round == 0 ? first_places(path, o.tolerance) : places_between(within.at, beyond);
    std::erase_if(places, [&](std::size_t at) { return at <= within.at || at >= beyond; });
    places.erase(std::ranges::unique(places).begin(), places.end());
    if (places.empty()) break;
    std::vector<betas> tried;
    for (const std::size_t at : places) tried.push_back(path[at].beta_of_layer);
    const std::vector<tally> sums = trial.run(tried, o.tokens);
    const tally& dense = sums.front();
    for (std::size_t i = 0; i < places.size(); ++i) {
      const tally& run = sums[1 + i];
      const double perplexity = run.perplexity_to(dense);
      if (!(perplexity <= 1 + o.tolerance)) {
        beyond = places[i];
        break;
      }
      within = {places[i], path[places[i]].beta_of_layer, perplexity,
                ratio(run.per_step(run.ffn_bytes), dense.per_step(dense.ffn_bytes)), run.tokens};
    }
  }
  return within;
}

}  // namespace

void run_calibrate(int argc, const char* const* argv, console& terminal, const measurer& measure) {
  const calibrate_options o = parse_calibrate_options(argc, argv);
  trials trial(o, terminal, measure);
  const std::vector<layer_damage> damages = damage_of_layers(trial, o.layer_tokens);
  const index least = measured_parts.front(), most = most_parts(o.sparse);
  found_place found = farthest_within(trial, shares_path(damages, least, most), o);
  const found_place even = farthest_within(trial, even_path(damages, least, most), o);
  if (even.ffn_bytes_to_dense < found.ffn_bytes_to_dense) found = even;
  terminal.clear();
  require(found.at > 0, "no layer can leave out 1 / ", share_parts,
          " of its neurons within the tolerance of ", o.tolerance,
          "; no calibration was written, and what was measured stays in ", o.output.string(), kept_suffix,
          "* for another start");
  calibration result{.policy = policy_name(o.sparse),
                     .weights = weights_name(o.sparse),
                     .tolerance = o.tolerance,
                     .beta_of_layer = found.beta_of_layer,
                     .text = o.text.filename().string(),
                     .tokens = found.tokens,
                     .perplexity_to_dense = found.perplexity_to_dense,
                     .ffn_bytes_to_dense = found.ffn_bytes_to_dense,
                     .measured_shares = measured_shares(),
                     .damage_of_layer = {}};
  for (const layer_damage& layer : damages) result.damage_of_layer.push_back(layer.damage);
  write_calibration(o.output, result, o.base.model);
  trial.forget();
  std::cout << o.output.string() << ": " << result.policy << ", perplexity " << result.perplexity_to_dense
            << " of the dense one's on " << result.tokens << " tokens, " << percent(result.ffn_bytes_to_dense)
            << " of the feed-forward blocks' bytes\n"
            << std::flush;
}

}  // namespace corematching::driver
