//! Messages of the interpreter: `LD_DEBUG` output and errors, through the `log` facade.
//!
//! The categories of `LD_DEBUG` are log targets. Lines begin with the process id, as those of glibc's ld.so.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use loader::error::{Lossy, BARE};
use loader::{statistics, sys};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fd::BorrowedFd;

/// The categories of `LD_DEBUG`: name, log target and meaning as `LD_DEBUG=help` prints it.
pub const CATEGORIES: [(&str, &str); 12] = [
    ("libs", "display library search paths"),
    ("reloc", "display relocation processing"),
    ("files", "display progress for input file"),
    ("symbols", "display symbol table processing"),
    ("bindings", "display information about symbol binding"),
    ("versions", "display version dependencies"),
    ("scopes", "display scope information"),
    ("seal", "display what is sealed"),
    ("all", "all previous options combined"),
    ("statistics", "display relocation statistics"),
    ("unused", "determined unused DSOs"),
    ("help", "display this help message and exit"),
];
/// How many of them `all` stands for.
const ALL: usize = 8;

static ENABLED: AtomicU32 = AtomicU32::new(0);
static OUTPUT: AtomicI32 = AtomicI32::new(2);
static PROGRAM: AtomicPtr<*mut u8> = AtomicPtr::new(core::ptr::null_mut());

struct Logger;

static LOGGER: Logger = Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
            || bit(metadata.target()).is_some_and(|b| ENABLED.load(Ordering::Relaxed) & b != 0)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.level() == Level::Warn && record.target() == BARE {
            line(*record.args());
        } else if record.level() == Level::Warn {
            // As glibc's messages about a program that goes on.
            line(format_args!("{}: {}", Lossy(program_name()), record.args()));
        } else if record.level() == Level::Error {
            line(format_args!("ld-seal.so: {}", record.args()));
        } else {
            debug_line(*record.args());
        }
    }

    fn flush(&self) {}
}

/// Targets that several categories show: what is called in objects, and errors that dlopen and dlsym give back. As in glibc.
const CALLS: [&str; 6] = ["libs", "reloc", "files", "symbols", "bindings", "versions"];
const ERRORS: [&str; 8] = ["libs", "reloc", "files", "symbols", "bindings", "versions", "scopes", "unused"];

fn bit(target: &str) -> Option<u32> {
    let any = |names: &[&str]| Some(names.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit));
    match target {
        "calls" => return any(&CALLS),
        "errors" => return any(&ERRORS),
        _ => {}
    }
    let named = |(name, _): &(&str, &str)| *name == target && !matches!(target, "all" | "help");
    CATEGORIES.iter().position(named).map(|i| 1 << i)
}

/// The words of `LD_DEBUG`.
fn words(categories: &[u8]) -> impl Iterator<Item = &[u8]> {
    categories.split(|b| matches!(b, b' ' | b',' | b':')).filter(|word| !word.is_empty())
}

/// Whether `LD_DEBUG` names a category, which `all` does not stand for.
pub fn asks_for(categories: &[u8], category: &str) -> bool {
    words(categories).any(|word| word == category.as_bytes())
}

/// Installs the logger with the categories that `LD_DEBUG` names; unknown words are reported, and `help` ends the process. If they are not
/// `heeded`, as in secure execution, that is all they do.
pub fn install(categories: &[u8], heeded: bool) {
    let mut enabled = 0;
    let mut wants_help = false;
    for word in words(categories) {
        match core::str::from_utf8(word) {
            Ok("all") => enabled |= (1 << ALL) - 1,
            Ok("help") => wants_help = true,
            Ok(name) if bit(name).is_some() => enabled |= bit(name).unwrap_or(0),
            _ => {
                line(format_args!("warning: debug option `{}' unknown; try LD_DEBUG=help", loader::error::Lossy(word)))
            }
        }
    }
    if wants_help {
        help();
    }
    if !heeded {
        enabled = 0;
    }
    ENABLED.store(enabled, Ordering::Relaxed);
    statistics::COUNTING.store(enabled & bit("statistics").unwrap_or(0) != 0, Ordering::Relaxed);
    // Setting the logger twice is the only way this fails.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(if enabled != 0 { LevelFilter::Trace } else { LevelFilter::Warn });
}

