// SPDX-License-Identifier: Apache-2.0
// "core_matching" in a request: what is left out for this answer, as an object of the sparsity options of the
// command line.
//
//   {"preset": "paper"}
//   {"sparsity": "both", "keep": "ratio:0.5", "match_layers": [2, 10], "beta": 0.3}
//
// and, beside them, whether the answer holds the scores by which image tokens were kept: {"scores": true}.
#pragma once

#include <string>

#include "corematching/io/json.hpp"
#include "llava/options.hpp"
#include "llava/serve/api_error.hpp"

namespace corematching::driver {

/// `base` with what `field` says instead of its own sparsity; an empty object says nothing. Keys are the
/// names of options with `_` for `-`; values are texts, numbers, or lists of numbers where options take
/// lists. "scores" is passed over. Throws `api_error` naming the key for whatever else is no such option or
/// has no such value.
options with_core_matching(const options& base, const io::json& field);

/// What "scores" says; false where it says nothing. Throws `api_error` where it is neither true nor false.
bool wants_scores(const io::json& field);

/// How a client is told of `problem`, which may begin with the option at fault ("--keep: ...").
api_error core_matching_error(const std::string& problem);

}  // namespace corematching::driver
