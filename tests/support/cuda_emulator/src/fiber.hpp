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

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator::detail {

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
#ifdef __SANITIZE_ADDRESS__
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, bottom_, size_);
#endif
    context_ = std::move(context_).resume();
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  void suspend() {
    void* fake_stack = nullptr;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake_stack, scheduler_bottom_, scheduler_size_);
#endif
    boost::context::fiber scheduler = std::move(scheduler_).resume();
    arrived(fake_stack, scheduler);
  }

 private:
  static constexpr std::size_t stack_bytes = 128 * 1024;

  void arrived([[maybe_unused]] void* fake_stack, boost::context::fiber& scheduler) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_bottom_, &scheduler_size_);
#endif
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