fn help() -> ! {
    let mut out = Line::new(1);
    let _ = out.write_str("Valid options for the LD_DEBUG environment variable are:\n\n");
    for (name, meaning) in CATEGORIES {
        let _ = writeln!(out, "  {name:<10}  {meaning}");
    }
    let _ = out.write_str(
        "\nTo direct the debugging output into a file instead of standard output\n\
         a filename can be specified using the LD_DEBUG_OUTPUT environment variable.\n",
    );
    out.flush();
    sys::exit(0)
}

/// The program's `argv[0]`.
pub fn program_name() -> &'static [u8] {
    // SAFETY: null, or the argument array, which ends with a null pointer.
    unsafe {
        let argv: *const *const core::ffi::c_char = PROGRAM.load(Ordering::Relaxed).cast();
        if argv.is_null() || (*argv).is_null() {
            return b"ld-seal.so";
        }
        core::ffi::CStr::from_ptr(*argv).to_bytes()
    }
}

/// Says where the program's arguments are, for messages that begin with its name.
pub fn set_arguments(argv: *mut *mut u8) {
    PROGRAM.store(argv, Ordering::Relaxed);
}

/// Sends debug output to a descriptor (`LD_DEBUG_OUTPUT`).
pub fn redirect(descriptor: i32) {
    OUTPUT.store(descriptor, Ordering::Relaxed);
}

fn debug_line(message: fmt::Arguments<'_>) {
    let mut out = Tagged { line: Line::new(OUTPUT.load(Ordering::Relaxed)), pid: sys::getpid(), at_start: true };
    let _ = writeln!(out, "{message}");
    out.line.flush();
}

/// Puts the process id before each line.
struct Tagged {
    line: Line,
    pid: u32,
    at_start: bool,
}

impl Write for Tagged {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            if self.at_start {
                write!(self.line, "{:>10}:\t", self.pid)?;
            }
            self.line.write_str(part)?;
            self.at_start = part.ends_with('\n');
        }
        Ok(())
    }
}

/// Writes one line to standard error.
pub fn line(message: fmt::Arguments<'_>) {
    let mut out = Line::new(2);
    let _ = writeln!(out, "{message}");
    out.flush();
}

/// Writes text to standard output.
pub fn print(message: fmt::Arguments<'_>) {
    let mut out = Line::new(1);
    let _ = out.write_fmt(message);
    out.flush();
}

/// Collects text and writes it in as few calls as possible, so that lines of several processes do not mix.
struct Line {
    descriptor: i32,
    used: usize,
    buffer: [u8; 1024],
}

impl Line {
    fn new(descriptor: i32) -> Line {
        Line { descriptor, used: 0, buffer: [0; 1024] }
    }

    fn flush(&mut self) {
        // SAFETY: the descriptor is only borrowed; if it is closed, writing fails and the text is lost, which is all one can do.
        let fd = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        sys::write_all(fd, &self.buffer[..self.used]);
        self.used = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while !text.is_empty() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            let n = text.len().min(self.buffer.len() - self.used);
            // Bytes, not characters: a sequence cut here is whole again in the output.
            self.buffer[self.used..self.used + n].copy_from_slice(&text.as_bytes()[..n]);
            self.used += n;
            match text.get(n..) {
                Some(rest) => text = rest,
                None => {
                    self.flush();
                    // SAFETY: only bytes are written from here on, never text that must be valid UTF-8.
                    sys::write_all(unsafe { BorrowedFd::borrow_raw(self.descriptor) }, &text.as_bytes()[n..]);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
