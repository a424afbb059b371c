// SPDX-License-Identifier: Apache-2.0
#include "corematching/select.hpp"

int main() {}
