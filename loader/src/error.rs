//! Why an object could not be loaded or linked, as a value: the object, the reason, the place, and the kernel's word if it had one.
//!
//! The texts are those which a user of glibc's ld.so knows, word for word, wherever the situation is the same.

use crate::errno;
use crate::memory;
use alloc::vec::Vec;
use core::fmt;
use rustix::io::Errno;

/// The log target of warnings that do not begin with the program's name.
pub const BARE: &str = "bare";

/// A failure to load or link one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    /// The object's file name as searched for, or the name of the object that made the request. Empty if there is none.
    pub object: Vec<u8>,
    /// What was wrong with it.
    pub reason: Reason,
    /// The error number of the system call that failed, if one did.
    pub errno: Option<Errno>,
}

/// What was wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A fault without further particulars.
    Fault(&'static str),
    /// A structure of the file that lies outside what it may lie in, or contradicts itself, and where: `at` is a file offset or a
    /// link-time address, whichever the structure is found by.
    Malformed {
        /// Which structure, and what about it.
        what: &'static str,
        /// File offset or link-time address.
        at: u64,
    },
    /// No definition of a symbol that must have one.
    UndefinedSymbol {
        /// The symbol's name.
        symbol: Vec<u8>,
        /// The version asked for.
        version: Option<Vec<u8>>,
    },
    /// The object lacks a version that another object needs.
    MissingVersion {
        /// The version's name.
        version: Vec<u8>,
        /// The object that needs it.
        required_by: Vec<u8>,
        /// `VER_FLG_WEAK`: that is worth a warning at the start of a program, and no error.
        weak: bool,
    },
    /// The object has no versions at all but another object needs one of it.
    NoVersions {
        /// The object that needs a version.
        required_by: Vec<u8>,
    },
    /// A record of the version tables in a format that is not known.
    RecordVersion {
        /// The format's number.
        version: u16,
        /// Which record.
        record: &'static str,
    },
    /// The program refers directly to a protected symbol of a library that does not allow it.
    IndirectAccessNeeded {
        /// The symbol's name.
        symbol: Vec<u8>,
    },
    /// The loader has no memory for what it must keep.
    NoMemory,
    /// A relocation of a type that can't appear in a dynamic object.
    RelocationType(u32),
    /// The value of a symbol does not fit the relocated field.
    Overflow {
        /// The symbol's name.
        symbol: Vec<u8>,
        /// `R_X86_64_32` or the like.
        relocation: &'static str,
    },
}

impl LoadError {
    /// A fault of `object` in fixed words.
    pub fn fault(object: &[u8], what: &'static str) -> LoadError {
        LoadError { object: memory::copy_of(object), reason: Reason::Fault(what), errno: None }
    }

    /// A fault of `object` in fixed words, and the error number of the call that showed it.
    pub fn system(object: &[u8], what: &'static str, errno: Errno) -> LoadError {
        LoadError { object: memory::copy_of(object), reason: Reason::Fault(what), errno: Some(errno) }
    }

    /// Any other reason.
    pub fn new(object: &[u8], reason: Reason) -> LoadError {
        LoadError { object: memory::copy_of(object), reason, errno: None }
    }
}

impl LoadError {
    /// Tells `LD_DEBUG` of the error if it is one of lookup; of others glibc tells nothing.
    pub fn tell(&self, consequence: Consequence) {
        match &self.reason {
            Reason::UndefinedSymbol { symbol, version } => {
                tell_undefined(&self.object, Undefined { symbol, version: version.as_deref() }, consequence);
            }
            Reason::MissingVersion { .. } | Reason::NoVersions { .. } => {
                let (object, reason) = (Lossy(&self.object), &self.reason);
                log::debug!(target: "errors", "{object}: error: version lookup error: {reason} ({consequence})");
            }
            _ => {}
        }
    }

    /// Whether there is no file that could be loaded, as opposed to one that is broken.
    pub fn is_absence(&self) -> bool {
        matches!(self.reason, Reason::Fault("cannot open shared object file" | "wrong ELF class: ELFCLASS32"))
    }

    /// What was wrong, without the object and the error number.
    pub fn cause(&self) -> &Reason {
        &self.reason
    }

