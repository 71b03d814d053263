//! Programs that live on plug-ins, with all that they start: interpreters with extension modules, servers with modules and extensions,
//! virtual machines with native libraries, compilers with plug-ins.
//!
//! In a mount namespace of its own, the interpreter is mounted over the system's loader, and a script of `sessions/` runs there: every
//! process in it is started by `ld-seal.so`. The same script without the mount says what must come out.

use conformance::compare::difference;
use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending, Outcome};
use conformance::{requirement, suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A script, and what it needs.
struct Session {
    name: &'static str,
    script: &'static str,
    /// Commands and files.
    needs: &'static [&'static str],
    /// What `sh` must find to be so, or the reason why the session is left out.
    asks: Option<(&'static str, &'static str)>,
    levels: &'static [Level],
    /// A text that it must print: without it the comparison shows nothing.
    expected: &'static str,
}

const fn session(name: &'static str, script: &'static str, expected: &'static str) -> Session {
    Session { name, script, needs: &[], asks: None, levels: &Level::ALL, expected }
}

static SESSIONS: &[Session] = &[
    Session {
        needs: &["/usr/bin/python3"],
        asks: Some(("/usr/bin/python3 -c 'import test.test_ctypes'", "CPython's tests are not installed")),
        // The writable data is what these could notice.
        levels: &[Level(1), Level(2)],
        ..session("CPython's tests", include_str!("sessions/cpython.sh"), "test_shared_memory_across_processes")
    },
    Session { needs: &["python3"], ..session("python with numpy", include_str!("sessions/numpy.sh"), "True") },
    Session {
        needs: &["perl"],
        asks: Some(("perl -MDBD::SQLite -e 1", "perl's DBD::SQLite is not installed")),
        ..session("perl with DBI", include_str!("sessions/perl.sh"), "1275 50 row9 42")
    },
    Session { needs: &["git"], ..session("git with its helpers", include_str!("sessions/git.sh"), "Commit 3") },
    Session { needs: &["gdb"], ..session("gdb with its python", include_str!("sessions/gdb.sh"), "[42, 3]") },
    Session {
        needs: &["nginx", "curl", "/usr/lib/nginx/modules/ngx_http_echo_module.so"],
        ..session("nginx with modules", include_str!("sessions/nginx.sh"), "     20 echoed")
    },
    Session {
        needs: &["psql", "runuser"],
        asks: Some((
            "ls /usr/lib/postgresql/*/lib/pgcrypto.so && grep -q ' 4294967295$' /proc/self/uid_map",
            POSTGRESQL,
        )),
        ..session("PostgreSQL with extensions", include_str!("sessions/postgresql.sh"), "5000050000")
    },
    Session { needs: &["node", "gcc"], ..session("node with an addon", include_str!("sessions/node.sh"), "worker 10") },
    Session {
        needs: &["java", "javac", "gcc"],
        ..session("java with a library", include_str!("sessions/java.sh"), "499500")
    },
    Session {
        needs: &["gcc", "g++"],
        asks: Some((
            "test -e $(gcc -print-file-name=plugin)/include/gcc-plugin.h",
            "gcc's plug-in headers are missing",
        )),
        ..session("gcc with plug-ins", include_str!("sessions/gcc.sh"), "function two")
    },
];

const POSTGRESQL: &str = "PostgreSQL's extensions are not installed, or there is no other user than root";

/// One run of a script. The longest is CPython's tests.
const LIMIT: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("plugins: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials(loader: &Loader) -> Vec<Trial> {
    let mut trials = Vec::new();
    for session in SESSIONS {
        let shared = Arc::new(Shared { session, loader: loader.clone(), expected: OnceLock::new() });
        for &level in session.levels {
            let shared = Arc::clone(&shared);
            trials.push(Trial::ignorable_test(format!("{} {level}", session.name), move || shared.check(level)));
        }
    }
    trials
}

/// A session and what it says under the system's loader, found out once.
struct Shared {
    session: &'static Session,
    loader: Loader,
    expected: OnceLock<Result<Outcome, String>>,
}

