// SPDX-License-Identifier: Apache-2.0
// Threads that somebody else owns: how an engine hands its own to a backend, also to one that was compiled
// elsewhere.
#pragma once

namespace corematching {

/// `on_every_thread(owner, call, argument)` runs call(argument, thread) once for each thread in 0..threads,
/// at the same time or one after the other, and returns when all are done. `call` lets no exception out. The
/// owner outlives the backend, whose operations are the only ones to call it, one at a time.
struct executor {
  int threads = 1;
  void* owner = nullptr;
  void (*on_every_thread)(void* owner, void (*call)(void* argument, int thread), void* argument) = nullptr;
};

}  // namespace corematching
