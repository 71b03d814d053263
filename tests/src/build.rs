//! Compiling a case: once per content, into a folder named by the hash of everything that went in.

use crate::manifest::{Case, Object};
use crate::process::{self, Ending};
use crate::{edit, relocations, written};
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Builds `case` below `cache` unless the same content was built before, and returns the folder of the built tree.
///
/// # Errors
/// What the compiler said, with the command line.
pub fn tree(case: &Case, cache: &Path) -> Result<PathBuf, String> {
    let folder = cache.join(format!("{}-{:016x}", case.name.replace('/', "."), content_hash(case)?));
    let tree = folder.join("tree");
    if folder.join("built").exists() {
        return Ok(tree);
    }
    // A half-built tree of an interrupted run is not continued: what is in it is unknown.
    let failed = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&folder, e)),
        _ => fs::create_dir_all(&tree).map_err(|e| failed(&tree, e))?,
    }
    for object in case.manifest.objects.iter().flat_map(Object::each) {
        build_object(case, &object, &tree)?;
    }
    fs::write(folder.join("built"), "").map_err(|e| failed(&folder, e))?;
    Ok(tree)
}

/// Everything that decides what the build gives: manifest, sources, compilers.
fn content_hash(case: &Case) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    compilers_identity().hash(&mut hasher);
    // Sources that several cases share lie beside their headers.
    let sources = case.manifest.objects.iter().flat_map(|o| &o.sources).map(|s| case.folder.join(s));
    let support = case.folder.join("../../support");
    let shared = sources.filter_map(|s| s.parent().map(Path::to_path_buf)).filter(|f| *f != case.folder);
    let shared = shared.chain([support].into_iter().filter(|folder| folder.is_dir()));
    let mut pending: Vec<PathBuf> = [case.folder.clone()].into_iter().chain(shared).collect();
    let mut files = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
            let path = entry.path();
            if path.is_dir() { &mut pending } else { &mut files }.push(path);
        }
    }
    files.sort();
    files.dedup();
    for file in files {
        file.strip_prefix(&case.folder).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?.hash(&mut hasher);
    }
    // What becomes of a description depends on this program too.
    for description in case.manifest.objects.iter().filter_map(Object::description) {
        written::read(&case.folder.join(description))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The versions of the tools that build fixtures.
fn compilers_identity() -> &'static str {
    static IDENTITY: OnceLock<String> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let version = |tool: &str| {
            let output = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
            output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
        };
        ["cc", "c++", "ld", "rustc"].map(version).concat()
    })
}

fn build_object(case: &Case, object: &Object, tree: &Path) -> Result<(), String> {
    let out = tree.join(&object.out);
    let io = |e: std::io::Error| format!("{}: {e}", out.display());
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    if object.remove {
        return fs::remove_file(&out).map_err(io);
    }
    if let Some(target) = &object.symlink {
        return std::os::unix::fs::symlink(target, &out).map_err(io);
    }
    if let Some(source) = &object.copy {
        return fs::copy(case.folder.join(source), &out).map(drop).map_err(io);
    }
    if let Some(description) = object.description() {
        let bytes = written::read(&case.folder.join(description))?;
        process::write_executable(&out, &bytes).map_err(io)?;
        return fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).map_err(io);
    }
    let mut command = command_line(case, object, tree)?;
    log::debug!("{}: {command:?}", case.name);
    let output = process::capture(command.current_dir(tree), b"", COMPILATION);
    let output = output.map_err(|e| format!("{command:?}: {e}"))?;
    if output.ending == Ending::Exit(0) {
        let mut bytes = fs::read(&out).map_err(io)?;
        for (tag, value) in &object.dynamic {
            edit::set_dynamic(&mut bytes, dynamic_tag(tag)?, *value).map_err(|e| format!("{}: {e}", object.out))?;
        }
        for name in &object.edits {
            edit::named(&mut bytes, name).map_err(|e| format!("{}: {e}", object.out))?;
        }
        if !object.dynamic.is_empty() || !object.edits.is_empty() {
            process::write_executable(&out, &bytes).map_err(io)?;
        }
        return match relocations::missing(&bytes, &object.relocations)? {
            Some(missing) => Err(format!("{}: the linker made no {missing} relocation", object.out)),
            None => Ok(()),
        };
    }
    Err(format!("building {}: {command:?}\n{}", object.out, String::from_utf8_lossy(&output.stderr)))
}

