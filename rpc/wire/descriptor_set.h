/* SPDX-License-Identifier: Apache-2.0
 * The serialised FileDescriptorSet of all protos, made by the build. */
#ifndef PHX_RPC_WIRE_DESCRIPTOR_SET_H
#define PHX_RPC_WIRE_DESCRIPTOR_SET_H

#include <stddef.h>

extern const unsigned char phx_descriptor_set[];
extern const size_t        phx_descriptor_set_size;

#endif
