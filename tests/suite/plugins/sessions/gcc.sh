cat >plugin.cc <<'END'
#include "gcc-plugin.h"
#include "plugin-version.h"
#include "tree.h"
int plugin_is_GPL_compatible;
static void finished_function(void *tree, void *) {
    printf("function %s\n", IDENTIFIER_POINTER(DECL_NAME((::tree)tree)));
}
static void finished(void *, void *) { printf("finished\n"); }
int plugin_init(struct plugin_name_args *info, struct plugin_gcc_version *version) {
    printf("plugin %s for %s\n", info->base_name, version->basever);
    register_callback(info->base_name, PLUGIN_FINISH_PARSE_FUNCTION, finished_function, 0);
    register_callback(info->base_name, PLUGIN_FINISH, finished, 0);
    return 0;
}
END
g++ -shared -fPIC -fno-rtti -I"$(gcc -print-file-name=plugin)/include" -o plugin.so plugin.cc
echo 'int one(void) { return 1; } int two(void) { return 2; }' >a.c
echo 'int one(void), two(void); int main(void) { return one() + two(); }' >b.c
gcc -fplugin=./plugin.so -c a.c
# The linker's plug-in, which starts the compiler again.
gcc -O2 -flto a.c b.c -o program && ./program
echo "status $?"
