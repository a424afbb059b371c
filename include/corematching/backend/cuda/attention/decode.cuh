// SPDX-License-Identifier: Apache-2.0
// Attention of few query rows, which is bound by the reading of keys and values. The keys are cut into slices
// so that there are blocks for every processor (flash-decoding, Dao et al. 2023): a block takes one slice,
// one query row and query heads that share a key/value head. Within it, teams of lanes take one key each,
// four at a time, and keep a running softmax: the largest score, the sum of weights and the weighted values.
// What the slices found is put together by a second kernel, in their order. Both find out themselves how many
// slices the keys make, since a kernel that is captured meets more keys in later steps.
#pragma once

#include <algorithm>

#include "corematching/backend/cuda/attention/decode_teams.cuh"
#include "corematching/backend/cuda/buffer.cuh"
#include "corematching/backend/cuda/device.cuh"
#include "corematching/backend/cuda/early_launch.cuh"
#include "corematching/backend/cuda/later_rows.cuh"

namespace corematching::cuda::detail {

inline constexpr int decode_threads = 128;
inline constexpr int keys_in_flight = 4;  // of a team
inline constexpr int fewest_keys_per_slice = 64;
inline constexpr index most_slices = 128;
inline constexpr index decode_blocks_per_processor = 4;

/// How the keys are cut into slices: into about as many as are wanted, of whole rounds of all teams.
struct key_slices {
  int wanted;
  int round;
  later_rows later;

  __host__ __device__ int keys_of_one(int keys) const {
    const int most = parts(keys, fewest_keys_per_slice);
    return parts(parts(keys, wanted < most ? wanted : most), round) * round;
  }
  __host__ __device__ int count(int keys) const { return parts(keys, keys_of_one(keys)); }

 private:
  // In 32 bits, in which dividing takes a fraction of the time.
  __host__ __device__ static int parts(int all, int one) { return (all + one - 1) / one; }
};

/// Where the slices leave their results: softmax state of slice s of head h of query i at
/// (i * heads + h) * slices + s, and head_dim weighted values for each.
struct slice_results {
  float* largest;
  float* sums;
  float* outputs;
};

/// Adds keys begin..end of key/value head `kv_head` to the softmax of this thread's team. All threads of the
/// block take part, those without a key with one that they do not see.
template <class T, int Lanes, int Heads, bool Aligned, class Share = lane_share<T, Lanes, Aligned>>
__device__ void attend_slice(running_softmax<Heads, Share::elements>& state, const attention_operands<T>& in,
                             const Share& mine, const team_queries<T, Lanes, Heads, Aligned>& queries,
                             int kv_head, int begin, int end) {
  constexpr int teams = decode_threads / Lanes;
  const int team = static_cast<int>(threadIdx.x) / Lanes;
  for (int first = begin + team; first - team < end; first += teams * keys_in_flight) {
    typename Share::loaded keys[keys_in_flight], values[keys_in_flight];
    float scores[keys_in_flight][Heads];
#pragma unroll
    for (int u = 0; u < keys_in_flight; ++u) {
      const int key = min(first + u * teams, end - 1);
      if constexpr (Aligned) keys[u] = mine.load(in.key(key, kv_head));
      values[u] = mine.load(in.value(key, kv_head));
    }
#pragma unroll
    for (int u = 0; u < keys_in_flight; ++u) {
      const int key = first + u * teams;
      queries.score(scores[u], in.key(min(key, end - 1), kv_head), keys[u]);
#pragma unroll
      for (int h = 0; h < Heads; ++h)
        if (key >= end) scores[u][h] = hidden_score;
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float largest = scores[0][h];
#pragma unroll
      for (int u = 1; u < keys_in_flight; ++u) largest = fmaxf(largest, scores[u][h]);
      state.raise(h, largest);
    }
#pragma unroll
    for (int u = 0; u < keys_in_flight; ++u) {
      float part[Share::elements];
      Share::widen(values[u], part);
#pragma unroll
      for (int h = 0; h < Heads; ++h) state.add(h, scores[u][h], part);
    }
  }
}

/// Puts the teams of a block together, in their order, and writes the result as slice `blockIdx.x` of the row
/// and heads, or, where it is the only one, divided by the sum of weights to `y`.
template <int Lanes, int Heads, class Share, class T>
__device__ void write_slice(const running_softmax<Heads, Share::elements>& state, const Share& mine,
                            const attention_operands<T>& in, const slice_results& to, float* y,
                            index y_stride, int row, int first_head, int heads, int slices) {
  constexpr int teams = decode_threads / Lanes, columns = Share::columns;
  __shared__ float largest[Heads][teams], sums[Heads][teams], outputs[Heads][teams][columns];
  const int thread = static_cast<int>(threadIdx.x), team = thread / Lanes;
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    if (mine.lane == 0) {
      largest[h][team] = state.largest[h];
      sums[h][team] = state.sum[h];
    }
#pragma unroll
    for (int e = 0; e < Share::elements; ++e)
      outputs[h][team][mine.column(e) - mine.first] = state.output[h][e];
  }
  __syncthreads();
  for (int i = thread; i < heads * columns; i += decode_threads) {
    const int h = i / columns, column = mine.first + i % columns, head = first_head + h;
    if (column >= in.head_dim) continue;
    float top = no_score, sum = 0, output = 0;
    for (int t = 0; t < teams; ++t) top = fmaxf(top, largest[h][t]);
    for (int t = 0; t < teams; ++t) {
      const float factor = exp2f(largest[h][t] - top);
      sum += factor * sums[h][t];
      output += factor * outputs[h][t][i % columns];
    }
    if (slices == 1) {
      y[row * y_stride + index{head} * in.head_dim + column] = output / sum;
      continue;
    }
    const index place = (index{row} * in.heads + head) * slices + blockIdx.x;
    to.outputs[place * in.head_dim + column] = output;
    if (column > 0) continue;
    to.largest[place] = top;
    to.sums[place] = sum;
  }
}

