// SPDX-License-Identifier: Apache-2.0
// Runs the tests where there is a device; elsewhere says why not.
#include <gtest/gtest.h>

#include <iostream>

#include "support/test_backend.hpp"

namespace support {

#if defined(COREMATCHING_TEST_EMULATED)
extern const bool is_emulated = true;
#else
extern const bool is_emulated = false;
#endif

}  // namespace support

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  try {
    std::cout << "on " << support::make_backend(1).describe().device << '\n';
  } catch (const corematching::error& problem) {
    std::cout << "all tests skipped: " << problem.what() << '\n';
    return 0;
  }
  return RUN_ALL_TESTS();
}
