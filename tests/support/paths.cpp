// SPDX-License-Identifier: Apache-2.0
#include "support/paths.hpp"

namespace support {

std::filesystem::path source_directory() {
  return COREMATCHING_SOURCE_DIR;
}

std::filesystem::path test_directory() {
  return source_directory() / "tests";
}

std::string llava_program() {
  return COREMATCHING_LLAVA;
}

}  // namespace support
