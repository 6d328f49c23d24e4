/* Exact dot products of 8-bit integers: whatever of a CPU's instructions there is for them.
 *
 * A lane of a vector of 32 bits takes TOGETHER products at once. What takes `input`s without a sign is
 * given them with OFFSET added; a sum then begins from -OFFSET times the sum of its weights. No
 * instruction that saturates is used, so every form gives the same sums.
 */
#ifndef CYLSTM_DOT_H
#define CYLSTM_DOT_H

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include <immintrin.h>
#define TOGETHER 4
#define OFFSET 128
typedef uint8_t input;
INLINE bits load_weights(const int8_t *w) { return load_bits(w); }
INLINE bits dot(bits sum, bits w, bits x) {
#if VECTOR_BYTES == 64
    return (bits)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#else
    return (bits)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#endif
}

#elif defined(__AVX2__)
#include <immintrin.h>
#define TOGETHER 2
#define OFFSET 0
typedef int16_t input;
INLINE bits load_weights(const int8_t *w) {
#if VECTOR_BYTES == 64
    return (bits)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w));
#else
    return (bits)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
#endif
}
INLINE bits dot(bits sum, bits w, bits x) {
#if VECTOR_BYTES == 64
    return sum + (bits)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#else
    bits product; /* GCC would keep a sum in two registers, and one of them in memory */
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
    return sum;
#endif
}

#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define TOGETHER 4
#define OFFSET 0
typedef int8_t input;
INLINE bits load_weights(const int8_t *w) { return (bits)vld1q_s8(w); }
INLINE bits dot(bits sum, bits w, bits x) {
    return (bits)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}

#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define TOGETHER 4
#define OFFSET 0
typedef int8_t input;
INLINE bits load_weights(const int8_t *w) { return (bits)vld1q_s8(w); }
INLINE bits dot(bits sum, bits w, bits x) { /* two products fit into 16 bits: |x| <= 127 */
    const int16x8_t first = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8((int8x16_t)x));
    const int16x8_t last = vmull_s8(vget_high_s8((int8x16_t)w), vget_high_s8((int8x16_t)x));
    return (bits)vpadalq_s16((int32x4_t)sum, vpaddq_s16(first, last));
}

#elif defined(__SSE2__)
#include <emmintrin.h>
#define TOGETHER 2
#define OFFSET 0
typedef int16_t input;
INLINE bits load_weights(const int8_t *w) {
    const __m128i eight = _mm_loadl_epi64((const __m128i *)w);
    return (bits)_mm_srai_epi16(_mm_unpacklo_epi8(eight, eight), 8);
}
INLINE bits dot(bits sum, bits w, bits x) {
    return sum + (bits)_mm_madd_epi16((__m128i)w, (__m128i)x);
}

#else
#define TOGETHER 4
#define OFFSET 128
typedef uint8_t input;
INLINE bits load_weights(const int8_t *w) { return load_bits(w); }
INLINE bits dot(bits sum, bits w, bits x) { /* on machines whose least byte comes first */
    for (int j = 0; j < 4; j++) sum += (w << (24 - 8 * j) >> 24) * (x >> 8 * j & 255);
    return sum;
}
#endif

/* TOGETHER inputs in every lane. */
INLINE bits broadcast_inputs(const input *x) {
    int32_t x_k;
    memcpy(&x_k, x, sizeof x_k);
    return x_k - (bits){0};
}

#endif
