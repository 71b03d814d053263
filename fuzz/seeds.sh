#!/bin/sh
# Fills corpus/ with seeds: those of seeds/ and files of this system. Needs objcopy (binutils); everything it writes is below 1 MB.
set -eu
cd "$(dirname "$0")"
for target in ld_so_cache gnu_property dst search_path tunables glob elf_headers elf_dynamic elf_symbols; do
    mkdir -p "corpus/$target"
done

# Caches with glibc-hwcaps and legacy capabilities, which few systems have.
cp seeds/ld_so_cache-new corpus/ld_so_cache/new
cp seeds/ld_so_cache-behind-old corpus/ld_so_cache/behind-old
[ -r /etc/ld.so.cache ] && cp /etc/ld.so.cache corpus/ld_so_cache/system

for file in /bin/true /bin/cat /usr/lib/*/libdl.so.2 /usr/lib/*/libanl.so.1 /usr/lib/*/libgcc_s.so.1; do
    [ -r "$file" ] || continue
    name=$(basename "$file")
    for section in note.gnu.property:gnu_property dynamic:elf_dynamic; do
        objcopy --dump-section ".${section%:*}=corpus/${section#*:}/$name" "$file" /dev/null 2>&1 | grep -v "can't dump" || true
    done
    cp "$file" "corpus/elf_headers/$name"
    cp "$file" "corpus/elf_symbols/$name"
done

printf '\000/opt/app/bin\000$ORIGIN/../$LIB:${PLATFORM}' > corpus/dst/plain
printf '\030/usr/lib/app\000${ORIGIN}/x' > corpus/dst/secure
printf '\077/a:/b;rel/::\000$ORIGIN/../lib:/c//\000mine:x86-64-v2\000liba.so libb.so:libc.so # no' > corpus/search_path/all
printf 'glibc.rtld.seal=2:ldseal.data=auto:ldseal.vdso=0x0:ldseal.exclude=*/lib[a-z]*.so' > corpus/tunables/all
printf '*/lib[!a-c]*.so.?\000/usr/lib/libfoo.so.1' > corpus/glob/all
