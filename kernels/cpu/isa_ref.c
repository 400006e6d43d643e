/* SPDX-License-Identifier: Apache-2.0 */
#define ISA_TABLE isa_ref
#define ISA_NAME "ref"
#include "kernels/cpu/isa_body.h"
