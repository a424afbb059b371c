// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cpu/backend.hpp"
#include "llava/conversation.hpp"
#include "llava/run.hpp"

namespace corematching::driver {

run_report run_on_cpu(const options& o, console& terminal,
                      const std::function<void(const std::string&)>& on_text) {
  cpu::backend be(o.threads);
  return conversation<cpu::backend>(be, o, terminal).run(on_text);
}

}  // namespace corematching::driver
