// SPDX-License-Identifier: Apache-2.0
// Which kernels multiply many tokens: tiles where the compiler targets AMX and the system grants it, panels
// otherwise and for f32.
#pragma once

#include "corematching/backend/cpu/amx/tile_scheme.hpp"
#include "corematching/backend/cpu/prefill/panel_scheme.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// Whether products of weights of `type` with many tokens are made of AMX tiles.
inline bool multiplied_in_tiles([[maybe_unused]] dtype type) {
#if COREMATCHING_HAS_AMX
  return tiles_allowed() && visit_dtype(type, []<class T>() { return tiled_formats::has<T>; });
#else
  return false;
#endif
}

#if COREMATCHING_HAS_AMX

/// panel_products or tile_products, by the type of the weights.
class prefill_products {
 public:
  explicit prefill_products(int threads) : panels_(threads), tiles_(threads) {}

  void matmul(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
              const stored_view<>& w, vector_view<const float> bias) {
    if (multiplied_in_tiles(w.type)) return tiles_.matmul(pool, grain, y, x, w, bias);
    panels_.matmul(pool, grain, y, x, w, bias);
  }

  void gated_up(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                const stored_view<>& gate, const stored_view<>& up, activation act,
                const neurons& selection) {
    if (multiplied_in_tiles(gate.type)) return tiles_.gated_up(pool, grain, y, x, gate, up, act, selection);
    panels_.gated_up(pool, grain, y, x, gate, up, act, selection);
  }

  void weighted_rows(thread_pool& pool, index grain, matrix_view<float> y, matrix_view<const float> x,
                     const stored_view<>& w, const neurons& selection) {
    if (multiplied_in_tiles(w.type)) return tiles_.weighted_rows(pool, grain, y, x, w, selection);
    panels_.weighted_rows(pool, grain, y, x, w, selection);
  }

 private:
  panel_products panels_;
  tile_products tiles_;
};

#else

using prefill_products = panel_products;

#endif

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu
