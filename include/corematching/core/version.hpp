// SPDX-License-Identifier: Apache-2.0
// The one place where the version is written; CMake reads it from here.
#pragma once

#define COREMATCHING_VERSION_MAJOR 0
#define COREMATCHING_VERSION_MINOR 1
#define COREMATCHING_VERSION_PATCH 0
