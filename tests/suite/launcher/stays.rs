//! Which libraries count as those that stay, where no seal tells it.

use crate::report::regions;
use crate::support::{check, command, ldseal, skip, Outcome, DONE, LDSEAL};
use libtest_mimic::Failed;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Opens a library and says so.
const OPENER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    puts(dlopen(argv[1], RTLD_NOW) ? "open" : dlerror());
    fflush(stdout);
    return getchar() == 0;
}
"#;

const LIBRARY: &str = "unsigned la_version(unsigned version) { return version; }\n";

fn build(folder: &Path) -> Result<bool, Failed> {
    std::fs::write(folder.join("opener.c"), OPENER)?;
    std::fs::write(folder.join("library.c"), LIBRARY)?;
    for arguments in [
        &["-o", "opener", "opener.c"][..],
        &["-shared", "-fPIC", "-o", "libstays.so", "library.c", "-Wl,-z,nodelete"],
        &["-shared", "-fPIC", "-o", "libgoes.so", "library.c"],
        &["-shared", "-fPIC", "-o", "libaudit.so", "library.c"],
    ] {
        match command("cc", folder).args(arguments).status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            status => check(status?.success(), || format!("cc {arguments:?}"))?,
        }
    }
    Ok(true)
}

/// The opener, which has opened its library.
struct Opener(Child);

impl Opener {
    fn start(command: &mut Command) -> Result<Opener, Failed> {
        let mut opener = Opener(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        if let Some(stdout) = opener.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        check(line == "open\n", || line)?;
        Ok(opener)
    }

    /// The report, and the status of `--require code`.
    fn report(&self, folder: &Path) -> Result<(serde_json::Value, Option<i32>), Failed> {
        let pid = self.0.id().to_string();
        let report = crate::report::json(folder, &[&pid])?;
        Ok((report, ldseal(folder, &["report", "--require", "code", &pid])?.status.code()))
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn covered(report: &serde_json::Value, name: &str) -> Option<bool> {
    let objects = report["objects"].as_array().into_iter().flatten();
    let found = objects.into_iter().find(|o| o["name"].as_str().is_some_and(|path| path.ends_with(name)));
    found.and_then(|object| object["covered"].as_bool())
}

/// A library with DF_1_NODELETE that was opened and left open stays all the same: what is required is not met, and the reason is told.
pub fn nodelete(folder: &Path) -> Outcome {
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    if !build(folder)? {
        return skip("no cc");
    }
    for (library, stays, status) in [("/libstays.so", true, 3), ("/libgoes.so", false, 0)] {
        let path = format!("{}{library}", folder.display());
        let mut command = command(LDSEAL, folder);
        let command = command.args(["run", "./opener", &path]).env("GLIBC_TUNABLES", "ldseal.late=0");
        let (report, code) = Opener::start(command)?.report(folder)?;
        check(covered(&report, library) == Some(stays), || format!("{library}: {report}"))?;
        check(code == Some(status), || format!("{library}: --require code: {code:?}"))?;
        let told = |region: &&serde_json::Value| region["why_not"] == "loaded by dlopen (ldseal.late=0)";
        check(regions(&report, library).iter().all(told), || report.to_string())?;
    }
    DONE
}

/// Audit modules are there since the start, named by the environment or an option.
pub fn audit_modules(folder: &Path) -> Outcome {
    if !build(folder)? {
        return skip("no cc");
    }
    let (module, opened) = (format!("{}/libaudit.so", folder.display()), format!("{}/libgoes.so", folder.display()));
    let mut by_variable = command(LDSEAL, folder);
    by_variable.args(["run", "--seal", "0", "./opener", &opened]).env("LD_AUDIT", &module);
    let interpreter = conformance::Loader::under_test(option_env!("LDSEAL_INTERPRETER"), LDSEAL)?.interpreter;
    let mut by_option = command(interpreter, folder);
    by_option.args(["--seal", "0", "--audit", &module, "./opener", &opened]);
    for command in [&mut by_variable, &mut by_option] {
        let (report, _) = Opener::start(command)?.report(folder)?;
        check(covered(&report, "/libaudit.so") == Some(true), || format!("{command:?}: {report}"))?;
        check(covered(&report, "/libgoes.so") == Some(false), || format!("{command:?}: {report}"))?;
    }
    DONE
}
