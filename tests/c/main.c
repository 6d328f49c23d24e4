/* The tests of src/: the kernels of each instruction set that this CPU has, the arena, the threads. */
#include "check.h"

atomic_int checked, failed;

int main(void) {
    check_arena();
    check_kernels();
    check_teams();
    printf("%d checks, %d failed\n", atomic_load(&checked), atomic_load(&failed));
    return atomic_load(&failed) != 0;
}
