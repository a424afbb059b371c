// SPDX-License-Identifier: Apache-2.0
// Eigen's view of a matrix_view.
#pragma once

#include <Eigen/Core>

#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

using eigen_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using eigen_map = Eigen::Map<eigen_matrix, Eigen::Unaligned, Eigen::OuterStride<>>;
using eigen_const_map = Eigen::Map<const eigen_matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

inline eigen_map as_eigen(matrix_view<float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}
inline eigen_const_map as_eigen(matrix_view<const float> m) {
  return {m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride)};
}

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu
