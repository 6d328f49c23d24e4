/* Memory that begins where a cache line does, from whichever call the system has for it. */
#ifndef CYLSTM_PLATFORM_MEMORY_H
#define CYLSTM_PLATFORM_MEMORY_H

#include <stddef.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <malloc.h>
#endif

#define CACHE_LINE ((ptrdiff_t)64)

/* NULL where there is none. */
static inline void *cylstm_allocate(ptrdiff_t size) {
#if defined(_WIN32)
    return _aligned_malloc((size_t)size, (size_t)CACHE_LINE);
#else
    void *memory;
    return posix_memalign(&memory, (size_t)CACHE_LINE, (size_t)size) ? NULL : memory;
#endif
}

static inline void cylstm_release(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
