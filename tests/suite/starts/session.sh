# A shell session that uses many programs of the system. What it prints is the same in every run.
exec 2>&1
has() { command -v "$1" >/dev/null; }

echo "== text"
seq 1 3000 >numbers
sort -R numbers | sort -n | cmp - numbers && echo sorted
grep -c 7 numbers | tee count | sed 's/^/count /'
awk '{ s += $1 } END { print s }' numbers
sha256sum numbers | cut -c1-16
paste -sd+ numbers | bc 2>/dev/null || echo "no bc"
find /etc -maxdepth 1 -name 'pass*' | sort
xargs -P 2 -n 500 echo <numbers | wc -l
diff <(head -5 numbers) <(tail -5 numbers) | wc -l

echo "== archives"
mkdir -p tree/a/b && cp numbers tree/a && ln -s ../a tree/a/b/link
tar -cf tree.tar tree && tar -tf tree.tar
for tool in gzip bzip2 xz zstd; do
    has $tool && tar -cf - tree | $tool -c | $tool -dc | tar -tf - | wc -l
done

echo "== shell"
for i in 1 2 3 4 5 6 7 8; do (exit $i); echo -n "$? "; done; echo
for i in $(seq 1 20); do /bin/true & done; wait; echo waited
sleep 100 & kill $!; wait $!; echo "killed $?"
{ sh -c 'kill -SEGV $$'; } 2>/dev/null; echo "crashed $?"
./nothing; echo "missing $?"
echo 'int x;' >data; chmod 644 data; ./data; echo "not executable $?"
printf '#!/bin/sh\necho "script $0 $1"\n' >script && chmod +x script && ./script argument
env -i /usr/bin/env | grep -v '^GLIBC_TUNABLES' ; id -u >/dev/null && echo identified
su_check=$(test -u /bin/su && echo setuid); echo "su $su_check"

