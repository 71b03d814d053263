//! What the listed programs work on, made once for each run of the tests.

use crate::cache;
use conformance::suite;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The folder with the inputs.
///
/// # Errors
/// It could not be made.
pub fn folder() -> Result<&'static Path, String> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER.get_or_init(make).as_deref().map_err(Clone::clone)
}

fn make() -> Result<PathBuf, String> {
    let folder = suite::scratch(&cache(), "inputs")?;
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut numbers = String::new();
    for i in 0..5000u64 {
        let _ = writeln!(numbers, "{} line {i} of the input", i * 7919 % 5003);
    }
    write("numbers", &numbers)?;
    write("script.sh", SCRIPT)?;
    write("program.c", "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { return printf(\"%f\\n\", sqrt(c + 1)) < 0; }\n")?;
    write("program.cc", "#include <iostream>\n#include <map>\nint main() { std::map<int, int> m{{1, 2}}; std::cout << m[1] << std::endl; }\n")?;
    write("threads.py", THREADS)?;
    let nested = folder.join("tree/a/b");
    fs::create_dir_all(&nested).map_err(|e| format!("{}: {e}", nested.display()))?;
    write("tree/a/one.txt", "one\n")?;
    write("tree/a/b/two.txt", &numbers)?;
    for (name, words) in [
        ("archive.tar", ["tar", "-cf", "archive.tar", "tree"].as_slice()),
        ("numbers.gz", &["gzip", "-nk", "numbers"]),
        ("numbers.xz", &["xz", "-k", "numbers"]),
        ("repository", &["sh", "-c", REPOSITORY]),
    ] {
        make_with(&folder, name, words)?;
    }
    Ok(folder)
}

/// A tool that is missing leaves its input out, and the programs that want it are skipped for the tool's sake.
fn make_with(folder: &Path, name: &str, words: &[&str]) -> Result<(), String> {
    if conformance::requirement::find_command(words[0]).is_none() {
        return Ok(());
    }
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("making {name}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(e) => Err(format!("making {name}: {e}")),
    }
}

const REPOSITORY: &str = r#"
command -v git >/dev/null || exit 0
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z'
git init -q repository && cd repository &&
git config user.name Somebody && git config user.email somebody@example.org &&
for n in 1 2 3 4 5; do seq 1 "$n"00 >file && git add file && git commit -qm "Commit $n" || exit 1; done
"#;

const SCRIPT: &str = r#"
set -e
echo "arguments: $# $*"
seq 1 200 | grep 7 | sort -rn | head -5 | while read -r n; do echo "piped $n"; done
total=$( (for i in 1 2 3; do (echo $((i * i))); done) | awk '{ s += $1 } END { print s }')
echo "total $total"
diff <(printf 'a\nb\n') <(printf 'a\nc\n') || echo "differ: $?"
trap 'echo trapped' USR1
kill -USR1 $$
cat <<END | tr a-z A-Z
here document
END
(exit 5) || echo "subshell status $?"
sleep 0.01 & wait $!
echo "background done $?"
[[ abc =~ ^a(.)c$ ]] && echo "match ${BASH_REMATCH[1]}"
"#;

const THREADS: &str = r#"
import ctypes, decimal, hashlib, json, multiprocessing, queue, re, sqlite3, ssl, threading, zlib
def square(n): return n * n
if __name__ == "__main__":
    print(ssl.OPENSSL_VERSION, sqlite3.sqlite_version)
    db = sqlite3.connect(":memory:")
    db.execute("create table t (n integer)")
    db.executemany("insert into t values (?)", [(i,) for i in range(100)])
    print(db.execute("select sum(n) from t").fetchone())
    print(decimal.Decimal(2).sqrt(), ctypes.CDLL("libc.so.6").abs(-5), ctypes.CDLL(None).strlen(b"four"))
    libm = ctypes.CDLL("libm.so.6"); libm.cos.restype = ctypes.c_double; libm.cos.argtypes = [ctypes.c_double]
    print(libm.cos(0.0), zlib.crc32(b"x"), hashlib.sha256(b"x").hexdigest())
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: 0)
    print(callback(None, None))
    results = queue.Queue()
    threads = [threading.Thread(target=lambda i=i: results.put(sum(range(i * 1000)))) for i in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print(sorted(results.get() for _ in threads))
    with multiprocessing.Pool(2) as pool: print(pool.map(square, range(10)))
    try: ctypes.CDLL("libnothing.so")
    except OSError as e: print(e)
"#;
