// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <utility>

#include "corematching/linked_models.hpp"
#include "llava/serve/engine.hpp"
#include "llava/serve/make_engine.hpp"

namespace corematching::driver {

std::unique_ptr<answering> make_engine_on_host(linked_backend<host_space> be, const options& o,
                                               const engine_limits& limits, console& terminal) {
  return std::make_unique<engine<linked_backend<host_space>>>(std::move(be), o, limits, terminal);
}

}  // namespace corematching::driver