/// Slice blockIdx.x of the keys, if there are so many, for query row blockIdx.z. blockIdx.y counts windows of
/// columns (one where aligned), in them key/value heads, and in them parts of at most `Heads` query heads.
template <class T, int Lanes, int Heads, bool Aligned>
__global__ void __launch_bounds__(decode_threads)
    decode_slices(attention_operands<T> in, key_slices cut, slice_results to, float* y, index y_stride) {
  wait_for_earlier_kernels();
  using share = lane_share<T, Lanes, Aligned>;
  in.key_count += cut.later.count();
  const int slice_keys = cut.keys_of_one(in.key_count), slices = cut.count(in.key_count);
  if (static_cast<int>(blockIdx.x) >= slices) return;
  const int row = static_cast<int>(blockIdx.z), parts = (in.group + Heads - 1) / Heads;
  const int task = static_cast<int>(blockIdx.y), part = task % parts, kv_heads = in.heads / in.group;
  const int kv_head = task / parts % kv_heads, window = task / parts / kv_heads;
  const int first_head = kv_head * in.group + part * Heads, heads = min(Heads, in.group - part * Heads);
  const share mine{static_cast<int>(threadIdx.x) % Lanes, window * share::columns, in.head_dim};
  const team_queries<T, Lanes, Heads, Aligned> queries(in, mine, row, first_head, heads);
  running_softmax<Heads, share::elements> state;
  const int slice_begin = static_cast<int>(blockIdx.x) * slice_keys;
  const int begin = max(slice_begin, in.first_visible_key(row));
  const int end = min(slice_begin + slice_keys, in.visible_keys(row));
  attend_slice(state, in, mine, queries, kv_head, begin, end);
  write_slice<Lanes>(state, mine, in, to, y, y_stride, row, first_head, heads, slices);
}

