// SPDX-License-Identifier: Apache-2.0
// A team of lanes that takes one key at a time: how it shares the key's elements, multiplies them with the
// queries of some heads, and keeps their running softmax.
#pragma once

#include <type_traits>

#include "corematching/backend/cuda/attention/operands.cuh"

namespace corematching::cuda::detail {

/// How the lanes of a team share the head_dim elements of a key: each has one 16-byte load of them, or, where
/// memory is not aligned or there are too many, single elements `Lanes` apart of a window of columns.
template <class T, int Lanes, bool Aligned>
struct lane_share {
  static constexpr int elements = Aligned ? per_load<T> : 4;
  static constexpr int columns = Lanes * elements;  // of the output that a block computes
  struct part {
    float values[elements];
  };
  using loaded = std::conditional_t<Aligned, uint4, part>;

  int lane;
  int first;  // column
  int head_dim;

  __device__ int column(int e) const { return first + (Aligned ? lane * elements + e : e * Lanes + lane); }
  __device__ loaded load(const T* row) const {
    loaded result{};
    if constexpr (Aligned) {
      if (column(0) < head_dim) result = *reinterpret_cast<const uint4*>(row + column(0));
    } else {
#pragma unroll
      for (int e = 0; e < elements; ++e)
        if (column(e) < head_dim) result.values[e] = widened(row[column(e)]);
    }
    return result;
  }
  __device__ static void widen(const loaded& from, float (&to)[elements]) {
    if constexpr (Aligned) {
      load_widened(reinterpret_cast<const T*>(&from), to);
    } else {
#pragma unroll
      for (int e = 0; e < elements; ++e) to[e] = from.values[e];
    }
  }
};

/// A running softmax of `Heads` query heads.
template <int Heads, int Elements>
struct running_softmax {
  float largest[Heads];
  float sum[Heads];
  float output[Heads][Elements];

  __device__ running_softmax() {
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      largest[h] = no_score;
      sum[h] = 0;
#pragma unroll
      for (int e = 0; e < Elements; ++e) output[h][e] = 0;
    }
  }

  /// Makes `score` the largest score of head `h` if it is.
  __device__ void raise(int h, float score) {
    const float raised = fmaxf(largest[h], score);
    const float factor = exp2f(largest[h] - raised);
    largest[h] = raised;
    sum[h] *= factor;
#pragma unroll
    for (int e = 0; e < Elements; ++e) output[h][e] *= factor;
  }
  /// A key whose score is at most the largest.
  __device__ void add(int h, float score, const float (&values)[Elements]) {
    const float weight = exp2f(score - largest[h]);
    sum[h] += weight;
#pragma unroll
    for (int e = 0; e < Elements; ++e) output[h][e] += weight * values[e];
  }
};

/// The queries of `Heads` heads that a team multiplies keys with: aligned, its lanes' elements in registers.
/// Otherwise a warp takes products of any length, and the queries from memory.
template <class T, int Lanes, int Heads, bool Aligned>
struct team_queries {
  using share = lane_share<T, Lanes, Aligned>;
  static_assert(Aligned || (Lanes == warp_size && Heads == 1));
  float parts[Heads][share::elements];
  const float* unaligned;
  int head_dim;
  float scale;

  __device__ team_queries(const attention_operands<T>& in, const share& mine, int row, int first_head,
                          int heads)
      : unaligned(in.query(row, first_head)), head_dim(in.head_dim), scale(in.scale) {
    if constexpr (Aligned) {
#pragma unroll
      for (int h = 0; h < Heads; ++h)
#pragma unroll
        for (int e = 0; e < share::elements; ++e) {
          const int column = mine.column(e);
          const bool exists = h < heads && column < in.head_dim;
          parts[h][e] = exists ? in.query(row, first_head + h)[column] * in.scale : 0.0f;
        }
    }
  }

  /// Scores of a key, of which this lane has loaded `part`, in every lane of the team.
  __device__ void score(float (&scores)[Heads], const T* key, const typename share::loaded& part) const {
    if constexpr (Aligned) {
      float elements[share::elements];
      share::widen(part, elements);
#pragma unroll
      for (int h = 0; h < Heads; ++h) {
        float sum = 0;
#pragma unroll
        for (int e = 0; e < share::elements; ++e) sum += parts[h][e] * elements[e];
        scores[h] = team_sum<Lanes>(sum);
      }
    } else {
      float sum = 0;
      for (int d = static_cast<int>(threadIdx.x) % Lanes; d < head_dim; d += Lanes)
        sum += unaligned[d] * scale * widened(key[d]);
      scores[0] = warp_sum(sum);
    }
  }
};

}  // namespace corematching::cuda::detail
