//! Opening a file as an ELF object: reading and checking its headers, and mapping it.

use crate::addr::Bias;
use crate::elf::header::{self, FileHeader, ProgramHeader, PHDR_SIZE};
use crate::error::{LoadError, Lossy, Reason};
use crate::image::Image;
use crate::map::apply::{self, Refused};
use crate::map::plan;
use crate::memory;
use crate::object::{Kind, Object, Origin};
use crate::seal::tunables::ImageMemory;
use crate::sys::{self, FileStatus};
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;
use goblin::elf64::dynamic::{DF_1_NOOPEN, DF_1_PIE};
use goblin::elf64::header::ET_EXEC;
use goblin::elf64::program_header::PT_DYNAMIC;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// How much of a file is read at once: with fourteen program headers, as libc.so.6 has, the ELF header and the program headers do
/// not fit into much less.
const FIRST_READ: usize = 2048;

/// What a file is loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// The start of a program.
    Start,
    /// A dlopen, which may not load an object with DF_1_NOOPEN.
    Dlopen,
}

/// A file that was opened and whose headers are those of a loadable object.
pub struct Opened {
    /// The name under which it was opened.
    pub path: CString,
    /// The open file.
    pub fd: OwnedFd,
    /// Identity and size.
    pub status: FileStatus,
    /// Its ELF header.
    pub header: FileHeader,
    /// Its program headers.
    pub headers: Vec<ProgramHeader>,
}

impl Opened {
    /// Whether it has a dynamic section.
    pub fn has_dynamic(&self) -> bool {
        has_dynamic(&self.headers)
    }
}

/// Why a file was not opened.
pub enum OpenError {
    /// There is none, or it may not be read, or it is for another machine: a search goes on.
    Unsuitable(LoadError),
    /// Opening failed in a way that speaks of the directory (a loop of links, no more descriptors): a search leaves out the rest
    /// of the same search path, as glibc does.
    Unreachable(LoadError),
    /// It is there and it is broken: a search ends.
    Broken(LoadError),
}

impl OpenError {
    /// The error, when no search goes on.
    pub fn into_error(self) -> LoadError {
        match self {
            OpenError::Unsuitable(e) | OpenError::Unreachable(e) | OpenError::Broken(e) => e,
        }
    }
}

/// Opens `path` and checks its headers.
pub fn open(path: CString) -> Result<Opened, OpenError> {
    let fd = sys::open_read(&path).map_err(|errno| {
        let error = LoadError::system(path.to_bytes(), "cannot open shared object file", errno);
        if matches!(errno, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) {
            OpenError::Unsuitable(error)
        } else {
            OpenError::Unreachable(error)
        }
    })?;
    check(path, fd)
}

/// Checks the headers of a file that is open already; `path` is what it is called.
pub fn check(path: CString, fd: OwnedFd) -> Result<Opened, OpenError> {
    let name = path.to_bytes();
    let system = |what, errno| OpenError::Broken(LoadError::system(name, what, errno));
    let mut first = [0u8; FIRST_READ];
    let read = sys::read_at(fd.as_fd(), &mut first, 0).map_err(|e| system("cannot read file data", e))?;
    let first = &first[..read];
    let header = header::parse(first).map_err(|reason| {
        let mut error = LoadError::new(name, reason);
        if matches!(error.reason, Reason::Fault("cannot open shared object file")) {
            error.errno = Some(Errno::NOENT);
        }
        if error.is_absence() {
            OpenError::Unsuitable(error)
        } else {
            OpenError::Broken(error)
        }
    })?;
    let status = sys::status(fd.as_fd()).map_err(|e| system("cannot stat shared object", e))?;
    let headers = read_headers(&fd, first, &header, status.size)
        .map_err(|(reason, errno)| OpenError::Broken(LoadError { object: name.to_vec(), reason, errno }))?;
    Ok(Opened { path, fd, status, header, headers })
}

