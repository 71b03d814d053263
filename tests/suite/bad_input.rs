//! Files that no linker would write, given to the loader as program, as library and by LD_PRELOAD.
//!
//! What the system's loader refuses cleanly is refused in the same words, what it accepts is accepted, and what it crashes on
//! is refused with one line: `conformance::hostile` has the rules. `BAD_INPUT_SURVEY=1` prints what the system's loader does.

use conformance::attack::maps;
use conformance::attack::trace::{End, Tracee};
use conformance::check::Bench;
use conformance::hostile;
use conformance::hostile::judge::{told, Deed};
use conformance::hostile::stage::{self, Role, Sound};
use conformance::loader::SYSTEM;
use conformance::process::{self, Ending};
use conformance::{suite, Level, Loader};
use libtest_mimic::Trial;
use object::{Object, ObjectSymbol};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

/// What the checks share.
struct Shared {
    bench: Bench,
    sound: Sound,
    /// Where `__tls_get_addr` lies in the loader.
    tls_get_addr: Range<u64>,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("bad_input: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad_input");
    let sound = Sound::build(&suite::scratch(&cache, "sound")?)?;
    let tls_get_addr = range_of(&loader.interpreter, b"__tls_get_addr")?;
    let bench = Bench::new(Loader::system(), loader, &Level::ALL, cache.clone());
    let bench = Arc::new(Shared { bench, sound, tls_get_addr });
    if std::env::var_os("BAD_INPUT_SURVEY").is_some() {
        survey(&bench)?;
    }
    let mut trials = Vec::new();
    for case in hostile::cases() {
        for &role in case.roles {
            let bench = Arc::clone(&bench);
            let name = format!("{} {}", case.name, role.word());
            let check = move || {
                let verdict = hostile::check::check(&case, role, &bench.sound, &bench.bench);
                suite::completion(verdict, "what makes no sense is refused with one line", None)
            };
            trials.push(Trial::ignorable_test(name, check));
        }
    }
    for role in Role::ALL {
        for part in 0..RANDOM_PARTS {
            let bench = Arc::clone(&bench);
            trials.push(Trial::test(format!("random/{part} {}", role.word()), move || Ok(bench.random(part, role)?)));
        }
    }
    Ok(trials)
}

/// Trials of files spoiled by chance for each role, and files for each of these trials; `BAD_INPUT_RANDOM` sets another number.
const RANDOM_PARTS: u64 = 4;
const RANDOM_FILES: u64 = 100;

impl Shared {
    /// Whatever a file says, it is not the loader that faults, and nothing takes forever.
    fn random(&self, part: u64, role: Role) -> Result<(), String> {
        let files = std::env::var("BAD_INPUT_RANDOM").ok().and_then(|n| n.parse().ok()).unwrap_or(RANDOM_FILES);
        let folder = suite::scratch(&self.bench.cache, &format!("random.{part}.{}", role.word()))?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        self.sound.sound(role, &folder).map_err(failed)?;
        let mut report = Vec::new();
        for seed in part * files..(part + 1) * files {
            self.sound.stage_random(seed, role, &folder).map_err(failed)?;
            let mut command = stage::command(&self.bench.tested.interpreter, role, &folder, 1 + (seed % 2) as u8);
            let outcome = process::capture(&mut command, b"", stage::LIMIT).map_err(failed)?;
            let wrong = match outcome.ending {
                Ending::Exit(_) => continue,
                Ending::TimedOut => self.is_slow(role, &folder).map_err(failed)?,
                Ending::Signal(_) => self.fault_of_loader(command).map_err(failed)?,
            };
            if let Some(wrong) = wrong {
                let kept = folder.join(format!("{}.{seed}", role.victim()));
                std::fs::copy(folder.join(role.victim()), &kept).map_err(failed)?;
                report.push(format!("{}: {wrong}", kept.display()));
            }
        }
        match report.is_empty() {
            true => Ok(()),
            false => Err(report.join("\n")),
        }
    }

    /// What takes as long under the system's loader is no fault of ours: gigabytes of thread-local storage, for instance.
    fn is_slow(&self, role: Role, folder: &Path) -> std::io::Result<Option<String>> {
        let outcome = process::capture(&mut stage::command(Path::new(SYSTEM), role, folder, 1), b"", stage::LIMIT)?;
        Ok((outcome.ending != Ending::TimedOut).then(|| "it takes forever".into()))
    }

    /// Where it faults, if that is in the loader.
    ///
    /// Two faults there are none of the loader's: `__tls_get_addr` called with garbage, and the call of a constructor or destructor
    /// whose address the file gives.
    fn fault_of_loader(&self, mut command: Command) -> std::io::Result<Option<String>> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut tracee = Tracee::start(&mut command)?;
        let End::Fault { signal, code, address } = tracee.run()? else { return Ok(None) };
        let regions = maps::of_process(tracee.pid())?;
        let own = |region: &&maps::Region| Path::new(&region.name) == self.bench.tested.interpreter;
        let base = regions.iter().find(own).map_or(0, |region| region.start);
        let region = regions.iter().find(|region| (region.start..region.end).contains(&address));
        if region.filter(own).is_none() || self.tls_get_addr.contains(&(address - base)) {
            return Ok(None);
        }
        let mut instruction = [0; 3];
        File::open(format!("/proc/{}/mem", tracee.pid()))?.read_exact_at(&mut instruction, address)?;
        let calls = code == NO_ADDRESS && is_indirect_branch(&instruction);
        Ok((!calls).then(|| format!("signal {signal} in the loader at {:#x}", address - base)))
    }
}

/// `si_code` of a fault that has no address of data (`SI_KERNEL`), as when a call goes where no address can be. One to an address that only
/// isn't mapped faults there, outside the loader.
const NO_ADDRESS: i32 = 0x80;

/// Whether this is a `call` or `jmp` to what a register or memory says: opcode 0xff, /2 and /4, with or without a REX prefix.
fn is_indirect_branch(instruction: &[u8; 3]) -> bool {
    let (opcode, operand) = match *instruction {
        [0x40..=0x4f, opcode, operand] | [opcode, operand, _] => (opcode, operand),
    };
    opcode == 0xff && matches!(operand >> 3 & 7, 2 | 4)
}

/// Where a dynamic symbol of a file lies, as link-time addresses.
fn range_of(file: &Path, name: &[u8]) -> Result<Range<u64>, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let parsed = object::File::parse(bytes.as_slice()).map_err(|e| format!("{}: {e}", file.display()))?;
    let symbol = parsed.dynamic_symbols().find(|symbol| symbol.name_bytes() == Ok(name));
    let symbol = symbol.ok_or_else(|| format!("{} lacks {}", file.display(), String::from_utf8_lossy(name)))?;
    Ok(symbol.address()..symbol.address() + symbol.size())
}

/// Prints what the system's loader does with each case.
fn survey(shared: &Shared) -> Result<(), String> {
    for case in hostile::cases() {
        for &role in case.roles {
            let folder = suite::scratch(&shared.bench.cache, "survey")?;
            shared.sound.stage(&case, role, &folder).map_err(|e| e.to_string())?;
            let system = stage::start(Path::new(SYSTEM), &case, role, &folder, 1).map_err(|e| e.to_string())?;
            let deed = Deed::of(&system, role, Sound::output(role));
            println!("{:<45} {:<8} {:?} {}", case.name, role.word(), case.freedom, told(&deed, &system));
        }
    }
    Ok(())
}
