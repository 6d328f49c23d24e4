/* Transposes, a square of vectors at a time. */
#ifndef CYLSTM_TRANSPOSE_H
#define CYLSTM_TRANSPOSE_H

#include "vec.h"

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (bits){__VA_ARGS__})
#endif

/* The lanes of a and b in turn: of their first halves, and of their last. */
#define LANES (VECTOR_BYTES / (REAL_IS_DOUBLE ? 8 : 4))
#if LANES == 16
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LAST_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define LAST_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define FIRST_HALVES 0, 4, 1, 5
#define LAST_HALVES 2, 6, 3, 7
#else
#define FIRST_HALVES 0, 2
#define LAST_HALVES 1, 3
#endif

/* to[VLEN, VLEN] := from'. Element (r, j) is number r VLEN + j of the square; to interleave each row
 * with the one half a square further turns this number's bits by one place, and to swap r and j is
 * to turn them by half of their places. */
INLINE void transpose_square(const real *from, ptrdiff_t from_row, real *to, ptrdiff_t to_row) {
    vec rows[VLEN], turned[VLEN];
    for (ptrdiff_t r = 0; r < VLEN; r++) rows[r] = load(from + r * from_row);
    for (ptrdiff_t half = VLEN / 2, turns = 1; turns < VLEN; turns *= 2) {
        for (ptrdiff_t r = 0; r < half; r++) {
            turned[2 * r] = SHUFFLE(rows[r], rows[r + half], FIRST_HALVES);
            turned[2 * r + 1] = SHUFFLE(rows[r], rows[r + half], LAST_HALVES);
        }
        for (ptrdiff_t r = 0; r < VLEN; r++) rows[r] = turned[r];
    }
    for (ptrdiff_t r = 0; r < VLEN; r++) store(to + r * to_row, rows[r]);
}

INLINE void transpose_singly(ptrdiff_t n, ptrdiff_t m, const real *from, ptrdiff_t from_row,
                             real *to, ptrdiff_t to_row) {
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t j = 0; j < n; j++) to[i * to_row + j] = from[j * from_row + i];
}

/* to[m, n] := from' for from [n, m]. */
static void transpose(ptrdiff_t n, ptrdiff_t m, const void *from, ptrdiff_t from_row, void *to,
                      ptrdiff_t to_row) {
    const ptrdiff_t rows = n - n % VLEN, columns = m - m % VLEN;
    const real *a = from;
    real *b = to;
    for (ptrdiff_t j = 0; j < rows; j += VLEN)
        for (ptrdiff_t i = 0; i < columns; i += VLEN)
            transpose_square(a + j * from_row + i, from_row, b + i * to_row + j, to_row);
    transpose_singly(rows, m - columns, a + columns, from_row, b + columns * to_row, to_row);
    transpose_singly(n - rows, m, a + rows * from_row, from_row, b + rows, to_row);
}

#endif
