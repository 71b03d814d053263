# Builds what the command lines of this suite are about, in the working directory, where `ld.so` is the loader.
set -eu

library() {
    local name=$1 source=$2
    shift 2
    printf '%s\n' "$source" >"$name.c"
    gcc -shared -fPIC "$name.c" -o "$name" -Wl,-soname,"$(basename "$name")" "$@"
}

program() {
    local name=$1 source=$2
    shift 2
    printf '%s\n' "$source" >"$name.c"
    gcc "$name.c" -o "$name" -Wl,--no-as-needed -Wl,--disable-new-dtags "$@"
}

mkdir -p other none sub
printf 'ONE { f; g; };\n' >one.map
printf 'TWO { f; g; };\n' >two.map
both='int f(void) { return 0; } int g = 1;'
library libver.so "$both" -Wl,--version-script=one.map
library other/libver.so "$both" -Wl,--version-script=two.map
library none/libver.so "$both"
library libgone.so 'int gone(void) { return 0; }'
library libunused.so 'int unused(void) { return 0; }'
library libopen.so 'extern int undefined_function(void); extern int undefined_variable;
int opened(void) { return undefined_function() + undefined_variable; } int *pointer = &undefined_variable;'
library libwhere.so '#include <stdio.h>
__attribute__((constructor)) static void say(void) { puts("above"); } int where(void) { return 0; }'
library sub/libwhere.so '#include <stdio.h>
__attribute__((constructor)) static void say(void) { puts("below"); } int where(void) { return 0; }'

versions='int f(void); extern int g; int main(void) { return f() + g - 1; }'
program versions "$versions" ./libver.so -Wl,-rpath,.
program versionsnow "$versions" ./libver.so -Wl,-rpath,. -Wl,-z,now
program missing "$versions" libgone.so libver.so -Wl,-rpath,.
for name in first second third; do
    library lib$name.so "int gone(void); int $name(void) { return gone(); }" libgone.so -Wl,-rpath,.
done
program repeated 'int first(void), second(void); int main(void) { return first() + second(); }' libfirst.so libsecond.so libthird.so \
    libgone.so -lm -Wl,-rpath,.
program lastgone 'int gone(void); int main(void) { return gone(); }' -lc libgone.so -Wl,-rpath,.
rm libgone.so
library libaged.so "$both" -Wl,--version-script=one.map
program aged "$versions" libaged.so -Wl,-rpath,.
library libtwice.so "$both" -Wl,--version-script=one.map
program twice "$versions" libtwice.so libaged.so -Wl,-rpath,.
rm libaged.so
library libbroken.so 'int broken(void) { return 0; }'
program broken 'int broken(void); int gone(void); int main(void) { return broken(); }' libbroken.so libver.so -Wl,-rpath,.
printf 'text\n' >libbroken.so
library libother.so 'int other(void) { return 0; }'
program another 'int other(void); int main(void) { return other(); }' libother.so libver.so -Wl,-rpath,.
# For the other word size.
printf '\1' | dd of=libother.so bs=1 seek=4 conv=notrunc status=none
cp libother.so libnoclass.so
printf '\3' | dd of=libnoclass.so bs=1 seek=4 conv=notrunc status=none
cp libver.so aliased.so
library libsized.so 'int sized[2];'
library other/libsized.so 'int sized[4];'
library none/libsized.so 'int sized[1];'
program sized 'extern int sized[2], nobody; int main(void) { return sized[0] + nobody; }' libsized.so -fno-pie -no-pie \
    -Wl,--unresolved-symbols=ignore-all
program nodefault 'int unused(void); int main(void) { return unused(); }' libunused.so -Wl,-z,nodefaultlib
program norpath 'int unused(void); int main(void) { return unused(); }' libunused.so -Wl,-z,nodefaultlib -Wl,-rpath,/nowhere
ln -s loop loop
# ONE is needed weakly.
perl -0777 -pe 's/\x25\x54\0\0\0\0/\x25\x54\0\0\x02\0/' versions >weakly
chmod +x weakly
program ownflags 'int main(void) { return 0; }' -Wl,-z,global -Wl,--dynamic-linker=./ld.so
library libgonetoo.so 'int gone(void) { return 0; }'
library libfilter.so 'int filtered(void) { return 0; }' -Wl,-f,libnone.so -Wl,-f,libwhere.so -Wl,-f,libnothing.so -Wl,-rpath,.
program filters "$versions" libver.so libgonetoo.so libfilter.so libgonetoo.so libunused.so libwhere.so -Wl,-rpath,.
rm libgonetoo.so
mkdir -p looped
ln -s libver.so looped/libver.so
program idle 'int main(void) { return 3; }' libopen.so -Wl,--unresolved-symbols=ignore-all -Wl,-rpath,.
program unbound 'int nobody(void); int main(void) { return nobody(); }' libunused.so -Wl,--unresolved-symbols=ignore-all -Wl,-rpath,. \
    -Wl,-z,lazy -fno-pie -no-pie
