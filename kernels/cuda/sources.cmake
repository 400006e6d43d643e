# SPDX-License-Identifier: Apache-2.0
# What both the module and the emulated module are made of; one file per line, in alphabetical order.
set(PHX_CUDA_SOURCES
  attention.c
  attention.cu
  attention_plain.cu
  cuda.c
  device.c
  facts.c
  kv.c
  kv.cu
  matmul.c
  matmul_float.cu
  matmul_round.cu
  matmul_stream.cu
  matmul_tile.cu
  memory.c
  pick_attention.c
  pick_matmul.c
  route.c
  route.cu
  stage.c
  vector.c
  vector.cu
  weight.c
  weight.cu
)
