// SPDX-License-Identifier: Apache-2.0
// The largest of some numbers on the device is what the host finds, at the same place.
#include "corematching/core/argmax.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "cuda/device_operations.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                infinity = std::numeric_limits<float>::infinity();

class device_largest : public support::device_operations {
 protected:
  void expect_as_on_the_host(const std::vector<float>& values) {
    auto placed = be.allocate<float>(std::ssize(values));
    be.upload(placed.view(), {values.data(), std::ssize(values)});
    const maximum found = be.argmax(std::as_const(placed).view());
    const maximum expected = argmax({values.data(), std::ssize(values)});
    EXPECT_EQ(found.place, expected.place) << values.size() << " values";
    if (std::isnan(expected.value))
      EXPECT_TRUE(std::isnan(found.value));
    else
      EXPECT_EQ(found.value, expected.value);
  }
};

TEST_F(device_largest, stands_where_the_host_finds_it_whatever_the_size) {
  for (const index size : {1, 2, 31, 33, 1023, 1024, 1025, 4096, 32003}) {
    std::vector<float> values(static_cast<std::size_t>(size));
    for (float& value : values) value = static_cast<float>(random() % 50) - 60;  // many of each
    expect_as_on_the_host(values);
    for (const index place : {index{0}, size / 2, size - 1}) {
      std::vector<float> one = values;
      one[static_cast<std::size_t>(place)] = 3;
      expect_as_on_the_host(one);
    }
  }
}

TEST_F(device_largest, orders_signs_zeros_infinities_and_nan_as_the_host_does) {
  for (const std::vector<float>& values : {std::vector{-0.0f, 0.0f},
                                           {0.0f, -0.0f},
                                           {-1.0f, -0.0f, 0.0f},
                                           {-2.0f, -1.0f, -3.0f},
                                           {-infinity, -infinity},
                                           {-infinity, -3e38f},
                                           {1.0f, infinity, infinity},
                                           {infinity, nan, 1.0f},
                                           {1.0f, -nan, nan},
                                           {1e-45f, -1e-45f, 2e-45f}})
    expect_as_on_the_host(values);
  std::vector<float> late(3000, 1);
  late[2900] = late[2950] = -nan;
  expect_as_on_the_host(late);
}

TEST_F(device_largest, reports_activations_that_were_not_finite_before) {
  auto values = be.allocate<float>(64);
  be.upload(values.view(), {std::vector<float>(64, nan).data(), 64});
  matrix<cuda::backend, std::uint64_t> bits(be, 1, 1);
  auto counts = be.allocate<std::int32_t>(1);
  be.activated_neurons(bits.view(), counts.view(), {values.data(), 1, 64, 64});
  support::expect_parts(support::error_text([&] { be.argmax(std::as_const(values).view()); }), "token 0",
                        "NaN");
}

}  // namespace
}  // namespace corematching
