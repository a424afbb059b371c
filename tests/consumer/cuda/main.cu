// SPDX-License-Identifier: Apache-2.0
#include <corematching/cuda.cuh>

#include <array>
#include <cstddef>
#include <exception>
#include <iostream>

int main() try {
  if (corematching::cuda::device_count() == 0) {
    std::cout << "no device to run on\n";
    return 0;
  }
  // y = x W^T with x [1, 2] and W [2, 2].
  const std::array<float, 2> x = {1, 2};
  const std::array<float, 4> w = {1, 2, 3, 4};
  std::array<float, 2> y = {};
  corematching::cuda::backend be;
  const auto placed = be.place_weight(
      {{reinterpret_cast<const std::byte*>(w.data()), corematching::dtype::f32, 2, 2, 2 * sizeof(float)},
       nullptr});
  auto in = be.allocate<float>(2), out = be.allocate<float>(2);
  be.upload(in.view(), {x.data(), 2});
  be.matmul({out.data(), 1, 2, 2}, {in.data(), 1, 2, 2}, placed.view);
  be.download(corematching::vector_view<float>{y.data(), 2}, out.view());
  std::cout << y[0] << ' ' << y[1] << '\n';
  return y[0] == 5 && y[1] == 11 ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
