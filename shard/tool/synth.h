/* SPDX-License-Identifier: Apache-2.0
 * The parts of `phalanx-model synth`.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_SYNTH_H
#define PHX_SHARD_TOOL_SYNTH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_SYNTH_DIMS_MAX = 4, PHX_SYNTH_VOCAB_SMALL = 288 };

/* How a tensor's values are drawn. */
enum phx_synth_fill {
    PHX_FILL_WEIGHT = 'w', /* uniform, standard deviation 0.02 */
    PHX_FILL_NORM = 'n',   /* 0.9 to 1.1 */
    PHX_FILL_BIAS = 'b',   /* as weights */
    PHX_FILL_SINK = 's',   /* -1 to 1 */
    PHX_FILL_BLOCKS = 'q', /* MXFP4 nibbles: any byte */
    PHX_FILL_SCALES = 'e'  /* MXFP4 scales that give about the same deviation */
};

enum phx_synth_type { PHX_SYNTH_U8 = 1, PHX_SYNTH_BF16, PHX_SYNTH_F16, PHX_SYNTH_F32 };

struct phx_synth_tensor {
    char               *name; /* owned */
    enum phx_synth_fill fill;
    enum phx_synth_type type;
    int32_t             n_dims;
    int64_t             dim[PHX_SYNTH_DIMS_MAX];
    uint64_t            size_bytes;
    uint64_t            begin; /* in its file's data */
    int32_t             file;
};

struct phx_synth_layout {
    struct phx_synth_tensor *tensors; /* owned; in published order */
    int32_t                  n, capacity;
    int32_t                  n_files;
    uint64_t                 total_bytes;
};

/* presets.c: the config.json text of a preset (NULL = unknown), and a list of names for messages. */
const char *phx_synth_preset(const char *name);
const char *phx_synth_preset_names(void);

/* layout.c: the tensors of a configuration (a tree of config.json), cut into files of at most
 * shard_bytes.  PHX_E_UNSUPPORTED naming a model_type whose layout is not known. */
int  phx_synth_layout_make(const json_t *config, uint64_t shard_bytes, struct phx_synth_layout *layout,
                           struct phx_err *err) PHX_CHECKED;
void phx_synth_layout_fini(struct phx_synth_layout *layout);
/* The name of file i, numbered as the architecture publishes it. */
void phx_synth_file_name(const json_t *config, const struct phx_synth_layout *layout, int32_t i,
                         char name[64]);

/* Another number of layers; the list of layer types is cut or repeated to fit. */
void phx_synth_set_layers(json_t *config, int32_t n);

/* write.c: bytes [offset, offset + size) of a tensor; offset is a multiple of 8. */
void phx_synth_fill(const struct phx_synth_tensor *t, uint64_t key, uint64_t offset, void *out, size_t size);
/* The safetensors files and the index.  The values depend on the seed and the place in the
 * tensor alone, not on the number of threads. */
int phx_synth_write(const char *dir, const json_t *config, struct phx_synth_layout *layout,
                    uint64_t seed, int32_t n_threads, struct phx_err *err) PHX_CHECKED;

/* vocabulary.c: changes the configuration to a vocabulary of bytes and special tokens. */
void phx_synth_shrink_vocabulary(json_t *config);
/* tokenizer.json, tokenizer_config.json and generation_config.json. */
int phx_synth_write_text(const char *dir, const json_t *config, struct phx_err *err) PHX_CHECKED;

#endif
