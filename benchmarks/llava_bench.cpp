// SPDX-License-Identifier: Apache-2.0
// Speed of a whole model: prefill of a prompt with an image, then decode, dense or with CoreMatching. Weights
// are random unless --model names a checkpoint: speed depends on shapes and types alone.
//   llava_bench --weights q8_0 --keep 64 --match-layer 10 --beta 0.4 --paired --repeat 5
#include <iostream>
#include <nlohmann/json.hpp>

#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "llava_bench_options.hpp"
#include "llava_bench_report.hpp"
#include "memory_probe.hpp"
#include "random_model.hpp"

namespace corematching::bench {
namespace {

llama<cpu::backend> make_model(cpu::backend& be, const options& o) {
  if (o.model.empty()) {
    llama_config config = shapes().at(o.shape);
    config.layers = o.layers.value_or(config.layers);
    return random_model(be, config, o.weights);
  }
  const llama_config config = read_model_config(o.model).text();
  const auto files = io::checkpoint::open(o.model);
  weight_reader<cpu::backend> reader(be, files);
  return {be, config, reader};
}

/// Runs `pass` between two probes.
template <class Pass>
void add_measured(measured_passes& to, memory_probe& probe, Pass&& pass) {
  const double before = probe.read_bytes_per_second();
  const pass_result result = pass();
  to.add(result, (before + probe.read_bytes_per_second()) / 2);
}

measurement measure(cpu::backend& be, memory_probe& probe, const options& o) {
  const llama<cpu::backend> model = make_model(be, o);
  pass_runner(be, model, {8, 0, 1}).dense();  // the first pass takes memory for its scratch buffers
  pass_runner runner(be, model, o.load);
  measurement result{measured_passes(o.load), {}};
  if (o.paired) result.dense.emplace(o.load);
  for (int i = 0; i < o.repeat; ++i) {
    if (o.paired) add_measured(*result.dense, probe, [&] { return runner.dense(); });
    add_measured(result.main, probe,
                 [&] { return o.is_sparse() ? runner.sparse(o.sparsity()) : runner.dense(); });
  }
  return result;
}

void run(const options& o) {
  cpu::thread_pool pool(o.threads);
  memory_probe probe(pool);
  if (o.probe) {
    const double rate = probe.read_bytes_per_second();
    if (o.json) {
      std::cout << nlohmann::json{{"read_bytes_per_second", rate}} << '\n';
    } else {
      std::cout << rate / 1e9 << " GB/s read\n";
    }
    return;
  }
  cpu::backend be(o.threads);
  const measurement result = measure(be, probe, o);
  if (o.json) {
    std::cout << json_of(o, result) << '\n';
  } else {
    print_table(std::cout, result);
  }
}

}  // namespace
}  // namespace corematching::bench

int main(int argc, char** argv) {
  using namespace corematching::bench;
  try {
    run(parse_options(argc, argv));
  } catch (const usage_exit& end) {
    return end.code;
  } catch (const std::exception& problem) {
    std::cerr << "llava_bench: " << problem.what() << '\n';
    return 1;
  }
}
