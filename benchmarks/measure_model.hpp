// SPDX-License-Identifier: Apache-2.0
// Measured passes over one model on any backend, each between two probes of the machine.
#pragma once

#include <filesystem>

#include "corematching/io/gguf_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/gguf/config.hpp"
#include "corematching/model/gguf/reader.hpp"
#include "limited_model.hpp"
#include "llava_bench_options.hpp"
#include "llava_bench_report.hpp"
#include "random_model.hpp"

namespace corematching::bench {

template <backend B>
llama<B> make_model(B& be, const options& o) {
  if (o.model.empty()) {
    llama_config config = shapes().at(o.shape);
    config.layers = o.layers.value_or(config.layers);
    return random_model(be, config, o.random_weights(), o.threads);
  }
  if (std::filesystem::is_regular_file(o.model)) {
    const auto file = io::gguf_file::open(o.model);
    const llama_config config = read_gguf_config(file);
    gguf_reader<B> reader(be, file, config, o.threads, {}, o.weights);
    return {be, config, reader};
  }
  if (o.memory_limit) return limited_model(be, o.model, o.random_weights(), *o.memory_limit, o.threads);
  const llama_config config = read_model_config(o.model).text();
  const auto files = io::checkpoint::open(o.model);
  weight_reader<B> reader(be, files, {}, o.weights);
  return {be, config, reader};
}

/// `probe()` gives the machine_rates of the moment.
template <backend B, class Probe>
measurement measure_model(B& be, const options& o, Probe&& probe) {
  const llama<B> model = make_model(be, o);
  pass_runner<B>(be, model, {8, 0, 1, o.load.cache_type}).dense();  // takes memory for its scratch buffers
  pass_runner<B> runner(be, model, o.load);
  measurement result{measured_passes(o.load), {}, {}};
  if (o.paired) result.dense.emplace(o.load);
  const auto add = [&](measured_passes& to, auto&& pass) {
    const machine_rates before = probe();
    const pass_result one = pass();
    to.add(one, mean_of(before, probe()));
  };
  for (int i = 0; i < o.repeat; ++i) {
    if (o.paired) add(*result.dense, [&] { return runner.dense(); });
    add(result.main, [&] {
      if (!o.is_sparse()) return runner.dense();
      if (o.policy == options::neuron_policy::gate) return runner.by_gate(o.sparsity(), {.beta = o.beta});
      if (o.policy == options::neuron_policy::predicted)
        return runner.by_prediction(o.sparsity(), {.beta = o.beta});
      return runner.sparse(o.sparsity());
    });
  }
  return result;
}

}  // namespace corematching::bench
