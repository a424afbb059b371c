// SPDX-License-Identifier: Apache-2.0
// What repeated measurements on a machine that is not quiet come to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "corematching/core/error.hpp"

namespace corematching::bench {

struct spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

/// The median is the mean of the two middle values where their number is even.
inline spread spread_of(std::vector<double> values) {
  require(!values.empty(), "nothing was measured");
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

}  // namespace corematching::bench
