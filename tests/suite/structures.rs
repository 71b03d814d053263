//! What libc, libthread_db and debuggers read of the loader is the same as under the system's loader, field by field.
//!
//! gdb runs `fixtures/glibc/structures.c` under both loaders, stops it, and `fixtures/glibc/structures.py` prints every field of
//! `_rtld_global`, `_rtld_global_ro`, all link maps, both threads' `struct pthread` and DTV, the list of TLS modules and
//! `_r_debug`. All of them must be equal but for those in [`DIFFERENCES`]; those in [`READ`] must have been compared.

use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending};
use conformance::{requirement, suite, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// What both values of a field that may differ must be.
type Must = Option<fn(&str) -> bool>;

const ANYTHING: Must = None;

fn positive(value: &str) -> bool {
    value.parse().is_ok_and(|number: u64| number > 0)
}

fn not_negative(value: &str) -> bool {
    value.parse::<u64>().is_ok()
}

/// The byte in front of a guard that string functions stop at.
fn guard(value: &str) -> bool {
    value.parse().is_ok_and(|number: u64| number > 0 && number.trailing_zeros() >= 8)
}

fn somewhere(value: &str) -> bool {
    value == "(memory)" || value == "(loader)"
}

/// An entry without a module, or none at all.
fn unused(value: &str) -> bool {
    value == "0" || value == "null" || value == "nothing"
}

fn unallocated(value: &str) -> bool {
    value == "null" || value == "-1"
}

/// Fields that may differ, what both values must be, and why they may. `*` stands for any text. The first match counts.
const DIFFERENCES: &[(&str, Must, &str)] = &[
    ("*.stack_guard", Some(guard), "random"),
    ("*.pointer_guard", Some(positive), "random"),
    (
        "pthread in *.rseq_area.cpu_id*",
        Some(not_negative),
        "written by the kernel: the processor that the thread runs on",
    ),
    ("pthread in *.rseq_area.pad", ANYTHING, "written by the kernel"),
    ("pthread in *.tid", Some(positive), "another process"),
    (
        "_rtld_global_ro._dl_x86_cpu_features.features[0].cpuid.ebx",
        ANYTHING,
        "holds the number of the processor that ran CPUID",
    ),
    (
        "_rtld_global_ro._dl_x86_cpu_features.features[0].cpuid_array[1]",
        ANYTHING,
        "holds the number of the processor that ran CPUID",
    ),
    ("_rtld_global._dl_rtld_map.*", ANYTHING, "the loader's own link map, which is elsewhere; libc goes by the list"),
    ("_rtld_global._dl_num_*relocations", ANYTHING, "statistics of the loader"),
    ("_rtld_global._dl_tls_static_optional", ANYTHING, "account book of the loader's dlopen"),
    (
        "_rtld_global._dl_all_dirs",
        Some(somewhere),
        "the loader's search path: libc compares it with _dl_init_all_dirs only",
    ),
    ("_rtld_global_ro._dl_init_all_dirs", Some(somewhere), "libc compares it with null and _dl_all_dirs only"),
    (
        "_rtld_global._dl_ns[0]._ns_main_searchlist",
        ANYTHING,
        "libc reads it when _ns_global_scope_alloc is not 0: it is always 0",
    ),
    (
        "_rtld_global_ro._dl_initial_searchlist.*",
        ANYTHING,
        "libc reads it when _ns_global_scope_alloc is not 0: it is always 0",
    ),
    ("_rtld_global_ro._dl_dlfcn_hook", ANYTHING, "by this libc's dlfcn functions reach the loader"),
    ("_rtld_global_ro._dl_dso_sort_algo", ANYTHING, "an option of the loader, which has one algorithm"),
    ("_rtld_global_ro._dl_platformlen", ANYTHING, "used by the loader's expansion of $PLATFORM only"),
    ("_rtld_global_ro._dl_profile_output", ANYTHING, "profiling of the loader's PLT"),
    ("_rtld_global_ro._dl_x86_hwcap_flags*", ANYTHING, "names for the loader's own messages"),
    ("_rtld_global_ro._dl_x86_platforms*", ANYTHING, "names for the loader's own messages"),
    ("map of *.l_versions", ANYTHING, "the loader's table of versions"),
    ("map of *.l_nversions", ANYTHING, "the loader's table of versions"),
    ("map of *.l_scope*", ANYTHING, "where the loader looks symbols up: libc hands it to the loader's function"),
    ("map of *.l_local_scope*", ANYTHING, "where the loader looks symbols up: libc hands it to the loader's function"),
    ("map of *.l_searchlist.*", ANYTHING, "where the loader looks symbols up"),
    ("map of *.l_symbolic_searchlist.*", ANYTHING, "where the loader looks symbols up"),
    ("map of *.l_lookup_cache.*", ANYTHING, "the loader's last look-up"),
    ("map of *.l_initfini", ANYTHING, "the loader's order of destructors; libc frees it when l_free_initfini is set"),
    ("map of libopened.so.l_free_initfini", ANYTHING, "there is no l_initfini to be freed"),
    ("map of *.l_rpath_dirs.*", ANYTHING, "the loader's search path"),
    ("map of *.l_runpath_dirs.*", ANYTHING, "the loader's search path"),
    ("map of *.l_ldnum", ANYTHING, "read by the loader only"),
    ("map of *.l_visited", ANYTHING, "scratch of the loader"),
    ("map of *.l_used", ANYTHING, "scratch of the loader's dlclose"),
    ("map of *.l_find_object_processed", ANYTHING, "scratch of the loader's _dl_find_object"),
    ("map of *.l_dt_relr_ref", ANYTHING, "scratch of the loader's check of versions"),
    ("map of *.l_property", ANYTHING, "scratch of the loader's check of GNU properties"),
    ("map of *.l_x86_isa_1_needed", ANYTHING, "scratch of the loader's check of GNU properties"),
    ("map of *.l_text_end", ANYTHING, "read by nobody; the loader does not round it up to pages"),
    ("map of *.l_relro_addr", ANYTHING, "the loader's own: pages instead of bytes"),
    ("map of *.l_relro_size", ANYTHING, "the loader's own: pages instead of bytes"),
    ("map of *.l_flags", ANYTHING, "read by the loader only"),
    ("map of *.l_serial", ANYTHING, "an order of loading in which the loader itself is the last instead of the first"),
    (
        "map of libopened.so.l_tls_offset",
        ANYTHING,
        "FORCED_DYNAMIC or NO_TLS_OFFSET: libthread_db reads the DTV in either case",
    ),
    ("map of linux-vdso.so.1.l_info[16]", ANYTHING, "DT_SYMBOLIC made of DF_SYMBOLIC, for the loader"),
    ("map of linux-vdso.so.1.l_info[24]", ANYTHING, "DT_BIND_NOW made of DF_BIND_NOW, for the loader"),
    ("map of linux-vdso.so.1.l_entry", ANYTHING, "read by the loader only"),
    ("map of linux-vdso.so.1.l_contiguous", ANYTHING, "the vDSO has one segment: both answers lead to the same"),
    ("map of *.l_origin", ANYTHING, "glibc finds it out when it is asked for"),
    ("map of (loader).l_*", ANYTHING, "another file"),
    ("modules.len", ANYTHING, "room for more modules"),
    ("modules[0].map", ANYTHING, "entry 0 is unused; glibc leaves a map in it at start-up"),
    ("modules[*", Some(unused), "room for more modules"),
    ("pthread in *.dtv[*", Some(unallocated), "elements of modules that do not exist: never allocated, so 0 or -1"),
];

/// Fields that libc.so.6 or libthread_db read: a comparison without one of them has not shown what this test is for.
const READ: &[&str] = &[
    "lists of threads",
    "_rtld_global._dl_ns[0]._ns_loaded",
    "_rtld_global._dl_ns[0]._ns_nloaded",
    "_rtld_global._dl_ns[0].libc_map",
    "_rtld_global._dl_nns",
    "_rtld_global._dl_load_lock.mutex.__data.__kind",
    "_rtld_global._dl_load_write_lock.mutex.__data.__kind",
    "_rtld_global._dl_load_adds",
    "_rtld_global._dl_profile_map",
    "_rtld_global._dl_tls_max_dtv_idx",
    "_rtld_global._dl_tls_generation",
    "_rtld_global._dl_initial_dtv",
    "_rtld_global._dl_stack_cache_actsize",
    "_rtld_global_ro._dl_debug_mask",
    "_rtld_global_ro._dl_platform",
    "_rtld_global_ro._dl_pagesize",
    "_rtld_global_ro._dl_minsigstacksize",
    "_rtld_global_ro._dl_clktck",
    "_rtld_global_ro._dl_fpu_control",
    "_rtld_global_ro._dl_hwcap",
    "_rtld_global_ro._dl_hwcap2",
    "_rtld_global_ro._dl_auxv",
    "_rtld_global_ro._dl_x86_cpu_features.isa_1",
    "_rtld_global_ro._dl_x86_cpu_features.basic.kind",
    "_rtld_global_ro._dl_x86_cpu_features.preferred[0]",
    "_rtld_global_ro._dl_x86_cpu_features.xsave_state_size",
    "_rtld_global_ro._dl_x86_cpu_features.data_cache_size",
    "_rtld_global_ro._dl_x86_cpu_features.shared_cache_size",
    "_rtld_global_ro._dl_x86_cpu_features.non_temporal_threshold",
    "_rtld_global_ro._dl_x86_cpu_features.rep_movsb_threshold",
    "_rtld_global_ro._dl_x86_cpu_features.level4_cache_size",
    "_rtld_global_ro._dl_tls_static_size",
    "_rtld_global_ro._dl_tls_static_align",
    "_rtld_global_ro._dl_sysinfo_dso",
    "_rtld_global_ro._dl_sysinfo_map",
    "_rtld_global_ro._dl_vdso_clock_gettime64",
    "_rtld_global_ro._dl_vdso_getcpu",
    "_rtld_global_ro._dl_lookup_symbol_x",
    "_rtld_global_ro._dl_catch_error",
    "_rtld_global_ro._dl_error_free",
    "_rtld_global_ro._dl_tls_get_addr_soft",
    "_rtld_global_ro._dl_find_object",
    "_rtld_global_ro._dl_naudit",
    "map of (program).l_addr",
    "map of (program).l_phdr",
    "map of (program).l_phnum",
    "map of libc.so.6.l_addr",
    "map of libc.so.6.l_name",
    "map of libc.so.6.l_ld",
    "map of libc.so.6.l_next",
    "map of libc.so.6.l_prev",
    "map of libc.so.6.l_real",
    "map of libc.so.6.l_ns",
    "map of libc.so.6.l_info[5]",
    "map of libc.so.6.l_nbuckets",
    "map of libc.so.6.l_gnu_buckets",
    "map of libc.so.6.l_gnu_chain_zero",
    "map of libc.so.6.l_map_start",
    "map of libc.so.6.l_map_end",
    "map of libc.so.6.l_contiguous",
    "map of libc.so.6.l_ld_readonly",
    "map of libc.so.6.l_type",
    "map of libopened.so.l_loader",
    "map of libopened.so.l_type",
    "map of libopened.so.l_direct_opencount",
    "map of libcounter.so.l_tls_offset",
    "map of libcounter.so.l_tls_modid",
    "map of libcounter.so.l_tls_dtor_count",
    "map of linux-vdso.so.1.l_ld",
    "pthread in _dl_stack_user.header.tcb",
    "pthread in _dl_stack_user.header.self",
    "pthread in _dl_stack_user.list.next",
    "pthread in _dl_stack_user.robust_head.futex_offset",
    "pthread in _dl_stack_user.specific[0]",
    "pthread in _dl_stack_user.user_stack",
    "pthread in _dl_stack_user.report_events",
    "pthread in _dl_stack_user.stackblock_size",
    "pthread in _dl_stack_user.dtv.generation",
    "pthread in _dl_stack_user.dtv.capacity",
    "pthread in _dl_stack_user.dtv[1]",
    "pthread in _dl_stack_user.dtv[4]",
    "pthread in _dl_stack_used.stackblock",
    "pthread in _dl_stack_used.dtv[1]",
    "pthread in _dl_stack_used.dtv[4].to_free",
    "modules.next",
    "modules[1].map",
    "modules[4].map",
    "modules[4].gen",
    "_r_debug.r_version",
    "_r_debug.r_map",
    "_r_debug.r_brk",
    "_r_debug.r_state",
    "_r_debug.r_ldbase",
];

/// Under which tunables and variables the comparison is made.
const ENVIRONMENTS: [(&str, &[(&str, &str)]); 4] = [
    ("level 1", &[("GLIBC_TUNABLES", "glibc.rtld.seal=1")]),
    ("level 2", &[("GLIBC_TUNABLES", "glibc.rtld.seal=2")]),
    ("bound at once", &[("LD_BIND_NOW", "1")]),
    (
        "with tunables",
        &[(
            "GLIBC_TUNABLES",
            "glibc.rtld.optional_static_tls=1024:glibc.rtld.nns=3:glibc.cpu.hwcaps=-AVX2,-ERMS:glibc.pthread.rseq=0:\
             glibc.cpu.x86_data_cache_size=65536:glibc.cpu.x86_rep_movsb_threshold=8192",
        )],
    ),
];

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(ENVIRONMENTS.map(|(name, env)| trial(&loader, name, env)).into()),
        Err(reason) => {
            eprintln!("structures: {reason}");
            ExitCode::FAILURE
        }
    }
}

