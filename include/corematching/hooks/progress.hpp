// SPDX-License-Identifier: Apache-2.0
// Tells the caller after every layer how far a prefill has come.
#pragma once

#include <utility>

#include "corematching/nn/hook.hpp"

namespace corematching {

/// Calls report(layers done) after every layer.
template <class Report>
class progress_hook {
 public:
  using attends = sites<site::layer_output>;
  explicit progress_hook(Report report) : report_(std::move(report)) {}

  template <backend B, class View>
  void operator()(site::layer_output, const layer_context<B>& at, const View&) {
    report_(at.layer + 1);
  }

 private:
  Report report_;
};

}  // namespace corematching