fn read_headers(
    fd: &OwnedFd,
    first: &[u8],
    header: &FileHeader,
    file_size: u64,
) -> Result<Vec<ProgramHeader>, (Reason, Option<Errno>)> {
    let outside = || (Reason::Fault("cannot read file data"), None);
    let no_memory = |reason| (reason, None);
    let range = header.program_headers().filter(|r| r.end <= file_size).ok_or_else(outside)?;
    let (start, end) = (range.start as usize, range.end as usize);
    let mut more;
    let table = match first.get(start..end) {
        Some(table) => table,
        None => {
            more = memory::with_capacity(header.phnum * PHDR_SIZE).map_err(no_memory)?;
            more.resize(header.phnum * PHDR_SIZE, 0);
            match sys::read_at(fd.as_fd(), &mut more, range.start) {
                Ok(n) if n == more.len() => &more,
                Ok(_) => return Err(outside()),
                Err(errno) => return Err((Reason::Fault("cannot read file data"), Some(errno))),
            }
        }
    };
    let mut headers = memory::with_capacity(header.phnum).map_err(no_memory)?;
    headers.extend((0..header.phnum).filter_map(|i| header::program_header(table, i)));
    Ok(headers)
}

fn has_dynamic(headers: &[ProgramHeader]) -> bool {
    header::find_last(headers, PT_DYNAMIC).is_some_and(|h| h.p_filesz != 0)
}

/// Maps an opened file as an object of a kind.
///
/// # Errors
/// What can't be mapped or parsed; nothing stays mapped then.
///
/// `asked` is the name by which complaints call the file.
pub fn load(
    opened: Opened,
    kind: Kind,
    asked: &[u8],
    memory: ImageMemory,
    occasion: Occasion,
) -> Result<Box<Object>, LoadError> {
    let Opened { path, fd, status, header, headers } = opened;
    let complain = |reason| LoadError::new(asked, reason);
    if kind == Kind::Library && header.e_type == ET_EXEC {
        return Err(complain(Reason::Fault("cannot dynamically load executable")));
    }
    let plan = plan::plan(header.e_type, &headers, status.size).map_err(complain)?;
    if !has_dynamic(&headers) {
        return Err(complain(Reason::Fault("object file has no dynamic section")));
    }
    let mapped = map(&fd, plan, status.size, asked, memory)?;
    let image =
        adopt(&headers, mapped.bias).ok_or_else(|| complain(Reason::Fault("object file has no loadable segments")))?;
    let origin = Origin { name: path.clone(), kind, file: Some(status.id), entry: crate::addr::VAddr(header.entry) };
    let object = Object::parse(origin, headers, image)?;
    if kind == Kind::Library && object.dynamic.has_flag_1(DF_1_PIE) {
        return Err(complain(Reason::Fault("cannot dynamically load position-independent executable")));
    }
    if occasion == Occasion::Dlopen && object.dynamic.has_flag_1(DF_1_NOOPEN) {
        return Err(complain(Reason::Fault("shared object cannot be dlopen()ed")));
    }
    mapped.keep();
    Ok(object)
}

/// Maps an image in the memory that is wanted.
///
/// # Errors
/// The kernel refuses.
pub fn map(
    fd: &OwnedFd,
    plan: plan::MapPlan,
    file_size: u64,
    asked: &[u8],
    memory: ImageMemory,
) -> Result<apply::MappedImage, LoadError> {
    // As in glibc 2.36 without the reason.
    let refused = |refused: Refused| LoadError::fault(asked, refused.what);
    if memory == ImageMemory::File {
        return apply::map_image(fd.as_fd(), &plan).map_err(refused);
    }
    match apply::map_image(fd.as_fd(), &plan.clone().copied(file_size)) {
        // What refuses it: PR_SET_MDWE, or a security module (execmem).
        Err(Refused { errno: errno @ (Errno::ACCESS | Errno::PERM), .. }) if memory == ImageMemory::Anonymous => {
            Err(LoadError::system(asked, NO_ANONYMOUS_TEXT, errno))
        }
        Err(Refused { errno: errno @ (Errno::ACCESS | Errno::PERM), .. }) => {
            log::debug!(target: "seal", "{}: {NO_ANONYMOUS_TEXT}: {}", Lossy(asked), crate::errno::text(errno));
            apply::map_image(fd.as_fd(), &plan).map_err(refused)
        }
        other => other.map_err(refused),
    }
}

/// What is said where anonymous memory can't be made executable.
pub const NO_ANONYMOUS_TEXT: &str = "text in anonymous memory is refused (ldseal.anonymous=all)";

fn adopt(headers: &[ProgramHeader], bias: Bias) -> Option<Image> {
    // SAFETY: the image was mapped from these program headers just now, and whoever unmaps it drops the object first.
    unsafe { Image::adopt(headers, bias) }
}
