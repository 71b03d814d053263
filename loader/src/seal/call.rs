//! mseal(2) for Rust programs: the call with the errors that the kernel's documentation names, and the question whether an address is
//! sealed (`Documentation/userspace-api/mseal.rst`).

use crate::addr::{Addr, PAGE_SIZE};
use crate::sys;
use core::fmt;
use core::ops::Range;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

/// Why memory was not sealed. Unless it says otherwise nothing was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// EINVAL: the start is not the first byte of a page, or the end lies beyond what an address can be.
    Invalid,
    /// ENOMEM: a page of the range is not mapped, or lies outside of user space, or the kernel had no memory to split a mapping. In the last
    /// case a part of the range may be sealed.
    NotMapped,
    /// EPERM: the kernel or a filter does not allow it; the kernel of a 32-bit process never does.
    NotPermitted,
    /// ENOSYS: Linux before 6.10, or a filter that hides the call.
    Unsupported,
    /// Something that the documentation does not name: a filter's choice.
    Other(Errno),
}

impl From<Errno> for SealError {
    fn from(errno: Errno) -> SealError {
        match errno {
            Errno::INVAL => SealError::Invalid,
            Errno::NOMEM => SealError::NotMapped,
            Errno::PERM => SealError::NotPermitted,
            Errno::NOSYS => SealError::Unsupported,
            other => SealError::Other(other),
        }
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Invalid => "the range does not begin at a page, or is too long",
            SealError::NotMapped => "a part of the range is not mapped, or there is no memory",
            SealError::NotPermitted => "sealing is not permitted",
            SealError::Unsupported => "this kernel does not seal",
            SealError::Other(errno) => crate::errno::text(*errno),
        })
    }
}

impl core::error::Error for SealError {}

/// Seals the pages of a range for the life of the process: nobody can unmap, move, replace or re-protect them any more. An end within a page
/// counts for the whole page. Sealing twice is no error.
///
/// # Errors
/// See [`SealError`].
pub fn mseal(range: Range<Addr>) -> Result<(), SealError> {
    if range.end < range.start {
        return Err(SealError::Invalid);
    }
    sys::mseal(range).map_err(SealError::from)
}

/// Whether memory is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sealed {
    /// It is.
    Yes,
    /// It is mapped and not sealed.
    No,
    /// It can't be told.
    Unknown,
}

/// Whether the page at an address of this process is sealed. `/proc/self/smaps` says so (the flag `sl`); where the flag is missing, a call
/// is tried that a seal refuses and that changes nothing where it succeeds: mprotect with the protection that the page has. Without smaps
/// that is not known either, and the answer is [`Sealed::Unknown`].
pub fn is_sealed(at: Addr) -> Sealed {
    let smaps = sys::open_read(c"/proc/self/smaps").ok();
    let told = smaps.as_ref().and_then(|fd| told(fd.as_fd(), at));
    match told {
        Some(Told { sealed: true, .. }) => Sealed::Yes,
        // The flag is missing: nobody says whether this kernel prints it, so the page is asked.
        Some(Told { protection: Some(prot), .. }) => tried(at, prot),
        Some(_) | None => Sealed::Unknown,
    }
}

/// Whether the page at an address of another process is sealed, by its `smaps`. `prints_seals` says whether the kernel prints seals at all,
/// as one that knows mseal does on 64-bit machines; without that a missing flag says nothing.
pub fn is_sealed_in(smaps: BorrowedFd<'_>, at: Addr, prints_seals: bool) -> Sealed {
    match told(smaps, at) {
        Some(Told { sealed: true, .. }) => Sealed::Yes,
        Some(Told { sealed: false, .. }) if prints_seals => Sealed::No,
        _ => Sealed::Unknown,
    }
}

fn tried(at: Addr, prot: sys::Prot) -> Sealed {
    let page = at.page_floor();
    // SAFETY: the page keeps the protection that it has.
    match unsafe { sys::protect(page..Addr(page.0 + PAGE_SIZE as usize), prot) } {
        Ok(()) => Sealed::No,
        Err(Errno::PERM) => Sealed::Yes,
        Err(_) => Sealed::Unknown,
    }
}

/// What smaps says about the mapping of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    sealed: bool,
    /// `None` for a mapping whose protection mprotect can't express or must not touch.
    protection: Option<sys::Prot>,
}

