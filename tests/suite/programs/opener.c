/* Opens the library that it is given, says which objects came, closes it, and says which stayed. */
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

static int show(struct dl_phdr_info *info, size_t size, void *data) {
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash ? slash + 1 : info->dlpi_name;
    if (strncmp(name, "ld-", 3) != 0) printf("  %s, tls module %zu\n", name, info->dlpi_tls_modid);
    return 0;
}

int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW);
    puts(library ? "opened" : dlerror());
    dl_iterate_phdr(show, NULL);
    if (!library) return 0;
    fflush(stdout);
    printf("closed %d\n", dlclose(library));
    dl_iterate_phdr(show, NULL);
    return 0;
}
