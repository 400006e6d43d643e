// SPDX-License-Identifier: Apache-2.0
#include "tests/emu/fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

enum { STACK_BYTES = 256 << 10, GUARD_BYTES = 4096 };

phx_emu_fiber *leaving; // who switched last

void make_stack(phx_emu_fiber *f)
{
    void *p = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    if (p == MAP_FAILED || mprotect(p, GUARD_BYTES, PROT_NONE) != 0) {
        perror("emulator: no stack for a thread");
        abort();
    }
    f->stack = static_cast<char *>(p) + GUARD_BYTES;
    f->stack_bytes = STACK_BYTES;
    f->has_own_stack = true;
}

} // namespace

#if defined(__x86_64__)

// System V: the callee saves rbx, rbp, r12 to r15.
extern "C" void phx_emu_switch_stack(void **save, void *load);
asm(".pushsection .text\n"
    ".hidden phx_emu_switch_stack\n"
    ".globl phx_emu_switch_stack\n"
    ".type phx_emu_switch_stack, @function\n"
    "phx_emu_switch_stack:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size phx_emu_switch_stack, . - phx_emu_switch_stack\n"
    ".popsection\n");

void phx_emu_fiber_prepare(phx_emu_fiber *f, void (*entry)())
{
    if (!f->has_own_stack)
        make_stack(f);
    uintptr_t top = (reinterpret_cast<uintptr_t>(f->stack) + f->stack_bytes) & ~uintptr_t(15);
    void    **sp = reinterpret_cast<void **>(top) - 8;

    for (int i = 0; i < 8; i++)
        sp[i] = nullptr;
    sp[6] = reinterpret_cast<void *>(entry); // behind six registers; the entry finds the stack as after a call
    f->sp = sp;
    f->fake_stack = nullptr;
}

static void switch_stack(phx_emu_fiber *from, phx_emu_fiber *to)
{
    phx_emu_switch_stack(&from->sp, to->sp);
}

#else

void phx_emu_fiber_prepare(phx_emu_fiber *f, void (*entry)())
{
    if (!f->has_own_stack)
        make_stack(f);
    ucontext_t *context = static_cast<ucontext_t *>(const_cast<void *>(f->stack)); // at the far end of the stack

    getcontext(context);
    context->uc_stack.ss_sp = reinterpret_cast<char *>(context + 1);
    context->uc_stack.ss_size = f->stack_bytes - sizeof(*context);
    makecontext(context, entry, 0);
    f->sp = context;
    f->fake_stack = nullptr;
}

static void switch_stack(phx_emu_fiber *from, phx_emu_fiber *to)
{
    ucontext_t own;

    if (!from->has_own_stack)
        from->sp = &own; // lives until somebody comes back
    swapcontext(static_cast<ucontext_t *>(from->sp), static_cast<ucontext_t *>(to->sp));
}

#endif

void phx_emu_fiber_arrived()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &leaving->stack, &leaving->stack_bytes);
#endif
}

void phx_emu_fiber_switch(phx_emu_fiber *from, phx_emu_fiber *to, bool is_leaving)
{
    leaving = from;
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    size_t      bytes;

    if (is_leaving)
        __asan_handle_no_return(); // its frames are never left
    __sanitizer_start_switch_fiber(is_leaving ? nullptr : &from->fake_stack, to->stack, to->stack_bytes);
    switch_stack(from, to);
    __sanitizer_finish_switch_fiber(from->fake_stack, &stack, &bytes);
    leaving->stack = stack; // of the thread of the host that runs it now
    leaving->stack_bytes = bytes;
#else
    (void)is_leaving;
    switch_stack(from, to);
#endif
}
