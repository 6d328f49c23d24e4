/* Which tables were compiled in, and which of them this CPU can run. */
#include "kernels.h"
#include "platform/cpu.h"

#include <stdatomic.h>
#include <string.h>

add_product cylstm_add_product[2];

#define DECLARE(isa, name) extern const kernels cylstm_##isa##_##name[2];
#define DECLARE_ALL(isa)                                                                          \
    DECLARE(isa, float) DECLARE(isa, double) DECLARE(isa, bfloat16) DECLARE(isa, int8)

/* An instruction set that adds to a more general one what some formats want. */
#define SUPPORTED(isa, real, pairs, integers)                                                     \
    {#isa, has_##isa,                                                                             \
     {cylstm_##real##_float, cylstm_##real##_double, cylstm_##pairs##_bfloat16,                   \
      cylstm_##integers##_int8}},

#ifdef HAVE_avx512
DECLARE_ALL(avx512)
static int has_avx512(void) {
    return cpu_has("avx512f") && cpu_has("avx512dq") &&
           cpu_has("avx512vl") && cpu_has("avx512bw") &&
           cpu_has("fma");
}
#endif
#ifdef HAVE_avx512vnni
DECLARE(avx512vnni, int8)
static int has_avx512vnni(void) { return has_avx512() && cpu_has("avx512vnni"); }
#endif
#ifdef HAVE_avx512bf16
DECLARE(avx512bf16, bfloat16)
static int has_avx512bf16(void) {
    return has_avx512vnni() && cpu_has("avx512bf16");
}
#endif
#ifdef HAVE_avx2
DECLARE_ALL(avx2)
static int has_avx2(void) { return cpu_has("avx2") && cpu_has("fma"); }
#endif
#ifdef HAVE_avxvnni
DECLARE(avxvnni, int8)
static int has_avxvnni(void) { return has_avx2() && cpu_has("avxvnni"); }
#endif
#ifdef HAVE_dotprod
DECLARE(dotprod, int8)
static int has_dotprod(void) { return cpu_has_dotprod(); }
#endif
DECLARE_ALL(baseline)
static int has_baseline(void) { return 1; }

/* The best first. */
static const struct {
    const char *name;
    int (*has)(void);
    const kernels *tables[4]; /* of each format, by our products and, of those that train, by BLAS's */
} compiled[] = {
#ifdef HAVE_avx512bf16
    SUPPORTED(avx512bf16, avx512, avx512bf16, avx512vnni)
#endif
#ifdef HAVE_avx512vnni
    SUPPORTED(avx512vnni, avx512, avx512, avx512vnni)
#endif
#ifdef HAVE_avx512
    SUPPORTED(avx512, avx512, avx512, avx512)
#endif
#ifdef HAVE_avxvnni
    SUPPORTED(avxvnni, avx2, avx2, avxvnni)
#endif
#ifdef HAVE_avx2
    SUPPORTED(avx2, avx2, avx2, avx2)
#endif
#ifdef HAVE_dotprod
    SUPPORTED(dotprod, baseline, baseline, dotprod)
#endif
    SUPPORTED(baseline, baseline, baseline, baseline)
};

#define COMPILED (sizeof compiled / sizeof *compiled)

/* Whether this CPU has compiled[j]. Asked once: a virtual machine stops at cpuid, and all that AVX-512
 * wants to know took 0.1 ms (Zen 5). */
static int is_supported(size_t j) {
    enum { UNKNOWN, YES, NO };
    static atomic_char known[COMPILED];
    if (known[j] == UNKNOWN) known[j] = compiled[j].has() ? YES : NO;
    return known[j] == YES;
}

const char *const *cylstm_isas(void) {
    static const char *names[COMPILED + 1];
    size_t count = 0;
    for (size_t j = 0; j < COMPILED; j++)
        if (is_supported(j)) names[count++] = compiled[j].name;
    return names;
}

const kernels *cylstm_kernels(const char *isa, format weights, int by_blas) {
    for (size_t j = 0; j < COMPILED; j++)
        if (!strcmp(compiled[j].name, isa) && is_supported(j))
            return &compiled[j].tables[weights][by_blas];
    return NULL;
}
