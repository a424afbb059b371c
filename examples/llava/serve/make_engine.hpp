// SPDX-License-Identifier: Apache-2.0
// The engine for whichever device the options choose.
#pragma once

#include <memory>

#include "corematching/backend/linked/backend.hpp"
#include "corematching/core/error.hpp"
#include "llava/console.hpp"
#include "llava/options.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/engine_limits.hpp"

namespace corematching::driver {

/// Loads the model that `o` names, and answers with it. Throws `error` for what cannot be loaded, and where
/// this program was built without what `o.device` is.
std::unique_ptr<answering> make_engine_on_cpu(const options& o, const engine_limits& limits,
                                              console& terminal);
std::unique_ptr<answering> make_engine_on_eigen(const options& o, const engine_limits& limits,
                                                console& terminal);
std::unique_ptr<answering> make_engine_on_cuda(const options& o, const engine_limits& limits,
                                               console& terminal);

/// The same on `be`: what runs in the host's memory is one type, and its engine compiled once.
std::unique_ptr<answering> make_engine_on_host(linked_backend<host_space> be, const options& o,
                                               const engine_limits& limits, console& terminal);

inline std::unique_ptr<answering> make_engine(const options& o, const engine_limits& limits,
                                              console& terminal) {
  switch (o.device.what) {
    case device_choice::kind::cpu: return make_engine_on_cpu(o, limits, terminal);
    case device_choice::kind::eigen: return make_engine_on_eigen(o, limits, terminal);
    case device_choice::kind::cuda: return make_engine_on_cuda(o, limits, terminal);
  }
  fail("unknown device");
}

}  // namespace corematching::driver
