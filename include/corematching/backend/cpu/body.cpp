// SPDX-License-Identifier: Apache-2.0
// The CPU backend as a body for linked_backend: compiled once for each instruction set, with its flags and
// its name as COREMATCHING_BODY. Of its symbols only the entry may be seen by others
// (cmake/linked_body.cmake).
#include <string_view>

#include "corematching/backend/cpu/backend.hpp"
#include "corematching/backend/linked/body.hpp"

#define COREMATCHING_JOINED(a, b) a##b
#define COREMATCHING_ENTRY(set) COREMATCHING_JOINED(corematching_cpu_body_, set)
#define COREMATCHING_QUOTED(text) #text
#define COREMATCHING_NAME(set) COREMATCHING_QUOTED(set)

using corematching::cpu::backend;

static_assert(std::string_view(COREMATCHING_NAME(COREMATCHING_BODY)) == name_of(backend::compiled_for),
              "the compiler's flags are not those of the instruction set that COREMATCHING_BODY names");

extern "C" {
extern const corematching::linked::body<corematching::host_space> COREMATCHING_ENTRY(COREMATCHING_BODY);
constinit const corematching::linked::body<corematching::host_space> COREMATCHING_ENTRY(COREMATCHING_BODY) = {
    COREMATCHING_NAME(COREMATCHING_BODY), &corematching::linked::make_backend<backend>,
    &corematching::linked::operations_of<backend>::value, &corematching::linked::make_backend_on<backend>};
}
