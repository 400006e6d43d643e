// SPDX-License-Identifier: Apache-2.0
// Between the scheduler of a block's threads and what they do together.
#ifndef PHX_TESTS_EMU_BLOCK_H
#define PHX_TESTS_EMU_BLOCK_H

#include "tests/emu/emulator.h"

enum { PHX_EMU_WARPGROUP = 128 };

[[noreturn]] void phx_emu_die(const char *what);
int               phx_emu_thread_now();  // index in the block
bool              phx_emu_is_eager();    // what may be late is done at once
void              phx_emu_check_waited(const char *what); // for the launch before; dies with these words

// Called by all threads of a warpgroup with the same op; the last one to come does it for all: args[thread].
typedef void phx_emu_group_op(void *const args[PHX_EMU_WARPGROUP]);
void phx_emu_group(phx_emu_group_op *op, void *args);

// The thread stops until somebody wakes those that wait for this object.
void phx_emu_sleep(const void *object);
void phx_emu_wake(const void *object);

// warpgroup.cpp: before and after a block.
void phx_emu_groups_start();
void phx_emu_groups_end();

#endif
