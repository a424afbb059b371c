// SPDX-License-Identifier: Apache-2.0
// Fibers that run function after function on a stack of their own. Boost.Context rather than ucontext: a
// switch does not call the kernel for the signal mask, and the stacks have guard pages. AddressSanitizer is
// told of every switch.
#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>
#include <utility>

// What AddressSanitizer's library has where a program is linked with it: this file itself may be compiled
// without.
extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom,
                                                   std::size_t* old_size);
}

namespace cuda_emulator::detail {

inline void leave_stack(void*& fake_stack, const void* next_bottom, std::size_t next_size) {
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&fake_stack, next_bottom, next_size);
}

inline void enter_stack(void* fake_stack, const void** left_bottom, std::size_t* left_size) {
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(fake_stack, left_bottom, left_size);
}

/// One fiber. `resume` is called by the scheduler, `suspend` by the body of the fiber itself.
class fiber {
 public:
  /// `body` must not return, nor let an exception out.
  explicit fiber(std::function<void(fiber&)> body) : body_(std::move(body)) {
    boost::context::protected_fixedsize_stack allocator(stack_bytes);
    const boost::context::stack_context stack = allocator.allocate();
    bottom_ = static_cast<char*>(stack.sp) - stack.size;
    context_ =
        boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                              allocator, [this](boost::context::fiber&& scheduler) {
                                arrived(nullptr, scheduler);
                                body_(*this);
                                return std::move(scheduler_);
                              });
    size_ = stack.size;
  }

  void resume() {
    void* fake_stack = nullptr;
    leave_stack(fake_stack, bottom_, size_);
    context_ = std::move(context_).resume();
    enter_stack(fake_stack, nullptr, nullptr);
  }

  void suspend() {
    void* fake_stack = nullptr;
    leave_stack(fake_stack, scheduler_bottom_, scheduler_size_);
    boost::context::fiber scheduler = std::move(scheduler_).resume();
    arrived(fake_stack, scheduler);
  }

 private:
  static constexpr std::size_t stack_bytes = 128 * 1024;

  void arrived(void* fake_stack, boost::context::fiber& scheduler) {
    enter_stack(fake_stack, &scheduler_bottom_, &scheduler_size_);
    scheduler_ = std::move(scheduler);
  }

  std::function<void(fiber&)> body_;
  boost::context::fiber context_, scheduler_;
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
  const void* scheduler_bottom_ = nullptr;
  std::size_t scheduler_size_ = 0;
};

}  // namespace cuda_emulator::detail
