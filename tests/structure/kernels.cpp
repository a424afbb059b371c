// SPDX-License-Identifier: Apache-2.0
// Compiled, never run: every kernel that has instructions of its own, for instruction sets that the machine
// of the tests may lack, selection and products alike. A function that nothing calls would not be compiled
// far enough to be refused.
#include "corematching/backend/cpu/backend.hpp"
#include "corematching/select.hpp"

#if !COREMATCHING_HAS_VNNI && !COREMATCHING_HAS_NEON
#error "compile for a CPU with VNNI or for AArch64"
#endif

namespace corematching {

void call_kernels(cpu::backend& be, matrix_view<float> y, matrix_view<const float> x, weight_view<> w,
                  const neuron_selection<host_space>& some, cache_view<> cached, attention_shape shape) {
  be.matmul(y, x, w);
  be.gated_up(y, x, w, w, activation::silu, some);
  be.weighted_rows(y, x, w, some);
  be.store_rows(cached, x);
  be.load_rows(y, w);
  be.attention(y, x, w, w, shape);
}

template <class T>
void call_selectors(const T* activation, index neurons, select::word* bits, std::int32_t* counts,
                    select::core_scratch& scratch) {
  select::activated_neurons(activation, 1, neurons, neurons, bits, select::words_for(neurons), counts);
  select::count_core_neurons(activation, neurons, neurons / 2, scratch, counts);
}

template void call_selectors(const float*, index, select::word*, std::int32_t*, select::core_scratch&);
template void call_selectors(const f16*, index, select::word*, std::int32_t*, select::core_scratch&);
template void call_selectors(const bf16*, index, select::word*, std::int32_t*, select::core_scratch&);

}  // namespace corematching
