// SPDX-License-Identifier: Apache-2.0
// The checkpoints of tests/reference/data with weights converted to every type, held from two sides: to a
// model in binary32 whose weights were rounded to that type first, which leaves the kernels' own error, and
// to what transformers computed with the weights as they are stored, which leaves the rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "support/reference_model.hpp"
#include "support/reference_run.hpp"

namespace corematching {
namespace {

using test::reference_model;
using test::reference_run;
using test::relative_distance;
using B = support::test_backend;

/// Reads matrices as another reader does and widens them to binary32: exactly what they were rounded to.
struct rounded_reader {
  using matrix_weight = weight<B::space>;

  std::string language_prefix() const { return from.language_prefix(); }
  word_embeddings embeddings_of(const llama_config& config) const { return from.embeddings_of(config); }
  matrix_weight matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return be.convert_weight(from.matrix(name, shape).view, dtype::f32, false);
  }
  matrix_weight neuron_matrix(const std::string& name, std::initializer_list<std::int64_t> shape) {
    return be.convert_weight(from.neuron_matrix(name, shape).view, dtype::f32, false);
  }
  matrix_weight transposed(const std::string& name, index rows, index cols) {
    return be.convert_weight(from.transposed(name, rows, cols).view, dtype::f32, false);
  }
  parameters<B> vector(const std::string& name, index size) { return from.vector(name, size); }

  B& be;
  weight_reader<B>& from;
};

llama<B> read_rounded(B& be, const llama_config& config, weight_reader<B>& reader) {
  rounded_reader rounded{be, reader};
  return {be, config, rounded};
}

/// Decodes with every third neuron: the kernels for selected rows, without a decision that rounding could
/// turn.
struct every_third {
  using attends = sites<site::ffn_neurons>;

  explicit every_third(index neurons) {
    for (index n = 1; n < neurons; n += 3) chosen.push_back(static_cast<std::int32_t>(n));
  }
  neuron_selection<B::space> operator()(site::ffn_neurons, const layer_context<B>&) const {
    return index_view<>{chosen.data(), std::ssize(chosen)};
  }

  std::vector<std::int32_t> chosen;
};

/// What a model makes of a run.
struct outcome {
  layer_recording layers;     // of the prompt
  std::vector<float> logits;  // [steps, vocabulary]
};

/// Reads the prompt of `run` and then its generated ids but the last, whichever the model itself would
/// choose.
template <class H>
outcome repeated(reference_model& m, const reference_run& run, H&& decode_hook) {
  matrix<B> features;
  if (run.has_picture()) features = m.multimodal->encode_image(m.be, m.pixels(run));
  const multimodal_prompt prompt = m.prompt(run);
  matrix<B> x = embed_prompt(m.be, m.language(), prompt, std::as_const(features).view());
  sequence<B> seq = m.language().start(m.be, 64);
  outcome made;
  made.logits = m.language().prefill(m.be, seq, x.view(), prompt.size(), record_hook<B>(made.layers));
  std::vector<std::int32_t> ids = run.generated_ids();
  ids.pop_back();
  for (const std::int32_t id : ids) {
    const std::vector<float> next = m.language().decode(m.be, seq, id, decode_hook);
    made.logits.insert(made.logits.end(), next.begin(), next.end());
  }
  return made;
}

/// Relative error, norm-wise, of numbers rounded to blocks of 32 with steps of (largest magnitude) / `steps`:
/// the rounding of each is uniform within a step, and the largest is at most the norm of its block.
double block_rounding(double steps) {
  return std::sqrt(32 / 12.0) / steps;
}

/// The same of weights of a type; of floats the bound of each, which is their rounding at worst.
double weight_rounding(dtype type) {
  switch (type) {
    case dtype::f32: return 0;
    case dtype::f16:
    case dtype::f16_planes: return 0x1p-11;
    case dtype::bf16: return 0x1p-8;
    case dtype::q8_0:
    case dtype::q8_0_planes: return block_rounding(127);
    case dtype::q4_0:
    case dtype::q4_0_planes: return block_rounding(8);
    default: break;  // no number is rounded to the others
  }
  return 0;
}

/// What products with weights of that type round beside: in prefill alone, or in decode behind it, whichever
/// is more. In tiles each factor is a bfloat16 or, for 16-bit weights, a sum of two that leaves out as much
/// for tokens, and for f16 weights as much again.
double factor_rounding(dtype type, bool decode) {
  if (is_quantised(type) && !support::rounds_tokens_to_integers()) return 0;
  double rounding = 0;
  if (support::multiplied_in_tiles(type)) {
    rounding = is_quantised(type)             ? std::sqrt(2.0) * 0x1p-8
               : whole_of(type) == dtype::f16 ? 0x1p-15
                                              : 0x1p-16;
  } else if (is_quantised(type)) {
    rounding = block_rounding(support::rounds_tokens_to_bytes(type) ? 127 : 32767);
  }
  if (decode && whole_of(type) == dtype::q4_0) rounding = std::max(rounding, block_rounding(127));
  return rounding;
}

// What binary32 itself does to these models: see "float32_error" in reference.json, times five.
constexpr double float_error = 2e-5;

/// `products` roundings in a row, independent of each other, so that their squares add; each is passed on
/// undiminished.
double after(index products, double rounding) {
  return float_error + std::sqrt(static_cast<double>(products)) * rounding;
}

constexpr index products_of_layer = 7;

class weight_types : public ::testing::TestWithParam<std::tuple<std::string, dtype>> {
 protected:
  const std::string& name() const { return std::get<0>(GetParam()); }
  dtype type() const { return std::get<1>(GetParam()); }
  reference_model converted{test::model_directory(name()), type()};

