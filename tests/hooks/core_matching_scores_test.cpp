// SPDX-License-Identifier: Apache-2.0
// Which image tokens stay by rarity and by contrast, of one picture and of several, against the definitions
// applied to what another hook recorded.
#include "corematching/hooks/core_matching_scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "hooks/recorded_run.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace test;
using scores64 = std::vector<std::int64_t>;

constexpr index matched = 1;  // the layer
constexpr std::int32_t anchor = question_size - 5;

indices text_rows() {
  indices rows = rows_between(0, first_image - 1);
  std::ranges::copy(rows_between(last_image + 1, question_size - 1), std::back_inserter(rows));
  return rows;
}

/// How many of `rows` activate each neuron.
std::vector<std::int64_t> firing(const recorded_run& run, index layer, const indices& rows) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(run.neurons()));
  for (const std::int32_t row : rows)
    for (const std::int32_t n : run.activated(layer, row)) ++counts[static_cast<std::size_t>(n)];
  return counts;
}

/// Σ over n in Γ(x) of c_n · round(256 · log2(T / max(1, i_n))) of the rows of a picture.
scores64 defined_rarities(const recorded_run& run, index layer, const indices& picture,
                          const std::vector<std::int64_t>& reference) {
  const std::vector<std::int64_t> of_image = firing(run, layer, picture);
  scores64 scores;
  for (const std::int32_t row : picture) {
    scores.push_back(0);
    for (const std::int32_t n : run.activated(layer, row)) {
      const auto place = static_cast<std::size_t>(n);
      const auto share = static_cast<double>(picture.size()) /
                         static_cast<double>(std::max<std::int64_t>(1, of_image[place]));
      scores.back() += reference[place] * std::llround(256 * std::log2(share));
    }
  }
  return scores;
}

/// The positions that `keep` leaves of `rows`, which have these scores and stand at their numbers.
template <class Score>
indices kept_of(const indices& rows, const std::vector<Score>& scores, const select::keep_options& keep) {
  indices kept;
  for (const std::int32_t place : slow::core_tokens(scores, keep))
    kept.push_back(rows[static_cast<std::size_t>(place)]);
  return kept;
}

core_matching_config rarity(reference_set with, const select::keep_options& keep = {}) {
  return {.match_layers = {matched}, .criterion = token_criterion::rarity, .reference = with, .keep = keep};
}
core_matching_config contrast(reference_set with, const select::keep_options& keep = {}) {
  return {.match_layers = {matched}, .criterion = token_criterion::contrast, .reference = with, .keep = keep};
}

TEST_F(core_matching_selects, image_tokens_by_how_rare_the_neurons_are_that_they_share) {
  for (const auto& keep : {select::keep_options{}, keep_five})
    for (const reference_set with :
         {reference_set::question, reference_set::anchor, reference_set::sentence}) {
      const recorded_run run(model, rarity(with, keep));
      std::vector<std::int64_t> reference;
      if (with == reference_set::question)
        reference = firing(run, matched, rows_between(last_image + 1, question_size - 1));
      if (with == reference_set::anchor) reference = firing(run, matched, {anchor});
      if (with == reference_set::sentence) {
        reference.assign(static_cast<std::size_t>(run.neurons()), 0);
        for (const std::int32_t n : run.defined_core_neurons(matched, rows_between(0, question_size - 1)))
          reference[static_cast<std::size_t>(n)] = 1;
      }
      const indices picture = rows_between(first_image, last_image);
      EXPECT_EQ(run.state.matches().at(0).kept_image_positions,
                kept_of(picture, defined_rarities(run, matched, picture, reference), keep))
          << "reference " << name_of(with);
    }
}

TEST_F(core_matching_selects, image_tokens_by_what_the_image_has_not_for_its_core) {
  for (const auto& keep : {select::keep_options{}, keep_five})
    for (const reference_set with : {reference_set::anchor, reference_set::text}) {
      const recorded_run run(model, contrast(with, keep));
      const indices picture = rows_between(first_image, last_image);
      const indices reference = with == reference_set::anchor
                                    ? run.activated(matched, anchor)
                                    : run.defined_core_neurons(matched, text_rows());
      indices rest;
      std::ranges::set_difference(reference, run.defined_core_neurons(matched, picture),
                                  std::back_inserter(rest));
      ASSERT_FALSE(rest.empty());
      ASSERT_LT(rest.size(), reference.size()) << "nothing is left out, so nothing is tested";
      EXPECT_EQ(run.state.matches().at(0).kept_image_positions,
                run.defined_image_positions(run.overlaps(matched, rest)))
          << "reference " << name_of(with);
    }
}

TEST_F(core_matching_selects, the_same_by_rarity_and_contrast_for_every_chunking) {
  support::sampled_cases cases;
  for (const core_matching_config& config :
       {rarity(reference_set::question), rarity(reference_set::sentence), contrast(reference_set::anchor),
        contrast(reference_set::text)}) {
    const recorded_run whole(model, config);
    for (const index ffn_rows : {1, 3, 4, 5, 7, 22}) {
      if (!cases.takes_next(3)) continue;
      const recorded_run chunked(model, config, ffn_rows);
      EXPECT_EQ(chunked.state.matches().at(0).kept_positions, whole.state.matches().at(0).kept_positions)
          << name_of(config.criterion) << ", " << ffn_rows << " rows";
    }
  }
}

