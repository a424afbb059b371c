// SPDX-License-Identifier: Apache-2.0
// The day of a conversation, as the templates that tell a model the date write it.
#pragma once

#include <time.h>

#include <array>
#include <cstddef>
#include <ctime>
#include <string>

namespace corematching::chat {

/// A day such as "26 Jul 2024": strftime's "%d %b %Y" in English, whatever the locale.
inline std::string date_text(const std::tm& day) {
  constexpr std::array<const char*, 12> months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                               "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::string number = std::to_string(day.tm_mday);
  return (number.size() < 2 ? "0" : "") + number + " " + months.at(static_cast<std::size_t>(day.tm_mon)) +
         " " + std::to_string(day.tm_year + 1900);
}

/// Today where this machine stands.
inline std::string date_today() {
  const std::time_t now = std::time(nullptr);
  std::tm day{};
  ::localtime_r(&now, &day);
  return date_text(day);
}

}  // namespace corematching::chat
