// SPDX-License-Identifier: Apache-2.0
// What tells one measurement from others, whose sums are not to be mixed with its own.
#pragma once

#include <vector>

#include "corematching/backend/linked/operations.hpp"
#include "corematching/io/json.hpp"
#include "llava/measure/items.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// An object: the model and its settings, how its weights, keys and values are held, what is measured (a
/// checksum of all ids and pictures, so that text, tokenizer and chat format count) and what computes, on
/// which the last bits of sums depend. `base` are the options of the dense run.
io::json identity_of_runs(const options& base, const std::vector<scored_item>& items,
                          const linked::description& by);

}  // namespace corematching::driver
