// SPDX-License-Identifier: Apache-2.0
// Speed of a whole model: prefill of a prompt with an image, then decode, dense or with CoreMatching. Weights
// are random unless --model names a checkpoint: speed depends on shapes and types alone.
//   llava_bench --weights q8_0 --keep 64 --match-layer 10 --beta 0.4 --paired --repeat 5
#include <iostream>
#include <nlohmann/json.hpp>

#include "batch_report.hpp"
#include "llava_bench_options.hpp"
#include "llava_bench_report.hpp"
#include "measure.hpp"

namespace corematching::bench {
namespace {

void print(const machine_rates& rates, bool json) {
  if (json) {
    std::cout << json_of(rates) << '\n';
  } else {
    print_rates(std::cout, rates);
  }
}

void print(const options& o, const batch_measurement& m) {
  if (o.json)
    std::cout << json_of(o, m) << '\n';
  else
    print_table(std::cout, m);
}

void run(const options& o) {
  if (o.probe) return print(probe(o), o.json);
  if (!o.sequences.empty()) return print(o, measure_batches(o));
  const measurement result = measure(o);
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
