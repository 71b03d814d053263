/* Writes to the file argv[1] what a set-user-ID program gets: descriptors, environment, libraries, and whether it is sealed. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;
extern const char *where(void) __attribute__((weak));
const char *preloaded = "none";

static int is_sealed(void *address) {
    char *page = (char *)((unsigned long)address & ~4095ul);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0 && errno == EPERM;
}

int main(int argc, char **argv) {
    struct stat status[3];
    int closed[3];
    for (int i = 0; i < 3; i++)
        closed[i] = fstat(i, &status[i]);
    FILE *out = fopen(argv[1], "w");
    if (!out)
        return 99;
    for (int i = 0; i < 3; i++) {
        unsigned long device = !closed[i] && S_ISCHR(status[i].st_mode) ? status[i].st_rdev : 0;
        fprintf(out, "descriptor %d: %d, device %lx, flags %o\n", i, closed[i], device, fcntl(i, F_GETFL));
    }
    fprintf(out, "secure %lu, library %s, preloaded %s\n", getauxval(AT_SECURE), where ? where() : "-", preloaded);
    unsigned char *volatile fresh = malloc(40);
    fprintf(out, "fresh byte %02x\n", fresh[20]);
    for (char **e = environ; *e; e++)
        fprintf(out, "%s\n", *e);
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "sealed"))
            fprintf(out, "sealed: %d\n", is_sealed(&main));
        else if (!strcmp(argv[i], "child")) {
            char line[4096];
            FILE *child = popen("env", "r");
            while (fgets(line, sizeof line, child))
                fprintf(out, "child: %s", line);
            pclose(child);
        } else {
            void *handle = dlopen(argv[i], RTLD_NOW);
            const char *(*found)(void) = handle ? (const char *(*)(void))dlsym(handle, "where") : NULL;
            fprintf(out, "%s: %s\n", argv[i], found ? found() : dlerror());
        }
    }
    fclose(out);
    return 0;
}
