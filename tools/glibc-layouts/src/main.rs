//! `glibc-layouts SNAPSHOT [LD_SO LIBC]`: prints the layout table of a glibc, by default the system's.
//!
//! SNAPSHOT is what the table calls this glibc, for instance "as released". Debug information is taken from the files
//! themselves or from /usr/lib/debug/.build-id (Debian: package libc6-dbg).

use std::path::Path;
use std::process::ExitCode;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (snapshot, loader, libc) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [snapshot] => (snapshot, LOADER, LIBC),
        [snapshot, loader, libc] => (snapshot, loader, libc),
        _ => {
            eprintln!("usage: glibc-layouts SNAPSHOT [LD_SO LIBC]");
            return ExitCode::from(2);
        }
    };
    match glibc_layouts::generate(Path::new(loader), Path::new(libc), snapshot) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("glibc-layouts: {error}");
            ExitCode::FAILURE
        }
    }
}
