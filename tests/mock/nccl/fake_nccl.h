/* SPDX-License-Identifier: Apache-2.0
 * What a test may say about the fake libnccl.so.2, which exports the object `fake_nccl`. */
#ifndef PHX_TESTS_MOCK_NCCL_FAKE_NCCL_H
#define PHX_TESTS_MOCK_NCCL_FAKE_NCCL_H

struct fake_nccl {
    void (*drain)(void);  /* ends all work of the emulated devices; needed before the first call */
    int version;          /* that ncclGetVersion answers ... */
    int version_step;     /* ... and so much more at each further call */
    int die_at_call;      /* the n-th exchange from now on fails, its peers find a remote error; 0: none */
    int n_all_reduce, n_all_gather, n_send, n_recv, n_abort, n_destroy; /* counted */
};

#endif