fn told(smaps: BorrowedFd<'_>, at: Addr) -> Option<Told> {
    let mut search = Search { at: at.0, found: None };
    let mut line = [0u8; 256];
    let mut filled = 0;
    let mut buffer = [0u8; 4096];
    loop {
        let read = sys::read(smaps, &mut buffer).ok()?;
        if read == 0 {
            return None;
        }
        for &byte in &buffer[..read] {
            if byte != b'\n' {
                // What is cut off is the end of a file's name.
                if let Some(place) = line.get_mut(filled) {
                    *place = byte;
                    filled += 1;
                }
                continue;
            }
            if let Some(told) = search.line(&line[..filled]) {
                return Some(told);
            }
            filled = 0;
        }
    }
}

/// Goes through smaps line by line.
struct Search {
    at: usize,
    /// The protection of the mapping that holds the address, once it has been met.
    found: Option<Option<sys::Prot>>,
}

impl Search {
    /// Takes a line; the answer once it is complete.
    fn line(&mut self, line: &[u8]) -> Option<Told> {
        if let Some(protection) = self.found {
            let flags = line.strip_prefix(b"VmFlags:")?;
            let sealed = flags.split(|&b| b == b' ').any(|flag| flag == b"sl");
            return Some(Told { sealed, protection });
        }
        let line = core::str::from_utf8(line.get(..line.len().min(64))?).ok()?;
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        if (start..end).contains(&self.at) {
            let letters = rest.as_bytes().get(..3)?;
            let prot = sys::Prot { read: letters[0] == b'r', write: letters[1] == b'w', exec: letters[2] == b'x' };
            self.found = Some(Some(prot));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Place, Prot};

    fn page() -> Addr {
        // SAFETY: new memory at a place of the kernel's choice.
        unsafe { sys::map_anonymous(Place::Anywhere, 4096, Prot::READ, false) }.expect("memory")
    }

    #[test]
    fn a_page_is_sealed_and_says_so() {
        let page = page();
        let range = page..Addr(page.0 + 1);
        assert_eq!(is_sealed(page), Sealed::No);
        match mseal(range) {
            Ok(()) => {
                assert_eq!(is_sealed(Addr(page.0 + 4095)), Sealed::Yes);
                assert_eq!(tried(page, Prot::READ), Sealed::Yes);
            }
            Err(SealError::Unsupported | SealError::NotPermitted) => assert_eq!(is_sealed(page), Sealed::No),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(is_sealed(Addr(0)), Sealed::Unknown);
    }

    #[test]
    fn errors_are_the_documentation_s() {
        let start = page();
        let supported = mseal(start..start) == Ok(());
        // SAFETY: nobody uses the page.
        unsafe { sys::unmap(start..Addr(start.0 + 4096)) }.expect("unmapped");
        if supported {
            assert_eq!(mseal(Addr(start.0 + 1)..Addr(start.0 + 4096)), Err(SealError::Invalid));
            assert_eq!(mseal(Addr(4096)..Addr(8192)), Err(SealError::NotMapped));
        }
        assert_eq!(mseal(Addr(8192)..Addr(4096)), Err(SealError::Invalid));
        assert_eq!(SealError::from(Errno::ACCESS), SealError::Other(Errno::ACCESS));
    }

    #[test]
    fn without_a_flag_other_processes_are_unknown() {
        let page = page();
        let asked = |prints| {
            let smaps = sys::open_read(c"/proc/self/smaps").expect("readable");
            is_sealed_in(smaps.as_fd(), page, prints)
        };
        assert_eq!((asked(true), asked(false)), (Sealed::No, Sealed::Unknown));
    }

    #[test]
    fn lines_are_read_in_pairs() {
        let mut search = Search { at: 0x1800, found: None };
        assert_eq!(search.line(b"0-1000 r--p 0 00:00 0"), None);
        assert_eq!(search.line(b"VmFlags: rd sl"), None);
        assert_eq!(search.line(b"1000-2000 rw-p 0 00:00 0 /a b"), None);
        assert_eq!(search.line(b"Size: 4 kB"), None);
        assert_eq!(search.line(b"VmFlags: rd wr sl "), Some(Told { sealed: true, protection: Some(Prot::READ_WRITE) }));
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line: std::vec::Vec<u8>) {
            let _ = Search { at: 0x1000, found: None }.line(&line);
            let _ = Search { at: 0x1000, found: Some(None) }.line(&line);
        }
    }
}
