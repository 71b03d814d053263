//! Writes `man/` anew.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let written = manpages::pages(&root).and_then(|pages| {
        pages.into_iter().try_for_each(|page| {
            let path = root.join("man").join(page.file);
            std::fs::write(&path, page.text).map_err(|e| format!("{}: {e}", path.display()))
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("manpages: {reason}");
            ExitCode::FAILURE
        }
    }
}
