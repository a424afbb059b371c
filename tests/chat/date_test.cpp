// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/date.hpp"

#include <gtest/gtest.h>

#include <chrono>

namespace {

using corematching::chat::date_text;
using namespace std::chrono_literals;

TEST(date_text, writes_days_as_templates_do) {
  EXPECT_EQ(date_text(2024y / 12 / 5), "05 Dec 2024");
  EXPECT_EQ(date_text(2024y / 7 / 26), "26 Jul 2024");
}

}  // namespace
