// SPDX-License-Identifier: Apache-2.0
// The page at "/": page.html, which the build puts into the program.
#pragma once

#include <string_view>

namespace corematching::driver {

extern const std::string_view page_html;

}  // namespace corematching::driver