type Environment = &'static [(&'static str, &'static str)];

fn trial(loader: &Loader, name: &'static str, env: Environment) -> Trial {
    let loader = loader.clone();
    Trial::ignorable_test(name, move || {
        if let Some(reason) = ["cc", "gdb"].into_iter().find_map(requirement::unmet) {
            return Ok(Completion::ignored_with(reason));
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("structures");
        let folder = suite::scratch(&cache, &name.replace(' ', "-"))?;
        build(&folder, &loader)?;
        match (read(&folder, "system", env)?, read(&folder, "tested", env)?) {
            (Reading::Unavailable(reason), _) => Ok(Completion::ignored_with(reason)),
            (_, Reading::Unavailable(reason)) => Err(format!("under ld-seal.so only: {reason}").into()),
            (Reading::Fields(expected), Reading::Fields(got)) => compare(&expected, &got),
        }
    })
}

/// The program `system`, whose interpreter is a symbolic link to the system's, and the program `tested`, equal to it in length and
/// layout, whose interpreter is one to that under test.
fn build(folder: &Path, loader: &Loader) -> Result<(), Failed> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/glibc");
    let source = |name: &str| fixtures.join(name).to_string_lossy().into_owned();
    for library in ["libcounter.so", "libopened.so"] {
        compile(folder, &["-shared", "-fPIC", "-O1", "-o", library, &source("counter.c")])?;
    }
    for (name, interpreter) in [("system", Path::new(SYSTEM)), ("tested", &loader.interpreter)] {
        let link: PathBuf = folder.join(format!("{name}.so"));
        symlink(interpreter, &link)?;
        let flag = format!("-Wl,--dynamic-linker={}", link.display());
        let libraries = ["-Wl,--no-as-needed", "-lm", "./libcounter.so", "-Wl,-rpath,$ORIGIN"];
        let main = source("structures.c");
        compile(folder, &[&["-o", name, &main, &flag], &libraries[..]].concat())?;
    }
    Ok(())
}

