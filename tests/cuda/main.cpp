// SPDX-License-Identifier: Apache-2.0
// Runs the tests where there is a device; elsewhere says why not.
#include <gtest/gtest.h>

#include <iostream>

#include "support/test_backend.hpp"

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
