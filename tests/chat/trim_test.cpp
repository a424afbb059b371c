// SPDX-License-Identifier: Apache-2.0
#include "corematching/chat/trim.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace {

using corematching::chat::trimmed_back;
using corematching::chat::trimmed_front;

// Of every plane's characters, those for which Python's str.isspace() holds.
const std::vector<std::string> blanks{
    "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",   " ",
    "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
    "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

TEST(trimmed, takes_every_blank_off_and_nothing_from_between) {
  std::string all;
  for (const std::string& blank : blanks) {
    EXPECT_EQ(trimmed_front(blank), "");
    EXPECT_EQ(trimmed_back(blank), "");
    EXPECT_EQ(trimmed_front(blank + "a" + blank), "a" + blank);
    EXPECT_EQ(trimmed_back(blank + "a" + blank), blank + "a");
    all += blank;
  }
  EXPECT_EQ(trimmed_back(trimmed_front(all + "é" + all + "語" + all)), "é" + all + "語");
  EXPECT_EQ(trimmed_front(all), "");
  EXPECT_EQ(trimmed_back(all), "");
}

TEST(trimmed, leaves_what_only_looks_blank) {
  for (const std::string_view other : {"", "a", "\u200b", "\ufeff", "\u180e", "\u2060", "\u200c", "\x1b",
                                       "\x7f", "\u0084", "\u3001", "🙂"}) {
    EXPECT_EQ(trimmed_front(other), other);
    EXPECT_EQ(trimmed_back(other), other);
  }
}

}  // namespace