TEST_F(core_matching_selects, by_rarity_among_the_tokens_that_are_left) {
  const select::keep_options half{.rule = select::keep_rule::ratio, .ratio = 0.5};
  core_matching_config config = rarity(reference_set::question, half);
  config.match_layers = {0, 2};
  const recorded_run run(model, config);
  // Behind layer 0 the rows are three of text, six of the image, seven of text.
  const indices& first = run.state.matches().at(0).kept_image_positions;
  ASSERT_EQ(first.size(), 6u);
  const auto scores = defined_rarities(run, 2, rows_between(3, 8), firing(run, 2, rows_between(9, 15)));
  EXPECT_EQ(run.state.matches().at(1).kept_image_positions, kept_of(first, scores, half));
}

TEST_F(core_matching_selects, tokens_of_every_picture_for_itself) {
  const std::vector<index> sizes{5, 7};
  for (const auto& keep :
       {select::keep_options{}, select::keep_options{.rule = select::keep_rule::top_k, .count = 2},
        select::keep_options{.rule = select::keep_rule::ratio, .ratio = 0.5}}) {
    const recorded_run run(model, rarity(reference_set::question, keep), 1000, question, sizes);
    const auto reference = firing(run, matched, rows_between(last_image + 1, question_size - 1));
    const indices one = rows_between(3, 7), other = rows_between(8, 14);
    const indices of_one = kept_of(one, defined_rarities(run, matched, one, reference), keep);
    const indices of_other = kept_of(other, defined_rarities(run, matched, other, reference), keep);
    indices both = of_one;
    std::ranges::copy(of_other, std::back_inserter(both));
    const token_match& match = run.state.matches().at(0);
    EXPECT_EQ(match.kept_image_positions, both);
    EXPECT_EQ(match.image_tokens, 12);
    ASSERT_EQ(match.groups.size(), 2u);
    EXPECT_EQ(match.groups[0].image_tokens, 5);
    EXPECT_EQ(match.groups[1].image_tokens, 7);
    EXPECT_EQ(match.groups[0].kept, std::ssize(of_one));
    EXPECT_EQ(match.groups[1].kept, std::ssize(of_other));
  }
}

TEST_F(core_matching_selects, tokens_of_all_pictures_together_where_asked) {
  core_matching_config config = rarity(reference_set::question, keep_five);
  config.among = kept_among::all;
  const recorded_run run(model, config, 1000, question, {5, 7});
  const auto reference = firing(run, matched, rows_between(last_image + 1, question_size - 1));
  scores64 scores = defined_rarities(run, matched, rows_between(3, 7), reference);
  std::ranges::copy(defined_rarities(run, matched, rows_between(8, 14), reference),
                    std::back_inserter(scores));
  EXPECT_EQ(run.state.matches().at(0).kept_image_positions, run.defined_image_positions(scores));
  EXPECT_EQ(run.state.matches().at(0).groups.size(), 1u);
}

TEST_F(core_matching_selects, the_papers_tokens_of_every_picture_by_one_sentence) {
  const select::keep_options two{.rule = select::keep_rule::top_k, .count = 2};
  const recorded_run run(model, {.match_layers = {matched}, .keep = two}, 1000, question, {5, 7});
  const indices core = run.defined_core_neurons(matched, rows_between(0, question_size - 1));
  indices both = kept_of(rows_between(3, 7), run.overlaps(matched, core, 3, 7), two);
  std::ranges::copy(kept_of(rows_between(8, 14), run.overlaps(matched, core, 8, 14), two),
                    std::back_inserter(both));
  EXPECT_EQ(run.state.matches().at(0).kept_image_positions, both);
}

TEST_F(core_matching_selects, and_shows_the_scores_by_which_it_did) {
  const recorded_run run(model, rarity(reference_set::question));
  const indices picture = rows_between(first_image, last_image);
  const scores64 scores = defined_rarities(
      run, matched, picture, firing(run, matched, rows_between(last_image + 1, question_size - 1)));
  const token_group& group = run.state.matches().at(0).groups.at(0);
  ASSERT_TRUE(group.profile);
  EXPECT_EQ(group.profile->first, static_cast<double>(std::ranges::max(scores)));
  EXPECT_EQ(group.profile->last, static_cast<double>(std::ranges::min(scores)));
  EXPECT_EQ(group.kept, std::ssize(run.state.matches().at(0).kept_image_positions));
  const auto& shown = run.state.matches().at(0).image_scores;
  ASSERT_EQ(shown.size(), picture.size());
  for (std::size_t i = 0; i < picture.size(); ++i) {
    EXPECT_EQ(shown[i].position, picture[i]);
    EXPECT_EQ(shown[i].score, static_cast<double>(scores[i]));
  }
  ASSERT_TRUE(group.profile->elbow);
  EXPECT_LE(*group.profile->elbow + 1, group.kept) << "the elbow itself stays";
}

TEST_F(core_matching_selects, nothing_by_contrast_where_text_has_no_core_neurons) {
  auto tensors = support::random_tensors(model.config, 1);
  for (double& value : tensors.at("model.layers.1.mlp.up_proj.weight").values) value = 0;
  tiny_model silent(model.config, tensors);
  const recorded_run run(silent, contrast(reference_set::text, keep_five));
  EXPECT_TRUE(run.state.matches().empty());
  EXPECT_EQ(run.recording.activations.at(2).rows, question_size);
}

}  // namespace
}  // namespace corematching
