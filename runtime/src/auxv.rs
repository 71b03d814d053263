//! `LD_SHOW_AUXV`: the auxiliary vector as text, in glibc's format.

use crate::initial_stack::InitialStack;
use crate::logger;
use core::ffi::{c_char, CStr};
use core::fmt;
use loader::error::Lossy;

/// How a value is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Decimal,
    /// Hexadecimal digits behind the text.
    Hexadecimal,
    /// A pointer to text.
    Text,
    Hidden,
}

/// Entries of `elf.h` by their number: what stands before the value, to a width of nineteen characters, and how the value is shown.
#[rustfmt::skip]
const ENTRIES: [(usize, &str, Form); 38] = [
    (2, "EXECFD", Form::Decimal), (3, "PHDR 0x", Form::Hexadecimal), (4, "PHENT", Form::Decimal),
    (5, "PHNUM", Form::Decimal), (6, "PAGESZ", Form::Decimal), (7, "BASE 0x", Form::Hexadecimal),
    (8, "FLAGS 0x", Form::Hexadecimal), (9, "ENTRY 0x", Form::Hexadecimal), (10, "NOTELF", Form::Hexadecimal),
    (11, "UID", Form::Decimal), (12, "EUID", Form::Decimal), (13, "GID", Form::Decimal), (14, "EGID", Form::Decimal),
    (15, "PLATFORM", Form::Text), (16, "HWCAP", Form::Hexadecimal), (17, "CLKTCK", Form::Decimal),
    (18, "FPUCW", Form::Hexadecimal), (19, "DCACHEBSIZE 0x", Form::Hexadecimal), (20, "ICACHEBSIZE 0x", Form::Hexadecimal),
    (21, "UCACHEBSIZE 0x", Form::Hexadecimal), (22, "IGNOREPPC", Form::Hidden), (23, "SECURE", Form::Decimal),
    (24, "BASE_PLATFORM", Form::Text), (25, "RANDOM 0x", Form::Hexadecimal), (26, "HWCAP2 0x", Form::Hexadecimal),
    (31, "EXECFN", Form::Text), (32, "SYSINFO 0x", Form::Hexadecimal), (33, "SYSINFO_EHDR 0x", Form::Hexadecimal),
    (40, "L1I_CACHESIZE", Form::Decimal), (41, "L1I_CACHEGEOMETRY 0x", Form::Hexadecimal),
    (42, "L1D_CACHESIZE", Form::Decimal), (43, "L1D_CACHEGEOMETRY 0x", Form::Hexadecimal),
    (44, "L2_CACHESIZE", Form::Decimal), (45, "L2_CACHEGEOMETRY 0x", Form::Hexadecimal),
    (46, "L3_CACHESIZE", Form::Decimal), (47, "L3_CACHEGEOMETRY 0x", Form::Hexadecimal),
    (51, "MINSIGSTKSZ", Form::Decimal),
    (1, "IGNORE", Form::Hidden),
];

/// One entry as a line, or nothing.
struct Line(usize, usize);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(key, value) = *self;
        let Some((_, label, form)) = ENTRIES.iter().find(|(known, ..)| *known == key) else {
            return writeln!(f, "AT_??? (0x{key:x}): 0x{value:x}");
        };
        let (name, prefix) = label.split_once(' ').unwrap_or((label, ""));
        let width = 19usize.saturating_sub(name.len() + 1);
        match form {
            Form::Hidden => return Ok(()),
            _ => write!(f, "AT_{name}:{:width$}{prefix}", "")?,
        }
        match form {
            Form::Decimal => writeln!(f, "{value}"),
            Form::Text => {
                // SAFETY: entries of this kind point to terminated text that the kernel has put on the stack.
                let text = unsafe { CStr::from_ptr(value as *const c_char) };
                writeln!(f, "{}", Lossy(text.to_bytes()))
            }
            _ => writeln!(f, "{value:x}"),
        }
    }
}

/// Prints the vector to standard output.
pub fn show(stack: &InitialStack) {
    for (key, value) in stack.auxiliary_entries() {
        logger::print(format_args!("{}", Line(key, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn values_stand_in_one_column() {
        assert_eq!(format!("{}", Line(33, 0x7f00)), "AT_SYSINFO_EHDR:      0x7f00\n");
        assert_eq!(format!("{}", Line(16, 0x178b)), "AT_HWCAP:             178b\n");
        assert_eq!(format!("{}", Line(43, 0x40)), "AT_L1D_CACHEGEOMETRY: 0x40\n");
        assert_eq!(format!("{}", Line(31, c"/bin/true".as_ptr() as usize)), "AT_EXECFN:            /bin/true\n");
        assert_eq!(format!("{}", Line(27, 28)), "AT_??? (0x1b): 0x1c\n");
        assert_eq!(format!("{}{}", Line(22, 1), Line(1, 1)), "");
    }
}
