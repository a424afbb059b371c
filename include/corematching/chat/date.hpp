// SPDX-License-Identifier: Apache-2.0
// The day of a conversation, as the templates that tell a model the date write it.
#pragma once

#include <time.h>

#include <array>
#include <chrono>
#include <ctime>
#include <string>

namespace corematching::chat {

/// A day such as "26 Jul 2024": strftime's "%d %b %Y" in English, whatever the locale.
inline std::string date_text(const std::chrono::year_month_day& day) {
  constexpr std::array<const char*, 12> months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                               "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::string number = std::to_string(static_cast<unsigned>(day.day()));
  return (number.size() < 2 ? "0" : "") + number + " " + months.at(static_cast<unsigned>(day.month()) - 1) +
         " " + std::to_string(static_cast<int>(day.year()));
}

/// Today where this machine stands.
inline std::string date_today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return date_text(std::chrono::year(local.tm_year + 1900) / (local.tm_mon + 1) / local.tm_mday);
}

}  // namespace corematching::chat