impl Shared {
    fn check(&self, level: Level) -> Result<Completion, Failed> {
        if let Some(reason) = self.session.missing() {
            return Ok(Completion::ignored_with(reason));
        }
        let Some(namespace) = requirement::mount_namespace() else {
            return Ok(Completion::ignored_with("neither root nor a user namespace: nothing can be mounted"));
        };
        let mut environment = Vec::new();
        if self.session.name.contains("numpy") {
            match numpy() {
                Ok((python, path)) => environment = vec![("PYTHON", python), ("NUMPY", path)],
                Err(reason) => return Ok(Completion::ignored_with(reason)),
            }
        }
        let run = |mounted: &Path, side: &str, level: Level| {
            self.session.run(namespace, mounted, side, level, &environment).map_err(|e| e.to_string())
        };
        let expected = self.expected.get_or_init(|| run(Path::new(SYSTEM), "system", Level(0))).as_ref()?;
        let text = String::from_utf8_lossy(&expected.stdout);
        if !text.contains(self.session.expected) {
            let errors = String::from_utf8_lossy(&expected.stderr);
            return Err(format!("under the system's loader: {}\n{text}\n{errors}", expected.ending).into());
        }
        match difference(expected, &run(&self.loader.interpreter, &format!("tested-{}", level.0), level)?) {
            Some(difference) => Err(difference.into()),
            None => Ok(Completion::Completed),
        }
    }
}

impl Session {
    fn missing(&self) -> Option<String> {
        let needs = ["bash", "unshare", "mount"].iter().chain(self.needs).find_map(|need| requirement::unmet(need));
        needs.or_else(|| {
            let (question, reason) = self.asks?;
            let answer = capture(Command::new("sh").args(["-c", question]), b"", LIMIT);
            (!answer.is_ok_and(|a| a.ending == Ending::Exit(0))).then(|| reason.to_string())
        })
    }

    /// Runs the script in a fresh folder of the same name for every side, so that nothing it prints differs for that.
    fn run(
        &self,
        namespace: &[&str],
        mounted: &Path,
        side: &str,
        level: Level,
        environment: &[(&str, String)],
    ) -> io::Result<Outcome> {
        let name = format!("{}/{side}", self.name.replace([' ', '\''], "-"));
        let folder = suite::scratch(&cache(), &name).map_err(io::Error::other)?;
        let script = folder.join("session.sh");
        fs::write(&script, self.script)?;
        // Short, for names of sockets, and for everybody to enter.
        let outside = tempfolder()?;
        let mut command = Command::new("unshare");
        command.args(namespace).args(["bash", "-c", ENTER, "bash"]).arg(mounted).arg(fs::canonicalize(SYSTEM)?);
        command.args([&outside, &script]).current_dir(&folder).env_clear().envs(environment.iter().cloned());
        command.envs([("HOME", "/nonexistent"), ("LC_ALL", "C"), ("SHELL", "/bin/sh")]);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("SOCKETS", &outside);
        command.env("ADDON", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/plugins/addon.c"));
        command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={}", level.0));
        let outcome = capture(&mut command, b"", LIMIT)?;
        fs::remove_dir_all(&outside)?;
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*outside.to_string_lossy(), "{folder}").into_bytes();
        Ok(Outcome { stdout: shown(&outcome.stdout), stderr: shown(&outcome.stderr), ..outcome })
    }
}

/// Mounts the interpreter `$1` over the loader `$2` and becomes a shell that was started by it, which runs `$4` in the folder `$3`.
const ENTER: &str =
    r#"mount --bind "$(readlink -f "$1")" "$2" && mkdir -p "$3/w" && chmod 777 "$3" && cd "$3/w" && exec bash "$4""#;

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins")
}

/// A fresh folder with a short name.
fn tempfolder() -> io::Result<PathBuf> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("ldseal-{}-{number:03}", std::process::id()));
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// The python of the PATH, and a folder into which it has installed numpy from its package index; installed once.
fn numpy() -> Result<(String, String), String> {
    static INSTALLED: OnceLock<Result<(String, String), String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let run = |words: &[&str]| {
                let output = capture(Command::new("python3").args(words), b"", LIMIT).map_err(|e| e.to_string())?;
                match output.ending {
                    Ending::Exit(0) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
                    _ => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_string()),
                }
            };
            let python = run(&["-c", "import sys; print(sys.executable)"])?;
            let folder = cache().join("numpy");
            let path = folder.to_string_lossy().into_owned();
            if !folder.join("numpy").exists() {
                let words =
                    ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", &path];
                run(&[&words[..], &["numpy"]].concat()).map_err(|e| format!("numpy can't be installed: {e}"))?;
            }
            Ok((python, path))
        })
        .clone()
}
