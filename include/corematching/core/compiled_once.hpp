// SPDX-License-Identifier: Apache-2.0
// What reads files is large, called once in a program, and the same in every one. The library of linked
// models (linked_models.hpp) holds it compiled; a program without that library compiles what it calls.
#pragma once

namespace corematching {

/// The only argument of function templates that are templates for this alone: `extern template` keeps a
/// program from compiling them again, which nothing does for inline functions. Callers leave it out.
struct compiled_once {};

}  // namespace corematching
