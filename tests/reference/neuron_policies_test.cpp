// SPDX-License-Identifier: Apache-2.0
// Answers under each policy for neurons, held to those that an independent implementation stored: by the same
// ids, step by step, so that no difference grows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/magnitude_neurons.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "corematching/io/json.hpp"
#include "support/reference_model.hpp"
#include "support/reference_run.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using test::reference_model;
using test::reference_run;
using test::relative_distance;

io::json all_cases() {
  return test::reference_description("neuron_policies").at("cases");
}

neuron_shares shares_of(const io::json& policy) {
  neuron_shares shares;
  const io::json& beta = policy.at("beta");
  if (beta.is_array())
    shares.of_layer = beta.get<std::vector<double>>();
  else
    shares.beta = beta;
  if (!policy.at("layers").is_null()) {
    shares.begin = policy.at("layers").at(0);
    shares.end = policy.at("layers").at(1).get<index>();
  }
  return shares;
}

std::optional<token_kind> counted_of(const io::json& policy) {
  if (policy.at("count_over") == "all") return std::nullopt;
  return policy.at("count_over") == "text" ? token_kind::text : token_kind::image;
}

/// The type of the model's weights: what foretells needs two planes. Nothing: no type of ours holds them.
std::optional<dtype> weights_of(const io::json& stored) {
  const auto name = stored.at("weights").get<std::string>();
  if (stored.at("policy").at("kind") != "predicted") return dtype_named(name);
  return dtype_named(name + "_planes");
}

class neuron_policies_reference : public testing::TestWithParam<std::string> {
 protected:
  io::json stored = [] {
    for (const io::json& one : all_cases())
      if (one.at("name") == GetParam()) return one;
    return io::json();
  }();
  const io::json& policy = stored.at("policy");
  reference_model m{test::model_directory(stored.at("model")), weights_of(stored)};
  reference_run run{test::reference_directory("neuron_policies"), stored};
  index layers = m.config.text().layers;
  decoder_shape shape = shape_of(m.config.text());

  multimodal_prompt prompt = m.prompt(run);
  sequence<B> seq = m.language().start(m.be, 64);

  template <class H>
  std::vector<float> prefill(H&& hook) {
    matrix<B> features;
    if (run.has_picture()) {
      const auto picture =
          test::model_directory(stored.at("model")) / stored.at("picture").get<std::string>();
      features =
          m.multimodal->encode_image(m.be, image_processor(m.config.image)(driver::read_picture(picture)));
    }
    matrix<B> x = embed_prompt(m.be, m.language(), prompt, std::as_const(features).view());
    return m.language().prefill(m.be, seq, x.view(), prompt.size(), hook);
  }

  /// Logits of the prompt, `first`, and behind each generated id but the last, against the stored ones.
  template <class H>
  void expect_stored_logits(std::vector<float> logits, H&& hook) {
    std::vector<std::int32_t> ids = run.generated_ids();
    ids.pop_back();
    for (const std::int32_t id : ids) {
      const std::vector<float> next = m.language().decode(m.be, seq, id, hook);
      logits.insert(logits.end(), next.begin(), next.end());
    }
    const auto expected = run.values<float>("logits");
    ASSERT_EQ(logits.size(), expected.size());
    EXPECT_LE(relative_distance(logits, expected), tolerance());
  }

  /// As in the other references; where tokens are rounded to integers, what that makes of seven products in
  /// each layer, whose errors are independent, so that their squares add.
  double tolerance() const {
    const dtype type = *weights_of(stored);
    const bool rounds =
        is_quantised(type) ? support::rounds_tokens_to_integers() : support::multiplied_in_tiles(type);
    if (!rounds) return 2e-5;
    const double bits = support::rounds_tokens_to_bytes(type) ? 127 : 32767;
    return std::sqrt(7.0 * static_cast<double>(layers) * 32 / 12) / bits;
  }
};

TEST_P(neuron_policies_reference, agree_with_an_independent_implementation) {
  if (policy.at("kind") == "predicted" && stored.at("weights") == "q4_0" &&
      support::rounds_tokens_to_integers())
    GTEST_SKIP() << "tokens are rounded to bytes, which choose other neurons where two are near each other";
  if (policy.at("kind") == "gate") {
    gate_neurons<B> gates(m.be, shares_of(policy), layers, shape, counted_of(policy));
    const gate_neurons<B>::decode_hook hook(gates);
    if (policy.at("plain")) return expect_stored_logits(prefill(no_hook()), hook);
    gates.begin_prompt(0, prompt.kinds);
    auto first = prefill(gate_neurons<B>::prefill_hook(gates));
    expect_stored_logits(std::move(first), hook);
  } else if (policy.at("kind") == "sentence") {
    magnitude_neurons<B> sums(m.be, shares_of(policy), layers, shape, counted_of(policy));
    sums.begin_prompt(0, prompt.kinds);
    auto first = prefill(magnitude_neurons<B>::prefill_hook(sums));
    for (index layer = 0; layer < layers; ++layer) {
      const std::string tensor = "layers." + std::to_string(layer) + ".neurons";
      const auto chosen = sums.neurons(layer);
      ASSERT_EQ(chosen.has_value(), run.has(tensor));
      if (!chosen) continue;
      std::vector<std::int32_t> host(static_cast<std::size_t>(chosen->size));
      m.be.download(vector_view<std::int32_t>{host.data(), chosen->size}, *chosen);
      EXPECT_EQ(host, run.values<std::int32_t>(tensor)) << "layer " << layer;
    }
    expect_stored_logits(std::move(first), magnitude_neurons<B>::decode_hook(sums));
  } else {
    expect_stored_logits(prefill(no_hook()), predicted_neurons<B>(shares_of(policy), layers, shape));
  }
}

/// All that are stored whose weights are of a type of ours, on a backend that computes with it.
std::vector<std::string> names_of_cases() {
  std::vector<std::string> names;
  for (const io::json& one : all_cases()) {
    const auto type = weights_of(one);
    if (type && (support::has_block_formats || !is_quantised(*type))) names.push_back(one.at("name"));
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(stored, neuron_policies_reference, testing::ValuesIn(names_of_cases()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace corematching
