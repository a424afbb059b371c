// SPDX-License-Identifier: Apache-2.0
// Layers, hooks and models, for whichever backend.
#pragma once

#include "corematching/core/version.hpp"
#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/cost.hpp"
#include "corematching/model/generate.hpp"
#include "corematching/model/image_processor.hpp"
#include "corematching/model/llama.hpp"
#include "corematching/model/llava.hpp"
#include "corematching/model/multimodal_prompt.hpp"
#include "corematching/model/sampling.hpp"
#include "corematching/select.hpp"
