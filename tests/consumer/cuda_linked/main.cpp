// SPDX-License-Identifier: Apache-2.0
#include <corematching/cuda_linked.hpp>

#include <array>
#include <cstddef>
#include <iostream>

int main() try {
  // y = x W^T with x [1, 2] and W [2, 2].
  const std::array<float, 2> x = {1, 2};
  const std::array<float, 4> w = {1, 2, 3, 4};
  std::array<float, 2> y = {};
  auto be = corematching::cuda::make_linked_backend();
  const auto placed = be.place_weight(
      {{reinterpret_cast<const std::byte*>(w.data()), corematching::dtype::f32, 2, 2, 2 * sizeof(float)},
       nullptr});
  auto in = be.allocate<float>(2), out = be.allocate<float>(2);
  be.upload(in.view(), {x.data(), 2});
  be.matmul({out.data(), 1, 2, 2}, {in.data(), 1, 2, 2}, placed.view);
  be.download(corematching::vector_view<float>{y.data(), 2}, out.view());
  std::cout << y[0] << ' ' << y[1] << '\n';
  return y[0] == 5 && y[1] == 11 ? 0 : 1;
} catch (const corematching::error& problem) {
  std::cout << problem.what() << '\n';
  return std::string(problem.what()).starts_with("no CUDA device can be used") ? 0 : 1;
}