program open 'int opened(void); int f(void); int main(void) { return opened() + f(); }' libopen.so libver.so \
    -Wl,--unresolved-symbols=ignore-all -Wl,-rpath,.
program unused 'int f(void); int main(void) { return f(); }' libunused.so libver.so -Wl,-rpath,.
program rpath 'int where(void); int main(void) { return where(); }' libwhere.so -Wl,-rpath,'$ORIGIN/sub:/nowhere'
program runpath 'int where(void); int main(void) { return where(); }' libwhere.so -Wl,--enable-new-dtags \
    -Wl,-rpath,'$ORIGIN/sub:/nowhere'
program arguments '#include <stdio.h>
int main(int n, char **words) { for (int i = 0; i < n; i++) puts(words[i]); return 7; }'
program direct 'int where(void); int main(void) { return where(); }' libwhere.so -Wl,-rpath,'$ORIGIN' \
    -Wl,--dynamic-linker=./ld.so
library libopened.so '#include <stdlib.h>
int answer(void) { return atoi("0"); }'
program opener '#include <dlfcn.h>
int main(void) { void *math = dlopen("libm.so.6", RTLD_NOW), *own = dlopen("./libopened.so", RTLD_NOW), *again;
int (*answer)(void) = (int (*)(void))dlsym(own, "answer"); again = dlopen("libopened.so", RTLD_LAZY);
dlsym(own, "nothing"); dlclose(again); dlclose(math); dlopen("/nothing.so", RTLD_NOW); return answer() || dlclose(own); }'
library libnotopened.so 'int none(void) { return 0; }' -Wl,-z,nodlopen
library libneedsit.so 'int needs(void) { return 0; }' -Wl,--no-as-needed ./libnotopened.so -Wl,-rpath,.
program refused '#include <dlfcn.h>
#include <stdio.h>
int main(void) { dlopen("./libnotopened.so", RTLD_NOW); puts(dlerror()); dlopen("./libneedsit.so", RTLD_NOW); puts(dlerror()); return 0; }'
program stayer '#include <dlfcn.h>
int main(void) { int stay = RTLD_NOW | RTLD_NODELETE; dlopen(0, stay); dlopen(0, stay); dlopen("libc.so.6", stay); dlopen("libc.so.6", stay);
dlopen("libwhere.so", RTLD_NOW); dlopen("libwhere.so", stay); dlopen("libwhere.so", stay | RTLD_NOLOAD); dlopen("libm.so.6", stay); return 0; }' \
    ./libwhere.so -Wl,-rpath,.
library libcloser.so '#include <dlfcn.h>
void *other; __attribute__((destructor)) static void leave(void) { dlclose(other); }'
program closer '#include <dlfcn.h>
int main(void) { int stay = RTLD_NOW | RTLD_NODELETE; dlclose(dlopen("libc.so.6", RTLD_NOW)); dlopen("libc.so.6", stay);
dlclose(dlopen(0, RTLD_NOW)); dlopen(0, stay); dlopen("libm.so.6", RTLD_NOW); dlopen("libm.so.6", stay);
void *own = dlopen("./libcloser.so", RTLD_NOW); *(void **)dlsym(own, "other") = dlopen("libwhere.so", RTLD_NOW); return dlclose(own); }' \
    ./libwhere.so -Wl,-rpath,.
