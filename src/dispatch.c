/* Which tables were compiled in, and which of them this CPU can run. */
#include "kernels.h"

#include <string.h>

add_product cylstm_add_product[2];

#define DECLARE(isa) extern const kernels cylstm_##isa##_float[2], cylstm_##isa##_double[2];
#define SUPPORTED(isa, test) {#isa, test, {cylstm_##isa##_float, cylstm_##isa##_double}},

#ifdef HAVE_avx512
DECLARE(avx512)
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("fma");
}
#endif
#ifdef HAVE_avx2
DECLARE(avx2)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
DECLARE(baseline)
static int has_baseline(void) { return 1; }

/* The best first. */
static const struct {
    const char *name;
    int (*has)(void);
    const kernels *tables[2]; /* of float and double: by our products, by BLAS's */
} compiled[] = {
#ifdef HAVE_avx512
    SUPPORTED(avx512, has_avx512)
#endif
#ifdef HAVE_avx2
    SUPPORTED(avx2, has_avx2)
#endif
    SUPPORTED(baseline, has_baseline)
};

#define COMPILED (sizeof compiled / sizeof *compiled)

const char *const *cylstm_isas(void) {
    static const char *names[COMPILED + 1];
    size_t count = 0;
    for (size_t j = 0; j < COMPILED; j++)
        if (compiled[j].has()) names[count++] = compiled[j].name;
    return names;
}

const kernels *cylstm_kernels(const char *isa, int is_double, int by_blas) {
    for (size_t j = 0; j < COMPILED; j++)
        if (!strcmp(compiled[j].name, isa) && compiled[j].has())
            return &compiled[j].tables[is_double][by_blas];
    return NULL;
}
