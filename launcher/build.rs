//! Builds the interpreter `ld-seal.so` and hands it to the `ldseal` command.
//!
//! Cargo can't name a binary `ld-seal.so`, and a root package builds no binary of a member, so this script runs a cargo of
//! its own: always the release profile, in a target directory of its own (no lock is shared with the cargo that runs this
//! script), and free of whatever the outer cargo was told about flags, wrappers and profiles. The interpreter is thus the
//! same file whether the outer command was `build`, `test`, `clippy` or `install`.
//!
//! What it leaves: the image in `OUT_DIR`, which `ldseal` embeds; a copy `ld-seal.so` beside the final `ldseal`; and the
//! path of that copy as `LDSEAL_INTERPRETER` in the environment of this package's crates and tests.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    for input in ["loader", "runtime", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let target = variable("TARGET")?;
    if !target.starts_with("x86_64-") || !target.ends_with("-linux-gnu") {
        return Err(format!("ldseal serves glibc programs on x86-64 Linux only, not {target}").into());
    }
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let built = build_interpreter(&out_dir, &target)?;
    let image = out_dir.join("ld-seal.so");
    let bytes = as_library(fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?)?;
    place(&bytes, &image)?;
    println!("cargo:rustc-env=LDSEAL_IMAGE={}", image.display());

    let beside = match profile_directory(&out_dir) {
        Some(directory) => {
            let beside = directory.join("ld-seal.so");
            place(&bytes, &beside)?;
            beside
        }
        None => {
            println!("cargo:warning=unknown layout of the target directory: no ld-seal.so is placed beside ldseal");
            image
        }
    };
    println!("cargo:rustc-env=LDSEAL_INTERPRETER={}", beside.display());
    link_statically(&out_dir)
}

/// Links `ldseal` without shared libraries, so that the system's loader has no part in it: LD_PRELOAD, LD_DEBUG and their like
/// are meant for the program that `ldseal` becomes, and would otherwise take effect twice.
///
/// rustc's own switch for this (`-C target-feature=+crt-static`) can't be set for one binary. What it would change is the
/// linker's command line: here `-static-pie` selects the start files, and linker scripts that precede the system's
/// libraries in the search path name the archives in the place of the shared objects. Where the C library is not
/// installed as an archive, `ldseal` is linked as any other program.
fn link_statically(out_dir: &Path) -> Result<()> {
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| OsString::from("cc"));
    let archive = |name: &str| {
        let output = Command::new(&linker).arg(format!("-print-file-name={name}")).output().ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
        (path.is_absolute() && !path.to_str()?.contains(char::is_whitespace)).then_some(path.to_str()?.to_owned())
    };
    let archives: Option<Vec<String>> =
        ["libgcc_eh.a", "libgcc.a", "libm.a", "libc.a"].into_iter().map(archive).collect();
    let Some(archives) = archives else {
        println!(
            "cargo:warning=no libc.a here: ldseal is linked dynamically, and LD_PRELOAD takes effect in it as well"
        );
        return Ok(());
    };
    let directory = out_dir.join("static");
    fs::create_dir_all(&directory)?;
    // Every shared library that rustc names for this target.
    for library in ["gcc_s", "util", "rt", "pthread", "m", "dl", "c"] {
        fs::write(directory.join(format!("lib{library}.so")), format!("GROUP ( {} )\n", archives.join(" ")))?;
    }
    println!("cargo:rustc-link-arg-bin=ldseal=-static-pie");
    println!("cargo:rustc-link-arg-bin=ldseal=-Wl,-z,nodynamic-undefined-weak");
    println!("cargo:rustc-link-arg-bin=ldseal=-L{}", directory.display());
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// Runs the nested cargo; returns the path of the linked interpreter.
fn build_interpreter(out_dir: &Path, target: &str) -> Result<PathBuf> {
    let target_dir = out_dir.join("interpreter");
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.args(["build", "--release", "--package=runtime", "--bin=ld-seal", "--features=interpreter"]);
    cargo.arg("--target").arg(target);
    cargo.arg("--target-dir").arg(&target_dir);
    cargo.arg("--manifest-path").arg(manifest);
    for (name, _) in env::vars_os() {
        if disturbs(&name) {
            cargo.env_remove(name);
        }
    }
    // Set and empty, so that rustflags of a configuration file don't reach the interpreter either: it runs before anything
    // has checked the processor.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("building the interpreter with cargo failed: {status}").into());
    }
    Ok(target_dir.join(target).join("release").join("ld-seal"))
}

/// Whether a variable of the outer cargo would change what the nested one builds or where it puts it. What concerns
/// only the network, the registries, the terminal, the linker and the shared job slots stays.
fn disturbs(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    if let Some(rest) = name.strip_prefix("CARGO_") {
        let kept = ["HOME", "MAKEFLAGS"].contains(&rest)
            || ["NET_", "HTTP_", "REGISTRIES_", "REGISTRY_", "SOURCE_", "TERM_"].iter().any(|p| rest.starts_with(p))
            || (rest.starts_with("TARGET_") && rest.ends_with("_LINKER"));
        return !kept;
    }
    ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"].contains(&name)
}

/// `target/PROFILE`, where cargo puts the final `ldseal`: OUT_DIR is `target/PROFILE/build/PACKAGE-HASH/out`.
fn profile_directory(out_dir: &Path) -> Option<&Path> {
    let build = out_dir.ancestors().nth(2)?;
    (build.file_name()? == "build").then(|| build.parent())?
}

/// Takes the mark of a position-independent executable (`DF_1_PIE`) off the image, which the linker sets whatever it is told: where the
/// image stands in for the system's loader, linkers must take it for the shared object that libc.so's linker script names.
fn as_library(mut image: Vec<u8>) -> Result<Vec<u8>> {
    use goblin::elf::dynamic::{DF_1_PIE, DT_FLAGS_1};
    let (at, count) = {
        let elf = goblin::elf::Elf::parse(&image)?;
        let header = elf.program_headers.iter().find(|h| h.p_type == goblin::elf::program_header::PT_DYNAMIC);
        let header = header.ok_or("the interpreter has no dynamic section")?;
        (header.p_offset as usize, header.p_filesz as usize / 16)
    };
    for entry in image[at..at + count * 16].chunks_exact_mut(16) {
        let (tag, value) = entry.split_at_mut(8);
        if u64::from_le_bytes(tag.try_into()?) == DT_FLAGS_1 {
            let flags = u64::from_le_bytes((&*value).try_into()?) & !DF_1_PIE;
            value.copy_from_slice(&flags.to_le_bytes());
        }
    }
    Ok(image)
}

/// Writes a file in one step for whoever runs it at this moment; one that is equal already stays as it is.
fn place(bytes: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let new = to.with_extension(format!("new.{}", std::process::id()));
    fs::write(&new, bytes).map_err(|error| format!("{}: {error}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, to).map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(())
}
