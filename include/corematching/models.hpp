// SPDX-License-Identifier: Apache-2.0
// Layers, hooks and models, for whichever backend.
#pragma once

#include "corematching/core/version.hpp"
#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/progress.hpp"
#include "corematching/hooks/record.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/generation/generate.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/cost.hpp"
#include "corematching/model/llama/llama.hpp"
#include "corematching/model/llama/streamed_layers.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "corematching/select.hpp"
