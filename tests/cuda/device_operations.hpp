// SPDX-License-Identifier: Apache-2.0
// For tests of the functions below cuda::backend, which are given what the backend chooses itself: how many
// processors share the work, which capability the device has, where rows lie. main.cpp runs none of them
// where there is no device.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "corematching/backend/cuda/backend.cuh"
#include "support/backend_data.hpp"

namespace support {

using corematching::device_space;
using corematching::dtype;
using device_matrix = placed_matrix<corematching::cuda::backend>;

static_assert(exact_tokens == corematching::cuda::detail::largest_decode_batch);

inline constexpr dtype element_types[] = {dtype::f32, dtype::f16, dtype::bf16};

/// Rows at multiples of 16 bytes (for 2-byte elements too), also with gaps, and rows elsewhere.
inline const std::vector<placement> layouts = {{0, 0}, {0, 8}, {8, 8}, {1, 3}, {3, 16}};

inline std::ostream& operator<<(std::ostream& to, const placement& where) {
  return to << where.offset << " + " << where.padding;
}

/// Weights in device memory, at places too where place_weight, which aligns every row, would not put them.
inline corematching::weight<device_space> weight_at(corematching::cuda::backend& be,
                                                    const real_matrix& values, dtype type, placement where) {
  using corematching::cuda::backend;
  return corematching::visit_elements(type, [&]<class T>() -> corematching::weight<device_space> {
    const auto memory = std::make_shared<placed_matrix<backend, T>>(be, values, where);
    return {memory->in(), memory};
  });
}

class device_operations : public testing::Test {
 protected:
  corematching::cuda::backend be;
  std::mt19937 random{29};

  /// As the backend has it, but with so many processors to share the work.
  corematching::cuda::context shared_by(int processors) const {
    return {be.stream(), cublas_.get(), processors, be.device().capability};
  }
  corematching::cuda::context on() const { return shared_by(be.device().processors); }

  sampled_cases cases;

  template <class T>
  const T& any_of(const std::vector<T>& choices) {
    return choices[random() % choices.size()];
  }

 private:
  corematching::cuda::cublas_handle cublas_ = corematching::cuda::make_cublas(be.stream());
};

}  // namespace support
