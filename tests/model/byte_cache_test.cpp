// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/batch/byte_cache.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "support/counted_allocations.hpp"

namespace corematching {
namespace {

TEST(byte_cache, finds_by_content_and_drops_the_longest_unused) {
  byte_cache<std::int32_t, std::string> cache(10);
  static_cast<void>(cache.put({1, 2}, "a", 4));
  static_cast<void>(cache.put({-2, 1}, "b", 4));
  EXPECT_EQ(*cache.find({1, 2}), "a");
  EXPECT_EQ(cache.find({2, 1}), nullptr);
  static_cast<void>(cache.put({}, "c", 5));  // b was used last before a
  EXPECT_EQ(cache.find({-2, 1}), nullptr);
  EXPECT_EQ(*cache.find({1, 2}), "a");
  EXPECT_EQ(*cache.find({}), "c");
  EXPECT_EQ(cache.bytes(), 9u);
  EXPECT_EQ(cache.uses().found, 3u);
  EXPECT_EQ(cache.uses().missed, 2u);
}

TEST(byte_cache, leaves_what_somebody_has) {
  byte_cache<std::uint8_t, std::string> cache(4);
  const auto kept = cache.put({1}, "first", 4);
  static_cast<void>(cache.put({2}, "second", 4));
  EXPECT_EQ(cache.find({1}), nullptr);
  EXPECT_EQ(*kept, "first");
}

TEST(byte_cache, keeps_nothing_that_is_too_large) {
  byte_cache<std::uint8_t, std::string> cache(4), none(0);
  static_cast<void>(cache.put({1}, "small", 4));
  EXPECT_EQ(*cache.put({2}, "large", 5), "large");
  EXPECT_EQ(cache.find({2}), nullptr);
  EXPECT_EQ(*cache.find({1}), "small");
  static_cast<void>(none.put({1}, "small", 1));
  EXPECT_EQ(none.find({1}), nullptr);
}

TEST(byte_cache, counts_nothing_that_it_had_no_memory_for) {
  for (int after = 0; after < 3; ++after) {  // the value, its place in the list, its place in the table
    byte_cache<std::int32_t, std::string> cache(10);
    static_cast<void>(cache.put({1}, "a", 4));
    std::vector<std::int32_t> key{2};
    support::fail_allocation(after);
    EXPECT_THROW(static_cast<void>(cache.put(std::move(key), "b", 4)), std::bad_alloc) << after;
    support::fail_allocation(-1);
    for (const std::int32_t next : {3, 4, 5}) static_cast<void>(cache.put({next}, "c", next == 3 ? 6 : 4));
    EXPECT_EQ(cache.bytes(), 8u);
    EXPECT_EQ(cache.find({3}), nullptr);
    EXPECT_TRUE(cache.find({4}) && cache.find({5}));
  }
}

}  // namespace
}  // namespace corematching
