# SPDX-License-Identifier: Apache-2.0
# What both the module and the emulated module are made of; one file per line, in alphabetical order.
set(PHX_CUDA_SOURCES
  cuda.c
  device.c
  kv.c
  kv.cu
  memory.c
  route.c
  route.cu
  stage.c
  vector.c
  vector.cu
)