echo "== languages"
has perl && perl -MList::Util=sum -MPOSIX=strftime -e 'print sum(1..100), " ", strftime("%Y", gmtime 0), "\n"; system("echo from perl"); fork or exit 3; wait; print $? >> 8, "\n"'
has /usr/bin/python3 && /usr/bin/python3 -c '
import subprocess, sys, threading, multiprocessing, ctypes, socket, os
print(subprocess.run(["echo", "from python"], capture_output=True, text=True).stdout, end="")
print(subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout, end="")
threads = [threading.Thread(target=lambda: None) for _ in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
print(socket.gethostbyname("127.0.0.1"), ctypes.CDLL("libc.so.6").abs(-3))
a, b = socket.socketpair()
if os.fork() == 0: a.send(b"child"); os._exit(0)
print(b.recv(10), os.wait()[1])
'
has node && node -e 'require("child_process").execSync("echo from node", {stdio: "inherit"}); console.log([1,2,3].map(x => x * 2).join())'
if has javac && has java; then
    echo 'public class Hello { public static void main(String[] a) throws Exception { Thread t = new Thread(() -> System.out.println("from java")); t.start(); t.join(); } }' >Hello.java
    javac Hello.java && java -Xshare:auto Hello
fi

echo "== compilers"
if has gcc; then
    printf '#include <stdio.h>\n#include <stdlib.h>\nint f(void);\nint main(void) { return printf("compiled %%d\\n", f()) < 0; }\n' >main.c
    printf 'int f(void) { return 42; }\n' >f.c
    gcc -shared -fPIC -o libf.so f.c && gcc -o main main.c ./libf.so && ./main
    gcc -O2 -flto -o lto main.c f.c && ./lto
    ldd ./main | sed 's/(0x[0-9a-f]*)//' | grep -c '=>'
    nm -D libf.so | grep -c ' T f'
    objdump -d main | grep -c main
    readelf -h main | grep Type
fi
if has g++; then
    printf '#include <iostream>\n#include <stdexcept>\n#include <thread>\nint main() { try { std::stoi("x"); } catch (std::invalid_argument &e) { std::thread([] { std::cout << "caught" << std::endl; }).join(); } }\n' >main.cc
    g++ -o mainxx main.cc -pthread && ./mainxx
fi
if has make; then
    printf 'all: a b\n\t@echo made $^\na b:\n\t@echo make $@\n' >Makefile
    make -j1 --no-print-directory
fi

echo "== tools"
if has git; then
    export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z'
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
    git -c init.defaultBranch=main init -q repository && cp numbers repository/ && cd repository
    git add . && git commit -qm one && git log --oneline && git fsck 2>&1 && git gc -q && git status -s && cd ..
    git clone -q repository clone && git -C clone log --oneline && git -C clone ls-files && git clone -q "file://$PWD/repository" other && git -C other rev-parse HEAD
fi
has openssl && openssl rand -hex 8 | wc -c && openssl genrsa 1024 2>/dev/null | head -1
has curl && curl -s file:///etc/passwd | head -1
has strace && strace -c -o /dev/null true && echo traced
if has gdb && has gcc; then
    cat >debugged.c <<'END'
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
__thread int local = 7;
void stop_here(void) { errno = 5; puts("stopping"); }
void *thread(void *arg) { local = 9; stop_here(); return 0; }
int main(void) { pthread_t id; dlopen("libm.so.6", RTLD_NOW); pthread_create(&id, 0, thread, 0); pthread_join(id, 0); return 0; }
END
    gcc -g -pthread -o debugged debugged.c
    gdb -nx -batch -ex 'break stop_here' -ex run -ex 'bt 2' -ex 'print local' -ex 'info sharedlibrary' -ex next -ex finish -ex 'print errno' \
        -ex 'thread 1' -ex 'print local' -ex 'thread find 1' ./debugged 2>&1 |
        grep -E '^#[01] .*(stop_here|thread)|^\$|lib[cm]\.so' | sed 's/0x[0-9a-f]*/ADDRESS/g'
fi
has dpkg && dpkg -s bash | head -1
has apt-cache && apt-cache policy bash >/dev/null && echo apt
getent passwd root; getent services ssh | wc -l
date -u -d @0; TZ=Europe/Berlin date -d @0; locale | head -1
iconv -f UTF-8 -t UTF-16 <numbers | iconv -f UTF-16 -t UTF-8 | cmp - numbers && echo converted
has vim && vim -es -u NONE -c '%s/1/one/' -c 'w! edited' -c 'q' numbers; head -1 edited 2>/dev/null
has sqlite3 && sqlite3 :memory: 'select sqlite_version() is not null'
has ssh-keygen && ssh-keygen -q -t ed25519 -N '' -C '' -f key && ssh-keygen -y -f key | cut -d' ' -f1
has locale && locale -a | wc -l; has iconv && iconv -l | wc -l
has systemctl && systemctl --version | head -1
has man && printf '.TH T 1\n.SH NAME\nt \\- a page\n' >page.1 && MAN_DISABLE_SECCOMP=1 man -P cat -l page.1 | grep -c page
has less && printf 'paged\n' | less -EX | cat
has strings && strings -n 8 /bin/true | wc -l
has rsync && rsync -a tree/ copy/ && diff -r tree/a/numbers copy/a/numbers && echo copied
has cpio && find tree -type f | cpio -o --quiet -H newc | cpio -t --quiet
has zip && has unzip && zip -qr tree.zip tree && unzip -tq tree.zip
has cmake && cmake --version | head -1
has ldconfig && mkdir -p cache && cp /lib/x86_64-linux-gnu/libz.so.1 cache/ 2>/dev/null && ldconfig -n -v cache 2>/dev/null | grep -c libz
for file in /bin/ls /usr/bin/git /usr/bin/python3 /usr/bin/gdb; do
    [ -e $file ] && { ldd $file; ldd -v $file; ldd -u -r $file; } | sed 's/(0x[0-9a-f]*)//'
done

echo "== jobs"
cat >jobs.sh <<'END'
set -m
sleep 30 & first=$!; sleep 31 & second=$!
jobs -r | wc -l; kill $first; wait $first; echo "first $?"; jobs -r | wc -l
kill -STOP $second; kill -CONT $second; kill $second; wait $second; echo "second $?"
END
bash jobs.sh
yes | head -20000 | (trap '' PIPE; wc -l); mkfifo pipe && (cat pipe | tr a-z A-Z & echo through >pipe; wait)
coproc cat; echo around >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; echo "$line"; kill $COPROC_PID; wait
printf '%s\0' a b c | xargs -0 -I{} sh -c 'echo "item {}"'
expr 6 \* 7; od -An -tx1 <<<x; echo 'a b' | { read -r x y; echo "$y"; }; mktemp -u x.XXXX | wc -c

echo "== users"
if [ "$(id -u)" = 0 ]; then
    has runuser && runuser -u nobody -- id -un
    has su && su -s /bin/sh nobody -c 'id -un; echo "substituted $1"' sh argument
    has setpriv && setpriv --reuid=65534 --clear-groups id -un
    has chroot && chroot / /bin/echo 'root changed'
fi

echo "== packages"
if has dpkg-deb && has dpkg && has gcc; then
    mkdir -p package/DEBIAN package/usr/bin package/usr/lib/ldseal-greeting root/var/lib/dpkg/{info,updates} && touch root/var/lib/dpkg/{status,available}
    printf 'Package: ldseal-greeting\nVersion: 1.0\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: says hello\n' >package/DEBIAN/control
    printf '#!/bin/sh\nset -e\necho "postinst $1"\nmkdir -p "$DPKG_ROOT/etc"\necho /usr/lib/ldseal-greeting >"$DPKG_ROOT/etc/ld.so.conf"\nldconfig -r "$DPKG_ROOT"\nldconfig -r "$DPKG_ROOT" -p | grep -c libf\n' >package/DEBIAN/postinst
    printf '#!/usr/bin/perl\nprint "prerm $ARGV[0]\\n";\n' >package/DEBIAN/prerm
    chmod 755 package/DEBIAN/postinst package/DEBIAN/prerm
    cp main package/usr/bin/ldseal-greeting && cp libf.so package/usr/lib/ldseal-greeting/
    dpkg-deb --root-owner-group -Zxz --build package greeting.deb && dpkg-deb -c greeting.deb | awk '{ print $1, $6 }' && dpkg-deb -f greeting.deb Version
    at_root="--root=$PWD/root --force-not-root --force-script-chrootless --force-architecture --log=/dev/null"
    has apt-get && apt-get -q -s install ./greeting.deb 2>&1 | grep -E '^(Inst|Conf)'
    dpkg $at_root -i greeting.deb; echo "installed $?"
    dpkg $at_root -i greeting.deb; echo "installed again $?"
    LD_LIBRARY_PATH=root/usr/lib/ldseal-greeting root/usr/bin/ldseal-greeting
    dpkg $at_root -l ldseal-greeting | tail -1; dpkg $at_root -L ldseal-greeting
    dpkg $at_root --verify ldseal-greeting; dpkg $at_root -r ldseal-greeting; echo "removed $?"; ls root/usr/bin 2>&1
fi
timeout 0.1 sleep 5; echo "timed out $?"
nice -n 5 true && nohup true && setsid true && stdbuf -o0 echo unbuffered
echo "the session ends"
