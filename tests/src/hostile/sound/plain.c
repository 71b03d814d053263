/* Needs nothing, so that a spoiled library must be preloaded into it. */
#include <stdio.h>

int main(void)
{
    puts("plain");
    return 0;
}
