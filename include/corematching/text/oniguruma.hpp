// SPDX-License-Identifier: Apache-2.0
// Oniguruma's header, which has two names in common with glibc's <regex.h>: it offers a way around one of
// them.
#pragma once

#ifndef ONIG_ESCAPE_REGEX_T_COLLISION
#define ONIG_ESCAPE_REGEX_T_COLLISION
#endif
#define re_registers corematching_onig_registers
#include <oniguruma.h>
#undef re_registers
