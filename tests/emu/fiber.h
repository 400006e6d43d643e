// SPDX-License-Identifier: Apache-2.0
// Threads of execution that switch by hand, told to the address sanitizer.
#ifndef PHX_TESTS_EMU_FIBER_H
#define PHX_TESTS_EMU_FIBER_H

#include <stddef.h>

struct phx_emu_fiber {
    void       *sp;        // where it stopped
    const void *stack;     // lowest address, and bytes; of the main fiber once known
    size_t      stack_bytes;
    void       *fake_stack;
    bool        has_own_stack;
};

// A fiber that will run entry() when switched to; its stack is made once and kept.
void phx_emu_fiber_prepare(phx_emu_fiber *f, void (*entry)());
// From the running fiber to another; the last switch of a fiber says is_leaving.
void phx_emu_fiber_switch(phx_emu_fiber *from, phx_emu_fiber *to, bool is_leaving);
// The first thing that entry() does.
void phx_emu_fiber_arrived();

#endif
