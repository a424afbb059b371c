// SPDX-License-Identifier: Apache-2.0
// Weights are rounded to quants alike by the kernels of every instruction set, so that packed files are the
// same.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/grouped_blocks.hpp"
#include "support/backend_data.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

/// Whatever the compiler would fuse.
float stored(float value) {
  volatile float result = value;
  return result;
}

/// A row of blocks whose elements lie next to where a quant of q4_0 changes.
std::vector<float> row_at_edges(index blocks, std::mt19937& random) {
  std::uniform_real_distribution<float> extremes(-1, -0.5f), steps(-1e-6f, 1e-6f);
  std::uniform_int_distribution<int> quants(1, 15);
  std::vector<float> row;
  for (index b = 0; b < blocks; ++b) {
    const float extreme = extremes(random);
    row.push_back(extreme);
    for (index i = 1; i < block_size; ++i)
      row.push_back((static_cast<float>(quants(random)) - 8.5f + steps(random)) * (extreme / -8.0f));
  }
  return row;
}

/// As q4_0::quantise says, operation by operation.
std::vector<double> through_q4_0(const std::vector<float>& row) {
  std::vector<double> values;
  for (std::size_t at = 0; at < row.size(); ++at) {
    const float scale = row[at / block_size * block_size] / -8.0f, inverse = 1.0f / scale;
    const int quant = std::min(15, static_cast<int>(stored(stored(row[at] * inverse) + 8.5f)));
    values.push_back(double{to_float(to_f16(scale))} * (quant - 8));
  }
  return values;
}

TEST(weights_rounded_to_q4_0, do_not_depend_on_fused_multiply_adds) {
  std::mt19937 random(5);
  const std::vector<float> row = row_at_edges(64, random);
  std::vector<std::byte> bytes(row.size() * sizeof(float));
  std::memcpy(bytes.data(), row.data(), bytes.size());
  const auto cols = std::ssize(row);
  const stored_view<> given{bytes.data(), dtype::f32, 1, cols, std::ssize(bytes)};
  auto be = make_backend(1);
  for (const dtype target : {dtype::q4_0, dtype::q4_0_planes})
    EXPECT_EQ(loaded(be, be.convert_weight(given, target, false).view).values, through_q4_0(row))
        << name_of(target);
}

}  // namespace
}  // namespace corematching
