// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them.
#pragma once

#include <cstdint>
#include <iomanip>
#include <sstream>
#include <string>

namespace corematching::driver {

/// 0 where there is no whole.
inline double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

/// `value` in units of `unit`.
inline std::string amount(double value, double unit, const char* name, int digits = 2) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value / unit << ' ' << name;
  return text.str();
}

inline std::string bytes(std::uint64_t value) {
  const auto number = static_cast<double>(value);
  if (number >= 1e9) return amount(number, 1e9, "GB");
  if (number >= 1e6) return amount(number, 1e6, "MB");
  return amount(number, 1e3, "kB");
}

inline std::string flops(std::uint64_t value) {
  const auto number = static_cast<double>(value);
  if (number >= 1e12) return amount(number, 1e12, "TFLOP");
  if (number >= 1e9) return amount(number, 1e9, "GFLOP");
  return amount(number, 1e6, "MFLOP");
}

inline std::string percent(double share) {
  return amount(share, 0.01, "%", 1);
}

}  // namespace corematching::driver
