// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "support/error_text.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

TEST(weight_memory, begins_at_huge_pages_where_it_fills_them) {
  auto be = support::make_backend(1);
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{4096}, cpu::huge_page - 1, cpu::huge_page, 2 * cpu::huge_page + 7}) {
    const auto memory = be.weight_memory(bytes);
    const bool on_huge_pages = bytes >= cpu::huge_page && !support::instruction_set().empty();  // not Eigen's
    const std::size_t alignment = on_huge_pages ? cpu::huge_page : 64;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.get()) % alignment, 0u) << bytes;
    std::fill_n(memory.get(), bytes, std::byte{1});
    EXPECT_EQ(std::count(memory.get(), memory.get() + bytes, std::byte{1}), static_cast<index>(bytes));
  }
}

TEST(weight_memory, refuses_what_the_system_does_not_have) {
  auto be = support::make_backend(1);
  const std::size_t bytes = std::size_t{1} << 62;
  support::expect_parts(support::error_text([&] { be.weight_memory(bytes); }), "out of memory",
                        std::to_string(bytes));
}

}  // namespace
}  // namespace corematching
