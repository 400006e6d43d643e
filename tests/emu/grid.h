// SPDX-License-Identifier: Apache-2.0
// Between the emulated runtime and the blocks it runs.
#ifndef PHX_TESTS_EMU_GRID_H
#define PHX_TESTS_EMU_GRID_H

#include "tests/emu/emulator.h"

struct phx_emu_grid;

// A launch of body in every thread of a grid, one at a time; nothing runs yet.
phx_emu_grid *phx_emu_grid_start(const phx_emu_launch_shape &shape, const std::function<void()> &body, bool is_backwards);
// Runs on: true when all is done and the grid is gone, false when a block waits for memory that another launch writes
// (phx_spin) and wants to be asked again.
bool phx_emu_grid_go_on(phx_emu_grid *grid);
// What some of the first and the last blocks do before they wait for the launch before; nothing comes of it.
void phx_emu_grid_try(const phx_emu_launch_shape &shape, const std::function<void()> &body, bool is_backwards);
// One that will not go on: the device is dead.
void phx_emu_grid_drop(phx_emu_grid *grid);

// Whether all of it is memory of the device.
bool phx_emu_is_on_device(const void *p, size_t size_bytes);

#endif
