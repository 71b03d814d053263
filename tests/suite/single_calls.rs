//! Each single system call of a start-up refused in turn: the loader gives up with one line, or manages without, but never crashes, hangs
//! or goes on with half a program.

use conformance::attack::trace::{Stop, Tracee};
use conformance::hostile::stage::{self, Role, Sound};
use conformance::process::{Ending, Outcome};
use conformance::{suite, Loader};
use libtest_mimic::Trial;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

/// What calls are refused with: the usual failure of a machine in need, and the answer of a kernel or filter without the call.
const ERRORS: [(i32, &str); 2] = [(12, "ENOMEM"), (38, "ENOSYS")];

const WRITE: u64 = 1;
const EXIT: [u64; 2] = [60, 231];

struct Bench {
    loader: Loader,
    cache: PathBuf,
    sound: Sound,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("single_calls: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("single_calls");
    let sound = Sound::build(&suite::scratch(&cache, "sound")?)?;
    let bench = Arc::new(Bench { loader, cache, sound });
    let mut trials = Vec::new();
    for level in 0..=2 {
        for role in [Role::Needed, Role::Preload] {
            for (errno, name) in ERRORS {
                let bench = Arc::clone(&bench);
                let name = format!("{name} level {level} {}", role.word());
                trials.push(Trial::test(name.clone(), move || Ok(bench.check(&name, level, role, errno)?)));
            }
        }
    }
    Ok(trials)
}

/// What was refused, and what came of it.
struct Refused {
    number: u64,
    outcome: Outcome,
}

impl Bench {
    fn check(&self, name: &str, level: u8, role: Role, errno: i32) -> Result<(), String> {
        let folder = suite::scratch(&self.cache, &name.replace(' ', "-"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        self.sound.sound(role, &folder).map_err(failed)?;
        let mut report = Vec::new();
        let mut which = 0;
        while let Some(refused) = self.refuse(level, role, errno, which, &folder).map_err(failed)? {
            if let Some(complaint) = complaint(&refused.outcome, role) {
                report.push(format!("call {which}, number {}: {complaint}", refused.number));
            }
            which += 1;
        }
        match (which > 20, report.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(report.join("\n")),
            (false, _) => Err(format!("only {which} calls before the first constructor")),
        }
    }

    /// Refuses call number `which` of those before the first constructor speaks. `None` if there are not so many.
    fn refuse(
        &self,
        level: u8,
        role: Role,
        errno: i32,
        which: usize,
        folder: &Path,
    ) -> std::io::Result<Option<Refused>> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));
        let mut command = stage::command(&self.loader.interpreter, role, folder, level);
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let mut tracee = Tracee::start(&mut command)?;
        let (mut calls, mut refused) = (0, None);
        let ending = loop {
            match tracee.resume()? {
                // Of a constructor, or of a loader that gives up.
                Stop::Enter { number: WRITE, .. } if refused.is_none() => return Ok(None),
                Stop::Enter { number, .. } if refused.is_none() && EXIT.contains(&number) => return Ok(None),
                Stop::Enter { number, .. } => {
                    if calls == which {
                        refused = Some(number);
                        tracee.refuse(errno)?;
                    }
                    calls += 1;
                }
                Stop::Leave(_) => {}
                Stop::Ended(ending) => break ending,
            }
        };
        let outcome = Outcome { ending, stdout: fs::read(stdout)?, stderr: fs::read(stderr)? };
        Ok(refused.map(|number| Refused { number, outcome }))
    }
}

/// What is wrong with an outcome: nothing if the program ran, without what could be left out, or if there is one line and nothing ran.
fn complaint(outcome: &Outcome, role: Role) -> Option<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let lines = stderr.lines().count();
    let whole = match role {
        Role::Main | Role::Needed => "constructor\nb\nmain 13\n",
        Role::Preload => "constructor\nplain\n",
    };
    let ignored = stdout == "plain\n" && stderr.starts_with("ERROR: ld.so: object '") && lines == 1;
    let lawful = match outcome.ending {
        Ending::Exit(0) => (stdout == whole && stderr.is_empty()) || (role == Role::Preload && ignored),
        Ending::Exit(127) => stdout.is_empty() && lines == 1 && stderr.ends_with('\n'),
        _ => false,
    };
    (!lawful).then(|| format!("{}, stdout {stdout:?}, stderr {stderr:?}", outcome.ending))
}