/// The tags that manifests may name.
fn dynamic_tag(name: &str) -> Result<u64, String> {
    match name {
        "DT_FLAGS" => Ok(30),
        "DT_FLAGS_1" => Ok(0x6fff_fffb),
        _ => Err(format!("dynamic: {name} is none of DT_FLAGS, DT_FLAGS_1")),
    }
}

/// Time limit of one compiler run.
const COMPILATION: Duration = Duration::from_secs(300);

fn command_line(case: &Case, object: &Object, tree: &Path) -> Result<Command, String> {
    let first = object.sources.first().or(object.libs.first());
    let first = first.ok_or_else(|| format!("{}: {} has nothing to build it from", case.name, object.out))?;
    let compiler = match &object.compiler {
        Some(compiler) => compiler.as_str(),
        None => match Path::new(first).extension().and_then(|e| e.to_str()) {
            Some("rs") => "rustc",
            Some("cc" | "cpp" | "cxx") => "c++",
            _ => "cc",
        },
    };
    let sources = object.sources.iter().map(|s| case.folder.join(s));
    let flags = object.flags.iter().map(|f| substitute(f, case, tree));
    let mut command = Command::new(compiler);
    if compiler == "rustc" {
        command.args(["--edition", "2021", "-o", &object.out]).args(sources).args(flags);
        return Ok(command);
    }
    command.args(["-O1", "-w", "-D_GNU_SOURCE", "-o", &object.out]);
    match kind(&object.out) {
        Kind::Relocatable => command.args(["-c", "-fPIC"]),
        Kind::Library => command.args(["-shared", "-fPIC"]),
        Kind::Executable => &mut command,
    };
    // Flags precede sources, so that `-x` and `-include` apply to them, and libraries follow, as linkers want it.
    command.args(flags).args(sources).args(&object.libs);
    if let Some(soname) = &object.soname {
        command.arg(format!("-Wl,-soname,{soname}"));
    }
    if let Some(path) = &object.runpath {
        command.arg(format!("-Wl,--enable-new-dtags,-rpath,{}", substitute(path, case, tree)));
    }
    if let Some(path) = &object.rpath {
        command.arg(format!("-Wl,--disable-new-dtags,-rpath,{}", substitute(path, case, tree)));
    }
    Ok(command)
}

/// Builds `out` in `folder` with the C or C++ compiler, outside of any case: for tests with stages of their own. Libraries to link with
/// come last in `flags`.
///
/// # Errors
/// What the compiler said.
pub fn compile(folder: &Path, out: &str, source: &Path, flags: &[&str]) -> Result<(), String> {
    let compiler = if source.extension().is_some_and(|e| e == "cc") { "c++" } else { "cc" };
    let mut command = Command::new(compiler);
    command.args(["-O1", "-w", "-D_GNU_SOURCE", "-o", out]);
    if kind(out) == Kind::Library {
        command.args(["-shared", "-fPIC"]);
    }
    command.arg(source).args(flags).current_dir(folder);
    let output = process::capture(&mut command, b"", COMPILATION).map_err(|e| format!("{command:?}: {e}"))?;
    match output.ending {
        Ending::Exit(0) => Ok(()),
        _ => Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Relocatable,
    Library,
    Executable,
}

fn kind(out: &str) -> Kind {
    let name = out.rsplit('/').next().unwrap_or(out);
    if name.ends_with(".o") {
        Kind::Relocatable
    } else if name.ends_with(".so") || name.contains(".so.") {
        Kind::Library
    } else {
        Kind::Executable
    }
}

fn substitute(text: &str, case: &Case, tree: &Path) -> String {
    text.replace("{case}", &case.folder.to_string_lossy()).replace("{tree}", &tree.to_string_lossy())
}
