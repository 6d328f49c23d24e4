/* Sums of outer products, the gradients of weights, in the register tiles of products. */
#ifndef CYLSTM_OUTER_H
#define CYLSTM_OUTER_H

#include "product.h"

/* Columns that are taken at once: their products' operands are in the L1 cache, so that halves, whose
 * sums go through memory, would gain nothing. */
#if IN_HALVES
#define GROUP 3
#define EACH_COLUMN_COUNT ONE_TO_3
#else
#define GROUP MOST_ROWS
#define EACH_COLUMN_COUNT EACH_ROW_COUNT
#endif

/* From one group of packed columns to the next: of an odd number of rows, or lines of many groups would
 * compete for few places in the L1 cache. */
INLINE ptrdiff_t group_step(ptrdiff_t rows) { return (rows | 1) * GROUP; }

/* to[group][row][GROUP] := columns [first, first + m), so that a group's follow each other. */
static void pack_columns(ptrdiff_t n, ptrdiff_t first, ptrdiff_t m, const void *const *from,
                         void *to) {
    const ptrdiff_t whole = m - m % GROUP, step = group_step(n);
    for (ptrdiff_t row = 0; row < n; row++) {
        const real *columns = (const real *)from[row] + first;
        real *packed = (real *)to + row * GROUP;
        for (ptrdiff_t j = 0; j < whole; j += GROUP, packed += step)
            memcpy(packed, columns + j, GROUP * sizeof(real));
        memcpy(packed, columns + whole, (size_t)(m - whole) * sizeof(real));
    }
}

/* tile[row][TILE] := columns [first, first + n) of each row, and zeros. */
static void copy_tile(ptrdiff_t rows, ptrdiff_t first, ptrdiff_t n, const void *const *from,
                      real *tile) {
    for (ptrdiff_t row = 0; row < rows; row++, tile += TILE) {
        const real *columns = (const real *)from[row] + first;
        for (ptrdiff_t j = 0; j < TILE; j += VLEN)
            if (n >= TILE)
                store(tile + j, load(columns + j));
            else
                store(tile + j, load_n(columns + j, lanes_left(n - j, VLEN)));
    }
}

/* c[columns][TILE] = or += a[row][columns] b[row][TILE], summed over the rows. The tile of c that is
 * next is asked for meanwhile. */
INLINE void outer_tile(int columns, ptrdiff_t rows, const real *a, const real *b, real *c,
                       ptrdiff_t c_row, int adds) {
    vec sum[GROUP][4];
    if (adds)
        load_tile(1, columns, c, c_row, sum);
    else
        set_zero(columns, sum);
    for (ptrdiff_t next = columns; next < 2 * columns; next++)
        for (ptrdiff_t j = 0; j < TILE; j += VLEN) __builtin_prefetch(c + next * c_row + j, 1);
    for (ptrdiff_t row = 0; row < rows; row++)
        accumulate_group(1, columns, 0, 4, 0, b + row * TILE, 0, 2 * VLEN, a + row * GROUP, 1, sum);
    store_tile(1, columns, c, c_row, sum);
}

#define OUTER_TILE(columns, ...) case columns: outer_tile(columns, __VA_ARGS__); break;

static void add_outer(ptrdiff_t rows, ptrdiff_t m, ptrdiff_t n, const void *a,
                      const void *const *b, ptrdiff_t first, void *c, ptrdiff_t c_row, int adds,
                      void *tile) {
    for (ptrdiff_t j = 0; j < n; j += TILE) {
        copy_tile(rows, first + j, n - j, b, tile);
        for (ptrdiff_t i = 0; i < m; i += GROUP) {
            const real *group = (const real *)a + i / GROUP * group_step(rows);
            real *to = (real *)c + i * c_row + j;
            switch (m - i < GROUP ? m - i : GROUP) {
                EACH_COLUMN_COUNT(OUTER_TILE, rows, group, tile, to, c_row, adds)
            }
        }
    }
}

#endif
