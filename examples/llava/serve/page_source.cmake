# SPDX-License-Identifier: Apache-2.0
# Writes SOURCE, in which PAGE stands as bytes:
#   cmake -DPAGE=<file.html> -DSOURCE=<file.cpp> -P page_source.cmake
file(READ ${PAGE} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
file(WRITE ${SOURCE} "// Made of page.html by page_source.cmake.
#include \"llava/serve/page.hpp\"

namespace corematching::driver {
namespace {
constexpr char page_bytes[] = {${bytes}};
}
const std::string_view page_html(page_bytes, sizeof page_bytes);
}  // namespace corematching::driver
")
