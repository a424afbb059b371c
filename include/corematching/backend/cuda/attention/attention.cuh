// SPDX-License-Identifier: Apache-2.0
// Softmax attention over keys and values that lie as [keys, kv_heads * head_dim]: which kernels take it.
#pragma once

#include <cassert>
#include <type_traits>

#include "corematching/backend/cuda/attention/decode.cuh"
#include "corematching/backend/cuda/attention/prefill.cuh"
#include "corematching/backend/cuda/attention/probabilities.cuh"
#include "corematching/backend/cuda/attention/tensor_core.cuh"

namespace corematching::cuda::detail {

/// Query rows up to which reading keys and values for each of them is cheaper than tiles that they do not
/// fill.
inline constexpr index few_queries = 8;

/// y = softmax(q k^T * scale) v. y, q [t, heads * head_dim]; k, v [keys, kv_heads * head_dim] in f32, f16 or
/// bf16; y apart from all others. One query can be attended to keys that are there `later`. In f32, and
/// wherever tensor cores do not take part, with the accuracy of binary32.
inline void attention(const context& on, workspace& results, matrix_view<float, device_space> y,
                      matrix_view<const float, device_space> q, stored_view<device_space> k,
                      stored_view<device_space> v, const attention_shape& shape, later_rows later = {}) {
  assert(y.rows == q.rows && y.cols == q.cols && k.rows == v.rows && k.type == v.type);
  assert(!shape.causal || k.rows >= q.rows);
  if (q.rows == 0) return;
  assert(k.rows > 0);
  const bool whole_loads = takes_whole_loads(k, shape.head_dim) && takes_whole_loads(v, shape.head_dim);
  visit_elements(k.type, [&]<class T>() {
    const attention_operands<T> in = operands_of<T>(q, k, v, shape);
    require(later.counter == nullptr || q.rows == 1, "attention of ", q.rows,
            " queries cannot be captured, only that of one");
    // Tiles know no windows: keys and values are read for each query that a window hides something from.
    const bool hides = shape.window > 0 && k.rows > shape.window;
    if (q.rows <= few_queries || hides) return decode_attention(on, results, y, in, whole_loads, later);
    if constexpr (!std::is_same_v<T, float>)
      if (suits_tensor_cores(k.type, shape.head_dim, whole_loads, on.capability))
        return tensor_core_attention(on, y, in);
    prefill_attention(on, y, in);
  });
}

/// p[h] = softmax(q_h k^T * scale): the weights that one query row gives to every key; p [heads, keys].
inline void attention_probabilities(const context& on, matrix_view<float, device_space> p,
                                    matrix_view<const float, device_space> q, stored_view<device_space> k,
                                    const attention_shape& shape) {
  assert(q.rows == 1 && p.rows == shape.heads && p.cols == k.rows && k.rows > 0);
  visit_elements(k.type, [&]<class T>() {
    attention_probabilities(on, p, operands_of<T>(q, k, k, shape), takes_whole_loads(k, shape.head_dim));
  });
}

}  // namespace corematching::cuda::detail
