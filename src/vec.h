/* A vector of `real`, in the compiler's vector extensions: one source for every instruction set.
 *
 * The includer defines VECTOR_BYTES (16, 32 or 64) and REAL_IS_DOUBLE (0 or 1).
 */
#ifndef CYLSTM_VEC_H
#define CYLSTM_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if REAL_IS_DOUBLE
typedef double real;
typedef int64_t real_bits;
#define SIGN_BIT INT64_MIN
#else
typedef float real;
typedef int32_t real_bits;
#define SIGN_BIT INT32_MIN
#endif

#define VLEN ((ptrdiff_t)(VECTOR_BYTES / sizeof(real)))

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real_bits bits __attribute__((vector_size(VECTOR_BYTES)));
typedef real unaligned_vec
    __attribute__((vector_size(VECTOR_BYTES), aligned(__alignof__(real)), may_alias));
typedef real_bits unaligned_bits
    __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));

INLINE vec load(const real *p) { return *(const unaligned_vec *)p; }
INLINE bits load_bits(const void *p) { return *(const unaligned_bits *)p; }
INLINE void store(real *p, vec v) { *(unaligned_vec *)p = v; }
INLINE vec broadcast(real x) { return x - (vec){0}; } /* keeps -0, as 0 + x would not */

/* The first n lanes; the rest are zero, and are not stored. Folds away where n is VLEN. */
INLINE vec load_n(const real *p, ptrdiff_t n) {
    if (n == VLEN) return load(p);
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(real));
    return v;
}
INLINE void store_n(real *p, vec v, ptrdiff_t n) {
    if (n == VLEN)
        store(p, v);
    else
        memcpy(p, &v, (size_t)n * sizeof(real));
}

/* Of `left` numbers, which may be past the last, those that come into so many lanes. */
INLINE ptrdiff_t lanes_left(ptrdiff_t left, ptrdiff_t most) {
    return left < 0 ? 0 : left < most ? left : most;
}

/* where ? a : b, lane by lane; comparisons of vectors give `where`. */
INLINE vec choose(bits where, vec a, vec b) {
    return (vec)((where & (bits)a) | (~where & (bits)b));
}

/* Bounds that let NaN through. x86 has an instruction for just this, which compilers do not find. */
#if defined(__x86_64__)
#if REAL_IS_DOUBLE
#define SUFFIX "pd"
#else
#define SUFFIX "ps"
#endif
INLINE vec at_least(vec x, vec low) {
#if VECTOR_BYTES == 16
    __asm__("max" SUFFIX " %1, %0" : "+x"(low) : "x"(x));
    return low;
#else
    vec y;
    __asm__("vmax" SUFFIX " %2, %1, %0" : "=v"(y) : "v"(low), "v"(x));
    return y;
#endif
}
INLINE vec at_most(vec x, vec high) {
#if VECTOR_BYTES == 16
    __asm__("min" SUFFIX " %1, %0" : "+x"(high) : "x"(x));
    return high;
#else
    vec y;
    __asm__("vmin" SUFFIX " %2, %1, %0" : "=v"(y) : "v"(high), "v"(x));
    return y;
#endif
}
#else
INLINE vec at_least(vec x, vec low) { return choose(x < low, low, x); }
INLINE vec at_most(vec x, vec high) { return choose(x > high, high, x); }
#endif

/* a b + c, rounded once where the instruction set can. GCC fuses all that it is allowed to; Clang takes a
 * product that two sums share out of both. */
#if defined(__clang__) && (defined(__FMA__) || defined(__aarch64__))
#if __has_builtin(__builtin_elementwise_fma)
#define FUSED(a, b, c) __builtin_elementwise_fma(a, b, c)
#endif
#endif
#ifndef FUSED /* GCC; Clang before 17, whose last bits may be others */
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif
INLINE vec fused(vec a, vec b, vec c) { return FUSED(a, b, c); }

/* A product as it is rounded. In a b + c d a compiler may fuse either product with the addition,
 * here one and there the other, and the last bit would depend on the place; so one of them is kept
 * from it. */
INLINE vec rounded_product(vec a, vec b) {
    vec product = a * b;
#if defined(__x86_64__) || defined(__i386__)
    __asm__("" : "+v"(product));
#elif defined(__aarch64__)
    __asm__("" : "+w"(product));
#endif
    return product;
}

INLINE vec copy_sign(vec magnitude, vec sign) {
    return (vec)((bits)magnitude ^ (((bits)magnitude ^ (bits)sign) & SIGN_BIT));
}

#endif
