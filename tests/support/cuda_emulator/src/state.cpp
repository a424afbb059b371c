// SPDX-License-Identifier: Apache-2.0
#include "state.hpp"

#include <algorithm>

namespace cuda_emulator {

namespace detail {

emulator_state& state() {
  static emulator_state& one = *new emulator_state;
  return one;
}

api_call::api_call(const char* name) : lock_(state().mutex) {
  std::vector<wanted_failure>& failures = state().asked.failures;
  const auto wanted =
      std::find_if(failures.begin(), failures.end(), [&](auto& each) { return each.call == name; });
  if (wanted == failures.end() || wanted->successes-- > 0) return;
  status_ = wanted->status;
  failures.erase(wanted);
}

}  // namespace detail

using detail::state;

void set_thread_order(thread_order order, std::uint32_t seed) {
  state().asked.order = order;
  state().asked.seed = seed;
}
void set_device_count(int count) {
  state().asked.device_count = count;
}
void set_device_memory(std::size_t bytes) {
  state().asked.device_memory = bytes;
}
void fail_next(std::string_view call, cudaError_t status, int successes) {
  state().asked.failures.push_back({std::string(call), status, successes});
}
std::size_t live_allocations() {
  return state().device_memory.size();
}
std::size_t live_bytes() {
  return state().used;
}
std::size_t wrong_frees() {
  return state().asked.wrong_frees;
}
std::size_t launches() {
  return state().asked.launches;
}
void reset() {
  state().asked = {};
  state().last_error = cudaSuccess;
}

}  // namespace cuda_emulator
