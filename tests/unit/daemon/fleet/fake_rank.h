/* SPDX-License-Identifier: Apache-2.0
 * What fake_rank.c and the test that starts it agree on. */
#ifndef PHX_TESTS_FAKE_RANK_H
#define PHX_TESTS_FAKE_RANK_H

#include <stdint.h>

enum { FAKE_VOCAB = 1000, FAKE_CONTEXT = 512 };

enum { /* first token of a prompt: what happens at the fifth new token */
    FAKE_PLAIN = 1,
    FAKE_DIE_ONCE,    /* SIGKILL, unless this is a resume */
    FAKE_DIE_ALWAYS,
    FAKE_SILENT_ONCE, /* SIGSTOP: not even heartbeats */
    FAKE_STUCK_ONCE,  /* heartbeats, but no progress */
    FAKE_SKIP_ONCE,   /* leaves an index out */
    FAKE_TWICE,       /* sends old tokens again */
    FAKE_ERROR        /* ends with an error */
};

static inline int32_t fake_token(const int32_t *prompt, int32_t n_prompt, int32_t index)
{
    int32_t sum = 7;

    for (int32_t i = 0; i < n_prompt; i++)
        sum = (sum * 31 + prompt[i]) % FAKE_VOCAB;
    return (sum + index * 13) % FAKE_VOCAB;
}

#endif