  index layers() const { return converted.config.text().layers; }
  reference_run dense_run() const {
    const io::json description = test::reference_description(name());
    const auto& runs = description.at("runs");
    const auto found = std::ranges::find_if(
        runs, [](const io::json& run) { return run.at("options").at("sparsity") == "none"; });
    return {test::reference_directory(name()), *found};
  }
};

TEST_P(weight_types, compute_as_the_rounded_weights_do_in_binary32) {
  const reference_run run = dense_run();
  reference_model rounded(test::model_directory(name()), type(), read_rounded);
  const auto expect_alike = [&](const auto& hook) {
    const outcome a = repeated(converted, run, hook), b = repeated(rounded, run, hook);
    ASSERT_EQ(std::ssize(b.layers.outputs), layers());
    for (const auto& [layer, output] : b.layers.outputs)
      EXPECT_LE(relative_distance(a.layers.outputs.at(layer).values, output.values),
                after(products_of_layer * (layer + 1), factor_rounding(type(), false)))
          << "layer " << layer;
    ASSERT_EQ(a.logits.size(), b.logits.size());
    EXPECT_LE(relative_distance(a.logits, b.logits),
              after(products_of_layer * layers() + 1, factor_rounding(type(), true)));
  };
  expect_alike(no_hook{});
  expect_alike(every_third(converted.config.text().intermediate_size));
}

TEST_P(weight_types, stay_as_near_to_transformers_as_their_rounding_allows) {
  const reference_run run = dense_run();
  // The embedding; where the vision tower is rounded too, its products and the projector's.
  index before = 1;
  if (const llava_config* config = converted.config.llava(); config != nullptr && !is_quantised(type()))
    before += 6 * config->vision_layers() + 3;
  const auto rounding = [&](bool decode) {
    return std::hypot(weight_rounding(type()), factor_rounding(type(), decode));
  };
  const outcome made = repeated(converted, run, no_hook{});
  for (const auto& [layer, output] : made.layers.outputs) {
    const std::string tensor = "layers." + std::to_string(layer) + ".output";
    if (!run.has(tensor)) continue;
    EXPECT_LE(relative_distance(output.values, run.values<float>(tensor)),
              after(before + products_of_layer * (layer + 1), rounding(false)))
        << "layer " << layer;
  }
  const auto logits = run.values<float>("logits");
  ASSERT_EQ(made.logits.size(), logits.size());
  EXPECT_LE(relative_distance(made.logits, logits),
            after(before + products_of_layer * layers() + 1, rounding(true)));
}

/// Every model in every type; tiny_original has rows of 56 weights, which make no blocks, and what the demo
/// model takes is too much where every access is checked.
std::vector<std::tuple<std::string, dtype>> models_and_types() {
  std::vector<std::tuple<std::string, dtype>> all;
  for (const char* model : {"tiny_mha", "tiny_gqa_bias", "tiny_original", "tiny_saved_by_5", "tiny_llama",
                            "tiny_mistral", "tiny_qwen2", "tiny_qwen3", "tiny_window", "demo"})
    for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_0,
                             dtype::q8_0_planes, dtype::q4_0_planes, dtype::f16_planes})
      if (!(is_quantised(type) && std::string(model) == "tiny_original") &&
          !(support::is_sanitized && std::string(model) == "demo"))
        all.emplace_back(model, type);
  return all;
}

INSTANTIATE_TEST_SUITE_P(stored, weight_types, ::testing::ValuesIn(models_and_types()), [](const auto& test) {
  return std::get<0>(test.param) + "_" + name_of(std::get<1>(test.param));
});

}  // namespace
}  // namespace corematching
