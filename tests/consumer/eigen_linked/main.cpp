// SPDX-License-Identifier: Apache-2.0
#include <corematching/eigen_linked.hpp>

#include <array>
#include <cstddef>
#include <iostream>

int main() {
  // y = x W^T with x [1, 2] and W [2, 2].
  const std::array<float, 2> x = {1, 2};
  const std::array<float, 4> w = {1, 2, 3, 4};
  std::array<float, 2> y = {};
  auto be = corematching::eigen::make_linked_backend(1);
  be.matmul(
      {y.data(), 1, 2, 2}, {x.data(), 1, 2, 2},
      {reinterpret_cast<const std::byte*>(w.data()), corematching::dtype::f32, 2, 2, 2 * sizeof(float)});
  std::cout << y[0] << ' ' << y[1] << " with " << be.describe().device << '\n';
  return y[0] == 5 && y[1] == 11 ? 0 : 1;
}
