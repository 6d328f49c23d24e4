/* Weights that one thread packs, and a team multiplies with. */
#include "arena.h"
#include "check.h"
#include "kernels.h"
#include "team.h"

#include <string.h>

enum { MEMBERS = 3, DEPTH = 12, OUTPUTS = 70, ROWS = 9 };

typedef struct {
    const kernels *k;
    packed_matrix w;
    const float *x;
    float *z;
    ptrdiff_t z_row;
} product;

static void do_tile(void *given, int tile, int member) {
    const product *p = given;
    (void)member;
    p->k->multiply(&p->w, ROWS, p->x, DEPTH, p->z, p->z_row, tile, tile + 1, 0, 0);
}

void check_shared_product(void) {
    static const float matrix[OUTPUTS * DEPTH] = {1, 2, 3};
    float x[ROWS * DEPTH];
    arena memory;
    product p;
    const kernels *k = p.k = cylstm_kernels("baseline", FLOAT32, 0);
    const packing how = {NULL, 4, 0, OUTPUTS, DEPTH, DEPTH, 1, NULL};
    const ptrdiff_t tiles = k->packed_tiles(&how), tile = 4 * k->width;
    memset(&memory, 0, sizeof memory);
    const arena before = memory;
    for (int j = 0; j < ROWS * DEPTH; j++) x[j] = (float)(j / DEPTH);
    p.x = x, p.z_row = tiles * tile;
    p.z = arena_take(&memory, ROWS * p.z_row * (ptrdiff_t)sizeof(float));
    memset(&p.w, 0, sizeof p.w);
    p.w.vectors = 4, p.w.tiles = tiles, p.w.depth = p.w.first = DEPTH;
    p.w.tile_step = DEPTH * tile, p.w.k_step = tile, p.w.half_step = tile / 2;
    p.w.weights = arena_take(&memory, tiles * tile * DEPTH * (ptrdiff_t)sizeof(float));
    k->pack(&how, matrix, NULL, &p.w);
    cylstm_share(MEMBERS, (int)tiles, ALIKE, do_tile, &p);
    for (int row = 0; row < ROWS; row++)
        CHECK(p.z[row * p.z_row] == (float)(6 * row) && p.z[row * p.z_row + 1] == 0, "row %d", row);
    arena_return(&memory, &before);
}
