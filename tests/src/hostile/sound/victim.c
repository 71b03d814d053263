/* What is spoiled: a program and a library with one of everything that a loader reads. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern char **environ;

_Thread_local int counter = 7;
_Thread_local int counter_of_zero;
static const char *const words[] = { "a", "b", "c" };
int data = 3;
int zeros[2000];
int *pointer = &data;
char ***environment = &environ;

__attribute__((constructor)) static void construct(void)
{
    if (write(1, "constructor\n", 12) != 12)
        abort();
}

int victim(int n)
{
    counter += n;
    zeros[n] = data;
    puts(words[n % 3]);
    return counter + counter_of_zero + *pointer + (environment != 0) + atoi("1");
}

#ifdef PROGRAM
int main(void)
{
    printf("main %d\n", victim(1));
    return 0;
}
#endif
