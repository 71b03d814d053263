//! The slots of the PLT: what becomes of their pages.

use crate::report::{json, regions};
use crate::support::{check, command, ldseal, skip, Outcome, DONE, LDSEAL};
use libtest_mimic::Failed;
use std::path::Path;

/// A program with more than a page of slots, which attacks the first page of them.
const PROGRAM: &str = r#"
#include "functions.h"
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <sys/mman.h>
#define DECLARE(n) extern int function_##n(int);
#define ADD(n) sum += function_##n(1);
EACH(DECLARE)
static const char *outcome(int result) { return result == 0 ? "done" : errno == EPERM ? "refused" : "failed"; }
int main(void) {
    long sum = 0;
    const ElfW(Rela) *records = NULL;
    for (const ElfW(Dyn) *d = _DYNAMIC; d->d_tag; d++)
        if (d->d_tag == DT_JMPREL) records = (void *)d->d_un.d_ptr;
    char *page = (char *)((_r_debug.r_map->l_addr + records->r_offset) & ~4095UL);
    printf("%s ", outcome(mprotect(page, 4096, PROT_READ | PROT_WRITE)));
    printf("%s ", outcome(madvise(page, 4096, MADV_DONTFORK)));
    EACH(ADD)
    printf("%ld\n", sum);
}
"#;

fn build(folder: &Path) -> Result<bool, Failed> {
    let support = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/support");
    std::fs::write(folder.join("main.c"), PROGRAM)?;
    let functions = format!("{support}/functions.c");
    let include = format!("-I{support}");
    let library = ["-shared", "-fPIC", "-o", "libfunctions.so", &functions];
    let program =
        ["-pie", "-fPIE", "-Wl,-z,lazy", "-Wl,-z,relro", &include, "-o", "main", "main.c", "./libfunctions.so"];
    for arguments in [&library[..], &program[..]] {
        match command("cc", folder).args(arguments).status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            status => check(status?.success(), || format!("cc {arguments:?}"))?,
        }
    }
    Ok(true)
}

/// Whole pages of slots are read-only and sealed at level 2, and there the report and the plan name those that are shared.
pub fn at_each_level(folder: &Path) -> Outcome {
    if !build(folder)? {
        return skip("no cc");
    }
    for (level, protections, sealed) in [("1", "rw-p", false), ("2", "r--p", true)] {
        let report = json(folder, &["--seal", level, "--", "./main"])?;
        if report["kernel"]["mseal"] == false {
            return skip("this kernel has no mseal");
        }
        let of_kind = |kind: &str| -> Vec<serde_json::Value> {
            regions(&report, "/main").into_iter().filter(|region| region["kind"] == kind).cloned().collect()
        };
        let (own, shared) = (of_kind("got"), of_kind("got-shared"));
        let as_told = |r: &serde_json::Value| {
            r["protections"] == protections && r["sealed"] == sealed && (!sealed || r["file"].is_null())
        };
        check(!own.is_empty() && own.iter().all(as_told), || format!("level {level}: {own:?}"))?;
        let writable = |r: &serde_json::Value| r["protections"] == "rw-p" && r["sealed"] == sealed;
        check(!shared.is_empty() && shared.iter().all(writable), || format!("level {level}: {shared:?}"))?;

        let plan = ldseal(folder, &["plan", "--json", "--seal", level, "./main"])?;
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout)?;
        for part in ["got", "got-shared"] {
            let parts = plan["objects"][0]["parts"].as_array().into_iter().flatten();
            let found: Vec<_> = parts.filter(|p| p["part"] == part).collect();
            check(!found.is_empty() && found.iter().all(|p| p["sealed"] == sealed), || plan.to_string())?;
        }
        let output = command(LDSEAL, folder).args(["run", "--seal", level, "./main"]).output()?;
        let expected = if sealed { "refused refused " } else { "done done " };
        let text = String::from_utf8_lossy(&output.stdout);
        check(output.status.success() && text.starts_with(expected), || format!("level {level}: {output:?}"))?;
    }
    DONE
}
