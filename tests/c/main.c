/* The tests of src/: the kernels of each instruction set that this CPU has, the arena, the threads. */
#include "check.h"

atomic_int checked, failed;

/* With an argument no process is forked: an emulator may not stand that beside threads. */
int main(int count, char **arguments) {
    (void)arguments;
    check_arena();
    check_kernels();
    check_teams(count == 1);
    printf("%d checks, %d failed\n", atomic_load(&checked), atomic_load(&failed));
    return atomic_load(&failed) != 0;
}
