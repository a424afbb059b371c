// SPDX-License-Identifier: Apache-2.0
// The CPU backend of the target corematching::cpu_linked: kernels for several instruction sets are linked,
// and the best set that this CPU has and the system grants is taken when a backend is made. The environment
// variable COREMATCHING_ISA names another one, as config.hpp does: baseline, avx2, avx2_vnni, avx512, amx,
// neon, neon_dotprod.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "corematching/backend/linked/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/instruction_set.hpp"

namespace corematching::cpu {

using linked_body = linked::body<host_space>;

/// The bodies that this program was linked with, by rising speed. Defined by corematching::cpu_linked.
std::span<const linked_body* const> linked_bodies();

namespace linking {

inline std::string names_of(std::span<const linked_body* const> bodies) {
  std::string names;
  for (const linked_body* body : bodies) names.append(names.empty() ? "" : ", ").append(body->name);
  return names;
}

inline const linked_body* body_named(std::span<const linked_body* const> bodies, std::string_view name) {
  const auto found = std::ranges::find(bodies, name, [](const linked_body* body) { return body->name; });
  return found == bodies.end() ? nullptr : *found;
}

}  // namespace linking

/// The body to take of `bodies` on a CPU with `has`: the best one that is granted, or the one that `wanted`
/// names, if it names any. One that is named after no instruction set (eigen, where a program has put it
/// among them) runs on every CPU and is taken by its name alone. Throws `error` for a name that nobody knows,
/// a set that this program lacks, and one that this CPU lacks or the system does not grant.
inline const linked_body& choose_body(std::span<const linked_body* const> bodies, const cpu_features& has,
                                      std::string_view wanted) {
  if (!wanted.empty()) {
    const auto set = instruction_set_named(wanted);
    const linked_body* const body = linking::body_named(bodies, wanted);
    require(set || body != nullptr, "COREMATCHING_ISA: nobody knows an instruction set \"", wanted,
            "\"; this program has ", linking::names_of(bodies));
    require(body != nullptr, "COREMATCHING_ISA: this program was built without kernels for ", wanted,
            "; it has ", linking::names_of(bodies));
    require(!set || is_granted(has, *set), "COREMATCHING_ISA: this CPU cannot run ", wanted,
            ", or the system does not grant it; the best here is ", name_of(best_instruction_set(has)));
    return *body;
  }
  const linked_body* best = nullptr;
  for (const instruction_set set : instruction_sets)
    if (const linked_body* const body = linking::body_named(bodies, name_of(set)))
      if (is_granted(has, set)) best = body;
  require(best != nullptr, "this program has kernels for ", linking::names_of(bodies),
          ", none of which this CPU can run");
  return *best;
}

namespace linking {

inline const linked_body& body_for_this_cpu() {
  const char* const wanted = std::getenv("COREMATCHING_ISA");
  return choose_body(linked_bodies(), this_cpu(), wanted == nullptr ? "" : wanted);
}

}  // namespace linking

/// A backend on `threads` threads, the caller's included; 0 takes as many as the system grants. Throws
/// `error` where COREMATCHING_ISA asks for what is not to be had.
inline linked_backend<host_space> make_linked_backend(int threads = 0) {
  return linked_backend<host_space>(linking::body_for_this_cpu(), threads);
}
/// A backend on threads of the caller's.
inline linked_backend<host_space> make_linked_backend(const executor& threads) {
  return linked_backend<host_space>(linking::body_for_this_cpu(), threads);
}

}  // namespace corematching::cpu
