/* Needs the library. */
#include <stdio.h>

int victim(int n);

int main(void)
{
    printf("main %d\n", victim(1));
    return 0;
}
