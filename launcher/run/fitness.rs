//! Which ELF files can run under the interpreter.

use crate::elf::{Headers, ReadAt};
use crate::report::Image;
use goblin::elf::header;
use std::fmt;

/// Why an ELF file can't run under the interpreter.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A direct start would fail too.
    Format,
    /// A program of 32 bits; the name of its machine.
    Class32(&'static str),
    /// A program for another machine; its name.
    Machine(&'static str),
    /// Neither an interpreter nor a static program: it has no entry point, or needs libraries.
    Library,
    /// A program of another C library; its interpreter.
    Interpreter(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Format => f.write_str("cannot execute binary file: Exec format error"),
            Unfit::Class32(machine) => write!(f, "can't be sealed: a 32-bit program ({machine}), not x86-64"),
            Unfit::Machine(machine) => {
                write!(f, "can't be sealed: a program for a foreign machine ({machine}), not x86-64")
            }
            Unfit::Library => f.write_str("can't be sealed: a library, not a program"),
            Unfit::Interpreter(path) if path.contains("musl") => {
                write!(f, "can't be sealed: a musl program (its interpreter is {path}), not a glibc one")
            }
            Unfit::Interpreter(path) => {
                write!(f, "can't be sealed: its interpreter {path} is not glibc's ld-linux-x86-64.so.2")
            }
        }
    }
}

/// Checks that the file is a dynamically linked glibc program or a static program for x86-64.
///
/// # Errors
/// What it is instead.
pub fn check(file: &(impl ReadAt + ?Sized)) -> Result<(), Unfit> {
    let start = file.read_at(0, header::SIZEOF_IDENT + 4).map_err(|_| Unfit::Format)?;
    let machine = [start[header::SIZEOF_IDENT + 2], start[header::SIZEOF_IDENT + 3]];
    let machine = match start[header::EI_DATA] {
        header::ELFDATA2LSB => u16::from_le_bytes(machine),
        header::ELFDATA2MSB => u16::from_be_bytes(machine),
        _ => return Err(Unfit::Format),
    };
    let name = header::machine_to_str(machine);
    if machine != header::EM_X86_64 && machine != header::EM_386 {
        return Err(Unfit::Machine(name));
    }
    if start[header::EI_CLASS] == header::ELFCLASS32 {
        return Err(Unfit::Class32(if machine == header::EM_X86_64 { "x32" } else { name }));
    }
    if machine != header::EM_X86_64 {
        return Err(Unfit::Format);
    }
    let headers = Headers::read(file).ok_or(Unfit::Format)?;
    let Some(interpreter) = headers.interpreter(file).map_err(|_| Unfit::Format)? else {
        let needs_nothing = Image::read(file).is_some_and(|image| image.needed.is_empty());
        return if needs_nothing && headers.file.e_entry != 0 { Ok(()) } else { Err(Unfit::Library) };
    };
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    if name == "ld-linux-x86-64.so.2" || name == crate::interpreter::NAME {
        Ok(())
    } else {
        Err(Unfit::Interpreter(interpreter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::program_header::{PT_INTERP, PT_LOAD};

    /// A file of one PT_LOAD and, when given, a PT_INTERP.
    fn file(class: u8, machine: u16, interpreter: Option<&[u8]>) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
        file[16..18].copy_from_slice(&header::ET_DYN.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[20] = 1;
        file[32] = 64;
        file[52] = 64;
        file[54] = 56;
        file[56] = 2;
        let path = interpreter.unwrap_or_default();
        let second = if interpreter.is_some() { PT_INTERP } else { 0 };
        for (p_type, offset, size) in [(PT_LOAD, 0u64, 176u64), (second, 176, path.len() as u64)] {
            file.extend(p_type.to_le_bytes());
            file.extend(4u32.to_le_bytes());
            for value in [offset, offset, offset, size, size, 1] {
                file.extend(value.to_le_bytes());
            }
        }
        file.extend(path);
        file
    }

    fn checked(interpreter: &[u8]) -> Result<(), Unfit> {
        check(&file(2, header::EM_X86_64, Some(interpreter))[..])
    }

    #[test]
    fn glibc_programs_are_fit() {
        assert_eq!(checked(b"/lib64/ld-linux-x86-64.so.2\0"), Ok(()));
        assert_eq!(checked(b"/nix/store/x-glibc-2.40/lib/ld-linux-x86-64.so.2\0"), Ok(()));
        assert_eq!(checked(b"/opt/ld-seal.so\0"), Ok(()));
    }

    #[test]
    fn others_are_named() {
        let message = |result: Result<(), Unfit>| result.expect_err("fit").to_string();
        assert!(message(checked(b"/lib/ld-musl-x86_64.so.1\0")).contains("musl"));
        assert!(message(checked(b"/system/bin/linker64\0")).contains("/system/bin/linker64"));
        assert!(message(check(&file(1, header::EM_386, None)[..])).contains("32-bit"));
        assert!(message(check(&file(1, header::EM_X86_64, None)[..])).contains("x32"));
        assert!(message(check(&file(2, header::EM_AARCH64, None)[..])).contains("AARCH64"));
        assert!(message(check(&file(1, header::EM_ARM, None)[..])).contains("ARM"));
        assert_eq!(check(&file(2, header::EM_X86_64, None)[..]), Err(Unfit::Library));
    }

    #[test]
    fn what_the_kernel_refuses_is_no_program() {
        for path in [&b""[..], b"\0", b"/lib64/ld-linux-x86-64.so.2"] {
            assert_eq!(checked(path), Err(Unfit::Format), "{path:?}");
        }
        let whole = file(2, header::EM_X86_64, Some(b"/lib64/ld-linux-x86-64.so.2\0"));
        for length in 0..whole.len() {
            assert_eq!(check(&whole[..length]), Err(Unfit::Format), "{length}");
        }
        for (at, value) in [(16, 1), (16, 4), (54, 32), (56, 0), (5, 0), (5, 3), (4, 0)] {
            let mut broken = whole.clone();
            broken[at] = value;
            assert_eq!(check(&broken[..]), Err(Unfit::Format), "byte {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_survived(at in 0usize..176, value: u8, second in 0usize..176, other: u8) {
            let mut file = file(2, header::EM_X86_64, Some(b"/lib64/ld-linux-x86-64.so.2\0"));
            file[at] = value;
            file[second] = other;
            let _ = check(&file[..]);
        }
    }
}
