// SPDX-License-Identifier: Apache-2.0
// Errors of a backend that are about a layer, which it does not know.
#pragma once

#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"

namespace corematching::detail {

/// What `body` returns; its errors say which layer they are about. A backend that queues its work may find
/// out in a later step that activations are not finite.
template <class Body>
decltype(auto) naming_layer(index layer, Body&& body) {
  try {
    return body();
  } catch (const error& problem) {
    fail("layer ", layer, ": ", problem.what());
  }
}

}  // namespace corematching::detail
