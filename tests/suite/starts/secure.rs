//! Secure execution: a set-user-ID program that names the interpreter under test, started by an ordinary user with an
//! environment that must not have any effect (ld.so(8), Secure-execution mode).

use crate::{compile, describe, missing, Checked};
use conformance::compare::{difference, Normaliser};
use conformance::loader::Start;
use conformance::{interp, Level, Loader, Way};
use libtest_mimic::Completion;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/auxv.h>
#include <stdlib.h>
extern char **environ;
extern const char *where(void);
int main(void) {
    unsigned char *volatile fresh = malloc(40);
    printf("secure %lu, library %s, fresh byte %02x\n", getauxval(AT_SECURE), where(), fresh[20]);
    for (char **e = environ; *e; e++) puts(*e);
    return 0;
}
"#;

const LIBRARY: &str = r#"
#include <stdio.h>
const char *where(void) { return WHERE; }
#ifdef PRELOADED
__attribute__((constructor)) static void begin(void) { puts("preloaded"); }
#endif
"#;

/// A folder that every user can reach, removed in the end.
struct Public(PathBuf);

impl Public {
    fn new() -> io::Result<Public> {
        let folder = std::env::temp_dir().join(format!("ldseal-secure-{}", std::process::id()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        Ok(Public(folder))
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            log::warn!("{}: {e}", self.0.display());
        }
    }
}

/// Compares set-user-ID programs with an absolute search path, with one relative to `$ORIGIN`, and with none.
pub fn check(loader: &Loader) -> Checked {
    if let Some(ignored) = missing(loader, Way::Interp, &["root", "cc", "setpriv"]) {
        return Ok(ignored);
    }
    let public = Public::new()?;
    let folder = public.0.as_path();
    build(folder)?;
    let interpreter = folder.join("ld-seal.so");
    fs::copy(&loader.interpreter, &interpreter)?;
    for name in ["absolute", "origin", "none"] {
        let expected = start(folder, &format!("{name}-system"))?.reference(Way::Interp, Level(1))?;
        if name == "absolute" && !expected.stdout.starts_with(b"secure 1, library one") {
            let stdout = String::from_utf8_lossy(&expected.stdout).into_owned();
            return Ok(Completion::ignored_with(format!(
                "set-user-ID has no effect here: {}{stdout}",
                describe(&expected)
            )));
        }
        let tested = format!("{name}-tested");
        interp::replaced_copy(&folder.join(format!("{name}-system")), &folder.join(&tested), &interpreter)?;
        let got = start(folder, &tested)?.tested(loader, Way::Interp, Level(1))?;
        let same_name = Normaliser {
            replacements: vec![(format!("{name}-system"), "{program}"), (tested, "{program}")],
            ..Normaliser::default()
        };
        if let Some(difference) = difference(&same_name.apply(&expected), &same_name.apply(&got)) {
            return Err(format!("{name}:\n{difference}").into());
        }
    }
    Ok(Completion::Completed)
}

fn build(folder: &Path) -> Result<(), String> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    fs::write(folder.join("main.c"), PROGRAM).map_err(failed)?;
    fs::write(folder.join("lib.c"), LIBRARY).map_err(failed)?;
    for (name, preloaded) in [("one", "-UPRELOADED"), ("two", "-DPRELOADED")] {
        fs::create_dir(folder.join(name)).map_err(failed)?;
        let out = format!("{name}/libwhere.so");
        let definition = format!("-DWHERE=\"{name}\"");
        compile(folder, &["-shared", "-fPIC", "-Wl,-soname,libwhere.so", &definition, preloaded, "lib.c", "-o", &out])?;
    }
    let absolute = format!("-Wl,-rpath,{}/one", folder.display());
    for (name, path) in [("absolute", absolute.as_str()), ("origin", "-Wl,-rpath,$ORIGIN/one"), ("none", "-Wl,-z,now")]
    {
        let out = format!("{name}-system");
        compile(folder, &["-D_GNU_SOURCE", "main.c", "one/libwhere.so", path, "-o", &out])?;
    }
    Ok(())
}

/// The set-user-ID program `name`, started by the user nobody.
fn start(folder: &Path, name: &str) -> io::Result<Start> {
    let program = folder.join(name);
    fs::set_permissions(&program, Permissions::from_mode(0o4755))?;
    let mut start = Start::new(program, folder);
    start.wrapper = ["setpriv", "--reuid=65534", "--clear-groups", "env"].map(String::from).into();
    let two = folder.join("two").to_string_lossy().into_owned();
    // Set behind setpriv, which shall not be affected itself.
    start.wrapper.extend([format!("LD_LIBRARY_PATH={two}"), format!("LD_PRELOAD={two}/libwhere.so")]);
    start.wrapper.extend(IGNORED.map(String::from));
    Ok(start)
}

/// Variables that a set-user-ID program does not heed, and some that it keeps.
const IGNORED: [&str; 9] = [
    "LD_DEBUG=all",
    "LD_BIND_NOW=1",
    "LD_ORIGIN_PATH=/",
    "LD_UNKNOWN=kept or not",
    "GLIBC_TUNABLES=glibc.malloc.perturb=85",
    "MALLOC_PERTURB_=85",
    "TMPDIR=/tmp",
    "GCONV_PATH=/nonexistent",
    "RESOLV_HOST_CONF=/nonexistent",
];