    /// Moves the names to where memory is taken from now ([`memory::renew`]).
    pub fn renew(&mut self) {
        memory::renew(&mut self.object);
        match &mut self.reason {
            Reason::UndefinedSymbol { symbol, version } => {
                memory::renew(symbol);
                version.iter_mut().for_each(memory::renew);
            }
            Reason::MissingVersion { version, required_by, .. } => {
                memory::renew(version);
                memory::renew(required_by);
            }
            Reason::NoVersions { required_by: name }
            | Reason::IndirectAccessNeeded { symbol: name }
            | Reason::Overflow { symbol: name, .. } => memory::renew(name),
            Reason::Fault(_)
            | Reason::Malformed { .. }
            | Reason::RecordVersion { .. }
            | Reason::NoMemory
            | Reason::RelocationType(_) => {}
        }
    }

    /// The text with the few error numbers that ld.so has words for before there is a C library; others are shown as numbers.
    pub fn terse(&self) -> Terse<'_> {
        Terse(self)
    }
}

/// See [`LoadError::terse`].
pub struct Terse<'a>(&'a LoadError);

impl fmt::Display for Terse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [Errno::NOMEM, Errno::INVAL, Errno::NOENT, Errno::PERM, Errno::IO, Errno::ACCESS];
        match self.0.errno.filter(|e| !known.contains(e)) {
            None => self.0.fmt(f),
            Some(errno) => {
                LoadError { errno: None, ..self.0.clone() }.fmt(f)?;
                write!(f, ": Error {}", errno.raw_os_error())
            }
        }
    }
}

/// Shows bytes as text; names in ELF files are bytes, and glibc prints them as they are.
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

/// A symbol without a definition.
#[derive(Clone, Copy, Debug)]
pub struct Undefined<'a> {
    /// The symbol's name.
    pub symbol: &'a [u8],
    /// The version asked for.
    pub version: Option<&'a [u8]>,
}

impl fmt::Display for Undefined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "undefined symbol: {}", Lossy(self.symbol))?;
        self.version.map_or(Ok(()), |version| write!(f, ", version {}", Lossy(version)))
    }
}

/// What follows from a failed lookup, in the words of `LD_DEBUG`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consequence {
    /// The program is not started, ends, or the call it has made fails.
    Fatal,
    /// The search for what else is missing goes on.
    Continued,
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consequence::Fatal => "fatal",
            Consequence::Continued => "continued",
        })
    }
}

/// Tells `LD_DEBUG` of a symbol that was not found for `object`.
///
/// As in glibc nothing is told where `LD_DEBUG=unused` is asked for, which wants to know of definitions only.
pub fn tell_undefined(object: &[u8], undefined: Undefined<'_>, consequence: Consequence) {
    if log::log_enabled!(target: "unused", log::Level::Debug) {
        return;
    }
    log::debug!(target: "errors", "{}: error: symbol lookup error: {undefined} ({consequence})", Lossy(object));
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Fault(what) => f.write_str(what),
            Reason::Malformed { what, at } => write!(f, "{what} (at {at:#x})"),
            Reason::UndefinedSymbol { symbol, version } => Undefined { symbol, version: version.as_deref() }.fmt(f),
            Reason::MissingVersion { version, required_by, weak } => {
                let weak = if *weak { "weak " } else { "" };
                write!(f, "{weak}version `{}' not found (required by {})", Lossy(version), Lossy(required_by))
            }
            Reason::NoVersions { required_by } => {
                write!(f, "no version information available (required by {})", Lossy(required_by))
            }
            Reason::RecordVersion { version, record } => write!(f, "unsupported version {version} of {record} record"),
            Reason::IndirectAccessNeeded { .. } => {
                f.write_str("error due to GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS")
            }
            Reason::NoMemory => f.write_str("out of memory"),
            // glibc writes two digits where they suffice, else all eight.
            Reason::RelocationType(kind) if *kind > 0xff => write!(f, "unexpected reloc type {kind:#010x}"),
            Reason::RelocationType(kind) => write!(f, "unexpected reloc type {kind:#04x}"),
            Reason::Overflow { symbol, relocation } => {
                write!(f, "Symbol `{}' causes overflow in {relocation} relocation", Lossy(symbol))
            }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", Lossy(&self.object))?;
        }
        self.reason.fmt(f)?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", errno::text(errno))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn texts_are_those_of_ld_so() {
        let missing = LoadError::system(b"libx.so", "cannot open shared object file", Errno::NOENT);
        assert_eq!(missing.to_string(), "libx.so: cannot open shared object file: No such file or directory");
        let reason = Reason::UndefinedSymbol { symbol: b"f".to_vec(), version: Some(b"V1".to_vec()) };
        assert_eq!(LoadError::new(b"./a", reason).to_string(), "./a: undefined symbol: f, version V1");
    }
}