/// y = the slices' outputs over their sums, for head blockIdx.x of query blockIdx.y; a slice that is the only
/// one has done that itself.
template <class T>
__global__ void __launch_bounds__(decode_threads)
    combine_slices(attention_operands<T> in, key_slices cut, slice_results from, float* y, index y_stride) {
  wait_for_earlier_kernels();
  const int slices = cut.count(in.key_count + cut.later.count());
  if (slices == 1) return;
  const int head = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.y);
  const index first = (index{row} * in.heads + head) * slices;
  float top = no_score, sum = 0;
  for (int s = 0; s < slices; ++s) top = fmaxf(top, from.largest[first + s]);
  for (int s = 0; s < slices; ++s) sum += exp2f(from.largest[first + s] - top) * from.sums[first + s];
  for (int d = static_cast<int>(threadIdx.x); d < in.head_dim; d += decode_threads) {
    float output = 0;
    for (int s = 0; s < slices; ++s)
      output += exp2f(from.largest[first + s] - top) * from.outputs[(first + s) * in.head_dim + d];
    y[row * y_stride + index{head} * in.head_dim + d] = output / sum;
  }
}

/// Starts the kernels of one layout, with as many slices as fill the device.
template <class T, int Lanes, int Heads, bool Aligned>
void queue_decode(const context& on, workspace& results, matrix_view<float, device_space> y,
                  const attention_operands<T>& in, later_rows later) {
  constexpr int columns = lane_share<T, Lanes, Aligned>::columns, teams = decode_threads / Lanes;
  const index tasks =
      in.heads / in.group * ceil_div(in.group, Heads) * (Aligned ? 1 : ceil_div(in.head_dim, columns));
  const index wanted = ceil_div(decode_blocks_per_processor * on.processors, tasks * in.query_count);
  const key_slices cut{static_cast<int>(std::min(wanted, most_slices)), teams * keys_in_flight, later};
  // For the one query of a step as many blocks as any number of keys needs: what is started does not depend
  // on it, whether it is captured or not.
  const index slices = in.query_count == 1 ? cut.wanted : cut.count(in.key_count);
  const index places = slices * in.heads * in.query_count;
  slice_results to{};
  if (slices > 1) {
    float* memory = results.at_least<float>(on.stream, places * (in.head_dim + 2));
    to = {memory, memory + places, memory + 2 * places};
  }
  const dim3 grid(static_cast<unsigned>(slices), static_cast<unsigned>(tasks),
                  static_cast<unsigned>(in.query_count));
  launch_early(on, grid, decode_threads, decode_slices<T, Lanes, Heads, Aligned>, in, cut, to, y.data,
               y.stride);
  if (slices == 1) return;
  launch_early(on, dim3(static_cast<unsigned>(in.heads), static_cast<unsigned>(in.query_count)),
               decode_threads, combine_slices<T>, in, cut, to, y.data, y.stride);
}

template <class T, int Lanes>
void queue_aligned_decode(const context& on, workspace& results, matrix_view<float, device_space> y,
                          const attention_operands<T>& in, later_rows later) {
  if (in.group == 1) return queue_decode<T, Lanes, 1, true>(on, results, y, in, later);
  queue_decode<T, Lanes, 4, true>(on, results, y, in, later);
}

/// y = softmax(q k^T * scale) v, for few queries: each reads all keys and values.
template <class T>
void decode_attention(const context& on, workspace& results, matrix_view<float, device_space> y,
                      const attention_operands<T>& in, bool whole_loads, later_rows later) {
  const int loads = in.head_dim / per_load<T>;
  if (!whole_loads || loads > warp_size)
    return queue_decode<T, warp_size, 1, false>(on, results, y, in, later);
  if (loads <= 8) return queue_aligned_decode<T, 8>(on, results, y, in, later);
  if (loads <= 16) return queue_aligned_decode<T, 16>(on, results, y, in, later);
  queue_aligned_decode<T, 32>(on, results, y, in, later);
}

}  // namespace corematching::cuda::detail
