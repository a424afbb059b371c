// SPDX-License-Identifier: Apache-2.0
// Compiled, never run: every kernel that has instructions of its own, for instruction sets that the machine
// of the tests may lack. A function that nothing calls would not be compiled far enough to be refused.
#include "corematching/backend/cpu/backend.hpp"

#if !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
#error "compile with -mavx512vnni or -mavxvnni"
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

}  // namespace corematching
