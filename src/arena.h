/* The workspace of a call: a block of memory that the caller has, and blocks from the heap where it
 * does not suffice. What is taken begins where a cache line does. */
#ifndef CYLSTM_ARENA_H
#define CYLSTM_ARENA_H

#include "platform/memory.h"

typedef struct {
    char *memory;         /* [size], aligned to cache lines */
    ptrdiff_t size;
    ptrdiff_t used, peak; /* with what did not fit */
    void **blocks;        /* from the heap, each a cache line that points to the one before, then
                             what was taken; NULL for none */
} arena;

/* NULL where there is no memory. */
static inline void *arena_take(arena *a, ptrdiff_t size) {
    const ptrdiff_t from = a->used;
    a->used += (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    if (a->used > a->peak) a->peak = a->used;
    if (a->used <= a->size) return a->memory + from;
    void **block = cylstm_allocate(CACHE_LINE + size);
    if (!block) return NULL;
    *block = a->blocks;
    a->blocks = block;
    return (char *)block + CACHE_LINE;
}

/* Gives back what was taken since the arena was as `before`. */
static inline void arena_return(arena *a, const arena *before) {
    while (a->blocks != before->blocks) {
        void **block = a->blocks;
        a->blocks = *block;
        cylstm_release(block);
    }
    a->used = before->used;
}

/* The caller's block, kept for calls to come, made at least so large: 0, or -1 where there is no memory,
 * and the block is as it was. Nothing is taken from it now. */
static inline int arena_grow(arena *a, ptrdiff_t size) {
    if (size <= a->size) return 0;
    void *memory = cylstm_allocate(size);
    if (!memory) return -1;
    cylstm_release(a->memory);
    a->memory = (char *)memory;
    a->size = size;
    return 0;
}

static inline void arena_free(arena *a) {
    cylstm_release(a->memory);
}

#endif
