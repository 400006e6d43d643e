// SPDX-License-Identifier: Apache-2.0
// Between the emulated runtime and the blocks it runs.
#ifndef PHX_TESTS_EMU_GRID_H
#define PHX_TESTS_EMU_GRID_H

#include "tests/emu/emulator.h"

// Runs body in every thread of the grid; one at a time.
void phx_emu_run_grid(const phx_emu_launch_shape &shape, const std::function<void()> &body, bool is_backwards);

#endif