library libsecond.so 'int second(void) { return 2; }'
library libthird.so 'int second(void); int third(void) { return second(); }' -Wl,-z,lazy
library libback.so 'int back(void); int forth(void) { return back(); }' -Wl,-z,lazy
library libkept.so 'int kept(void) { return 0; }' -Wl,-z,nodelete
library libflagged.so 'int flagged(void) { return 0; }' -Wl,-z,interpose -Wl,-z,initfirst -Wl,-z,loadfltr
library libnameless.so 'int nameless(void) { return 0; }' -Wl,-f,libnone.so
library libdeep.so 'int second(void); int deep(void) { return second(); }' libsecond.so -Wl,-rpath,.
printf '%s\n' 'template <class T> struct One { static int value; }; template <class T> int One<T>::value = 1; int one() { return One<int>::value++; }' >unique.cc
gcc -x c++ -shared -fPIC unique.cc -o libunique.so -fno-exceptions
program keeper '#define _GNU_SOURCE
#include <dlfcn.h>
static void first(int n, char **words, char **variables) { (void)n, (void)words, (void)variables; }
__attribute__((section(".preinit_array"))) static void (*early)(int, char **, char **) = first;
int back(void) { return 0; }
static int call(void *object, const char *name) { int (*function)(void) = (int (*)(void))dlsym(object, name); return function ? function() : 9; }
int main(void) { void *second, *third, *other; dlclose(dlopen("./libwhere.so", RTLD_LAZY | RTLD_NODELETE)); second = dlopen("./libsecond.so", RTLD_LAZY);
dlopen("./libsecond.so", RTLD_LAZY | RTLD_GLOBAL); third = dlopen("./libthird.so", RTLD_LAZY); call(third, "third"); dlclose(second); dlclose(second);
dlclose(third); dlclose(dlopen("./libunique.so", RTLD_NOW)); dlclose(dlopen("./libkept.so", RTLD_NOW)); dlclose(dlopen("./libflagged.so", RTLD_NOW | RTLD_GLOBAL));
dlclose(dlopen("./libnameless.so", RTLD_NOW)); dlopen("./libnone.so", RTLD_NOW | RTLD_NOLOAD); dlopen("libz.so.1", RTLD_NOW | RTLD_NOLOAD);
other = dlopen("./libback.so", RTLD_LAZY); call(other, "forth"); dlopen("./libback.so", RTLD_LAZY | RTLD_NODELETE); dlclose(other);
dlclose(dlopen("./libdeep.so", RTLD_NOW | RTLD_DEEPBIND)); return !dlmopen(LM_ID_NEWLM, "./libkept.so", RTLD_NOW); }' -rdynamic -Wl,-z,lazy
library libsymbolic.so '#include <string.h>
size_t length(const char *text) { return strlen(text); } void *(*copy)(void *, const void *, size_t) = memcpy;' -Wl,-Bsymbolic
library liblacking.so 'int lacking_function(void); int (*lacks)(void) = lacking_function;' ./libsecond.so
program reopener '#include <dlfcn.h>
#include <string.h>
int main(int n, char **words) { dlopen("./libsymbolic.so", RTLD_NOW); dlopen("./libsymbolic.so", RTLD_NOW | RTLD_GLOBAL);
dlopen("./libsymbolic.so", RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE); dlopen("./libsymbolic.so", RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
dlopen("./libkept.so", RTLD_LAZY | RTLD_GLOBAL); dlopen("./liblacking.so", RTLD_LAZY); return strlen(words[0]) == n; }'
program static '#include <stdio.h>
int main(void) { puts("static"); return 3; }' -static
cp static closed
# DT_RELACOUNT, DT_FLAGS_1 and DT_DEBUG become DT_RELR, DT_RELRSZ and DT_RELRENT, but no version tells of them; PT_DYNAMIC becomes PT_NULL.
program unmarked 'int main(void) { return 0; }'
perl -0777 -pi -e 's/\xf9\xff\xff\x6f\0{4}/\x24\0\0\0\0\0\0\0/; s/\xfb\xff\xff\x6f\0{4}/\x23\0\0\0\0\0\0\0/;
s/\x15\0{15}/\x25\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0/' unmarked
perl -0777 -pe 's/\x02\0\0\0(\x06\0\0\0)/\0\0\0\0$1/' libunused.so >undynamic
printf 'text\n' >text
program bound '#include <stdlib.h>
int main(void) { return atoi("0") + atoi("0"); }' -Wl,-z,lazy
library libweak.so '#include <stdio.h>
__attribute__((weak)) const char *kind(void) { return "weak"; }'
library libstrong.so 'const char *kind(void) { return "strong"; }'
program kinds '#include <stdio.h>
const char *kind(void); int main(void) { puts(kind()); return 0; }' ./libweak.so ./libstrong.so -Wl,-rpath,.
library libaudit.so '#include <unistd.h>
unsigned la_version(unsigned version) { return write(1, "audited\n", 8) == 8 ? version : 0; }'

# Caches for /etc/ld.so.cache: one that knows a library, and those that time, accidents and malice make of it.
mkdir -p cached caches cached/glibc-hwcaps/x86-64-v2 nothing
library cached/libcached.so '#include <stdio.h>
__attribute__((constructor)) static void say(void) { puts("cached"); } int cached(void) { return 0; }'
library cached/glibc-hwcaps/x86-64-v2/libleveled.so 'int leveled(void) { return 0; }'
program leveled 'int leveled(void); int main(void) { return leveled(); }' cached/glibc-hwcaps/x86-64-v2/libleveled.so
gcc -shared -fPIC -nostdlib cached/libcached.so.c -o cached/libalone.so -Wl,-soname,libalone.so -Wl,--unresolved-symbols=ignore-all
program fromcache 'int cached(void); int main(void) { return cached(); }' cached/libcached.so
printf '%s\n' "$PWD/cached" /lib/x86_64-linux-gnu >caches.conf
ldconfig=$(PATH=$PATH:/sbin:/usr/sbin command -v ldconfig)
"$ldconfig" -X -C "$PWD/caches/good" -f caches.conf
# `lie NAME OFFSET BYTES`: a copy of the good cache with other bytes at this offset.
lie() {
    cp caches/good "caches/$1"
    printf "$3" | dd of="caches/$1" bs=1 seek="$2" conv=notrunc status=none
}
size=$(stat -c %s caches/good)
: >caches/empty
head -c 20 caches/good >caches/magic-alone
head -c 47 caches/good >caches/short-header
head -c $((size / 4)) caches/good >caches/short-entries
head -c $((size / 2)) caches/good >caches/short-strings
head -c "$size" /dev/zero >caches/zeroes
lie another-magic 0 x
# Every path begins at the last byte of the file, which is the end of the last string.
perl -0777 -e '$_ = <>; my $count = unpack "x20 V", $_;
substr($_, 56 + 24 * --$count, 4) = pack "V", length($_) - 1 while $count; print' caches/good >caches/empty-paths
lie another-version 17 9.9
lie no-entries 20 '\000\000\000\000'
lie one-entry 20 '\001\000\000\000'
lie many-entries 20 '\377\377\377\377'
lie no-strings 24 '\000\000\000\000'
lie long-strings 24 '\377\377\377\377'
lie big-endian 28 '\003'
lie unknown-order 28 '\000'
lie extension-outside 32 '\360\377\377\177'
lie extension-askew 32 '\041\000\000\000'
# The oldest format: alone, and with the other behind it.
{ printf 'ld.so-1.7.0\000\001\000\000\000'; printf '\003\000\000\000\000\000\000\000\015\000\000\000libcached.so\000'
  printf '%s\000' "$PWD/cached/libcached.so"; } >caches/old
{ printf 'ld.so-1.7.0\000\000\000\000\000'; cat caches/good; } >caches/old-and-new
{ printf 'ld.so-1.7.0\000\377\377\377\017'; cat caches/good; } >caches/old-lies
sed 's#^RTLDLIST=.*#RTLDLIST=./ld.so#' "$(command -v ldd)" >ldd
chmod +x ldd
library libprofiled.so '#include <stdlib.h>
#include <time.h>
volatile unsigned long sum; void twice(void) { sum++; }
void thrice(int n) { twice(); if (n) thrice(n - 1); sum += (unsigned long)abs(-1); }
int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
void spin(void) { while (clock() < CLOCKS_PER_SEC / 3) for (int i = 0; i < 100000; i++) sum += i; }' -Wl,-z,lazy
program profiled '#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
void twice(void), thrice(int), spin(void); int compare(const void *, const void *);
int main(void) { int a[] = {3, 1, 2}; twice(); twice(); thrice(4); qsort(a, 3, sizeof a[0], compare); spin();
if (!fork()) { twice(); _exit(0); } wait(0); return a[0] - 1; }' libprofiled.so -Wl,-rpath,. -Wl,-z,lazy
program profiles '#include <dlfcn.h>
int main(void) { void *own = dlopen("libprofiled.so", RTLD_LAZY); ((void (*)(int))dlsym(own, "thrice"))(2); return dlclose(own); }' \
    -Wl,-rpath,. -Wl,-z,lazy
watching='#include <link.h>
unsigned la_version(unsigned version) { return version; }
unsigned la_objopen(struct link_map *map, Lmid_t namespace, uintptr_t *cookie) { return LA_FLG_BINDTO | LA_FLG_BINDFROM; }
uintptr_t la_symbind64(Elf64_Sym *symbol, unsigned index, uintptr_t *from, uintptr_t *to, unsigned *flags, const char *name)
{ return symbol->st_value; }'
library libbindings.so "#define _GNU_SOURCE
$watching"
library libcalls.so "#define _GNU_SOURCE
$watching
Elf64_Addr la_x86_64_gnu_pltenter(Elf64_Sym *symbol, unsigned index, uintptr_t *from, uintptr_t *to, La_x86_64_regs *registers,
    unsigned *flags, const char *name, long *frame) { return symbol->st_value; }"