fn compile(folder: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let outcome = capture(Command::new("cc").args(arguments).current_dir(folder), b"", Duration::from_secs(300))?;
    match outcome.ending {
        Ending::Exit(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&outcome.stderr).into_owned().into()),
    }
}

/// What gdb read.
enum Reading {
    /// By path.
    Fields(BTreeMap<String, String>),
    /// What gdb lacks here.
    Unavailable(String),
}

fn read(folder: &Path, program: &str, env: Environment) -> Result<Reading, Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/glibc/structures.py");
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-x"]).arg(script).arg(format!("./{program}")).current_dir(folder);
    // LD_BIND_NOW is for the program, and does gdb no harm.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .env("SHELL", "/bin/sh");
    command.envs(env.iter().copied());
    let outcome = capture(&mut command, b"", Duration::from_secs(120))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    if let Some(reason) = stdout.lines().find_map(|line| line.strip_prefix("unavailable: ")) {
        return Ok(Reading::Unavailable(reason.to_string()));
    }
    if let Some(reason) = stderr.lines().find(|line| line.contains("not permitted") || line.contains("not supported")) {
        return Ok(Reading::Unavailable(format!("gdb: {reason}")));
    }
    if !stdout.lines().any(|line| line == "all of it was read") {
        return Err(format!("{program}: gdb {}\n{stderr}", outcome.ending).into());
    }
    let fields = stdout.lines().filter_map(|line| line.split_once(" = "));
    let alike = |text: &str| text.replace(&format!("/{program}.so"), "/loader.so");
    Ok(Reading::Fields(fields.map(|(path, value)| (path.to_string(), alike(value))).collect()))
}

fn compare(expected: &BTreeMap<String, String>, got: &BTreeMap<String, String>) -> Result<Completion, Failed> {
    let mut report = String::new();
    for field in READ {
        let excused = DIFFERENCES.iter().any(|(pattern, must, _)| must.is_none() && matches(pattern, field));
        if excused || !expected.contains_key(*field) {
            report += &format!("  {field} is read by libc and was not compared\n");
        }
    }
    let paths: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
    let mut equal = 0;
    for path in paths {
        let value = |fields: &BTreeMap<String, String>| fields.get(path).map_or("nothing", String::as_str).to_string();
        let (expected, got) = (value(expected), value(got));
        match DIFFERENCES.iter().find(|(pattern, ..)| matches(pattern, path)) {
            _ if expected == got => equal += 1,
            Some((_, must, reason)) if must.is_none_or(|must| must(&expected) && must(&got)) => {
                log::debug!("{path}: expected {expected}, got {got}: {reason}");
            }
            _ => report += &format!("  {path}: expected {expected}, got {got}\n"),
        }
    }
    log::info!("{equal} fields are equal");
    match report.is_empty() {
        true => Ok(Completion::Completed),
        false => Err(report.into()),
    }
}

/// Whether `text` is `pattern`, where `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))),
    }
}
