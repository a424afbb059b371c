// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/argmax.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace corematching {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                infinity = std::numeric_limits<float>::infinity();

maximum found_in(const std::vector<float>& values) {
  return argmax({values.data(), static_cast<index>(values.size())});
}

TEST(argmax, is_the_first_of_the_largest) {
  EXPECT_EQ(found_in({-3}).place, 0);
  const maximum found = found_in({-3, -infinity, -1, -2, -1});
  EXPECT_EQ(found.place, 2);
  EXPECT_EQ(found.value, -1);
  EXPECT_EQ(found_in({-0.0f, 0.0f}).place, 0);
  EXPECT_EQ(found_in({-infinity, -infinity}).place, 0);
}

TEST(argmax, is_the_first_nan_where_there_is_one) {
  for (const std::vector<float>& values :
       {std::vector{1.0f, nan, infinity, -nan}, {infinity, nan}, {infinity, -nan, nan}}) {
    const maximum found = found_in(values);
    EXPECT_EQ(found.place, 1);
    EXPECT_NE(found.value, found.value);
  }
  EXPECT_EQ(found_in({nan, 2}).place, 0);
}

}  // namespace
}  // namespace corematching
