/* What a CPU has of instructions beyond those of its kind, and its system lets programs use. */
#ifndef CYLSTM_PLATFORM_CPU_H
#define CYLSTM_PLATFORM_CPU_H

#include <stddef.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };
static const struct {
    const char *name;
    unsigned leaf, part; /* of cpuid */
    int in, bit;
    unsigned kept;       /* the registers that the system must keep: bits of xcr0 */
} cpu_features[] = {
    {"fma", 1, 0, ECX, 12, 0x06},        {"avx2", 7, 0, EBX, 5, 0x06},
    {"avx512f", 7, 0, EBX, 16, 0xe6},    {"avx512dq", 7, 0, EBX, 17, 0xe6},
    {"avx512bw", 7, 0, EBX, 30, 0xe6},   {"avx512vl", 7, 0, EBX, 31, 0xe6},
    {"avx512vnni", 7, 0, ECX, 11, 0xe6}, {"avx512bf16", 7, 1, EAX, 5, 0xe6},
    {"avxvnni", 7, 1, EAX, 4, 0x06},
};

static inline unsigned cpu_kept(void) {
    unsigned r[4], low, high;
    if (!__get_cpuid(1, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) || !(r[ECX] >> 27 & 1)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Not by __builtin_cpu_supports: on Windows it wants a library that not every linker has. */
static inline int cpu_has(const char *name) {
    for (size_t j = 0; j < sizeof cpu_features / sizeof *cpu_features; j++) {
        unsigned r[4];
        if (strcmp(cpu_features[j].name, name)) continue;
        return __get_cpuid_count(cpu_features[j].leaf, cpu_features[j].part, &r[EAX], &r[EBX],
                                 &r[ECX], &r[EDX]) &&
               (r[cpu_features[j].in] >> cpu_features[j].bit & 1) &&
               (cpu_kept() & cpu_features[j].kept) == cpu_features[j].kept;
    }
    return 0;
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
static inline int cpu_has_dotprod(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

#endif

#endif
