// SPDX-License-Identifier: Apache-2.0
// Where the tests find things. One file alone is compiled with these paths, so that a compiler cache serves a
// checkout in another place, too.
#pragma once

#include <filesystem>
#include <string>

namespace support {

/// The root of the sources, and their directory tests.
std::filesystem::path source_directory();
std::filesystem::path test_directory();

/// The driver of this build; empty where there is none.
std::string llava_program();

}  // namespace support
