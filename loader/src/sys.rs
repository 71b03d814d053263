//! The one door to the kernel. Nothing else in the workspace's product code names a system call.
//!
//! `rustix` makes the calls it knows; [`mseal`] and the process-start ones that it does not offer are made here.

use crate::addr::Addr;
use core::arch::asm;
use core::ffi::CStr;
use core::ops::Range;
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};

/// The result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// `mseal(2)`, Linux 6.10.
const NR_MSEAL: usize = 462;
const NR_ARCH_PRCTL: usize = 158;
const NR_SET_TID_ADDRESS: usize = 218;
const NR_SET_ROBUST_LIST: usize = 273;
const NR_RSEQ: usize = 334;
const NR_PRCTL: usize = 157;
const NR_EXIT_GROUP: usize = 231;
const NR_GETTID: usize = 186;
const NR_RT_SIGACTION: usize = 13;
const NR_SETITIMER: usize = 38;

/// A raw system call with up to five arguments; the result is the kernel's, a negative errno on failure.
///
/// # Safety
/// The caller answers for what the call does to memory and to the process.
unsafe fn raw(nr: usize, args: [usize; 5]) -> isize {
    let ret: isize;
    // SAFETY: the `syscall` instruction clobbers rcx and r11 only; what the call itself does is the caller's contract.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => ret, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
             in("r10") args[3], in("r8") args[4], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

fn check(ret: isize) -> Result<usize> {
    if (-4095..0).contains(&ret) {
        return Err(Errno::from_raw_os_error((-ret) as i32));
    }
    Ok(ret as usize)
}

/// Memory protections of a mapping, as `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` combine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct Prot {
    /// `PROT_READ`
    pub read: bool,
    /// `PROT_WRITE`
    pub write: bool,
    /// `PROT_EXEC`
    pub exec: bool,
}

impl Prot {
    /// `PROT_NONE`
    pub const NONE: Prot = Prot { read: false, write: false, exec: false };
    /// `PROT_READ`
    pub const READ: Prot = Prot { read: true, write: false, exec: false };
    /// `PROT_READ | PROT_WRITE`
    pub const READ_WRITE: Prot = Prot { read: true, write: true, exec: false };

    /// The protections that the `p_flags` of a program header ask for (gABI, "Segment Permissions").
    pub const fn from_segment_flags(p_flags: u32) -> Prot {
        Prot { read: p_flags & 4 != 0, write: p_flags & 2 != 0, exec: p_flags & 1 != 0 }
    }

    /// The same protections and the right to write.
    pub const fn writable(self) -> Prot {
        Prot { write: true, ..self }
    }

    fn map_flags(self) -> ProtFlags {
        let mut flags = ProtFlags::empty();
        flags.set(ProtFlags::READ, self.read);
        flags.set(ProtFlags::WRITE, self.write);
        flags.set(ProtFlags::EXEC, self.exec);
        flags
    }

    fn mprotect_flags(self) -> MprotectFlags {
        let mut flags = MprotectFlags::empty();
        flags.set(MprotectFlags::READ, self.read);
        flags.set(MprotectFlags::WRITE, self.write);
        flags.set(MprotectFlags::EXEC, self.exec);
        flags
    }
}

impl core::fmt::Display for Prot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let letter = |on, c| if on { c } else { '-' };
        write!(f, "{}{}{}", letter(self.read, 'r'), letter(self.write, 'w'), letter(self.exec, 'x'))
    }
}

/// Where a new mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Wherever the kernel likes.
    Anywhere,
    /// At this address, which must be free.
    Free(Addr),
    /// At this address, in place of what is there: the range must be the caller's own.
    Replace(Addr),
}

impl Place {
    fn parts(self) -> (usize, MapFlags) {
        match self {
            Place::Anywhere => (0, MapFlags::empty()),
            Place::Free(at) => (at.0, MapFlags::FIXED_NOREPLACE),
            Place::Replace(at) => (at.0, MapFlags::FIXED),
        }
    }
}

/// Identity and size of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Device and inode: two names with the same pair are one file.
    pub id: FileId,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is a regular file.
    pub regular: bool,
    /// Whether it has the set-user-ID bit.
    pub set_user_id: bool,
}

/// Device and inode of a file; one object is loaded once per pair and namespace, as in glibc.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `st_dev`
    pub dev: u64,
    /// `st_ino`
    pub ino: u64,
}

/// Opens `path` for reading, close-on-exec.
pub fn open_read(path: &CStr) -> Result<OwnedFd> {
    rustix::fs::openat(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens or creates `path` for appending, for `LD_DEBUG_OUTPUT`.
pub fn open_append(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::from_raw_mode(0o666))
}

/// Opens or creates `path` for reading and writing, for a file that processes share (`LD_PROFILE`).
pub fn open_shared(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::from_raw_mode(0o666))
}

/// Makes an open file `size` bytes long; what is new is zeroes.
pub fn set_size(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    rustix::fs::ftruncate(fd, size)
}

/// Maps `len` bytes from the start of a file, for reading and writing, shared with other processes.
pub fn map_shared(len: usize, fd: BorrowedFd<'_>) -> Result<Addr> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses a free range.
    let p = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0)? };
    Ok(Addr(p as usize))
}

/// Has a signal handled with all signals blocked, interrupted calls being taken up again (`SA_SIGINFO`, `SA_RESTART`).
///
/// # Safety
/// `handler` must be a handler with three arguments for any thread at any time, `restorer` code that calls `rt_sigreturn`.
pub unsafe fn set_signal_handler(signal: i32, handler: usize, restorer: usize) -> Result<()> {
    const FLAGS: usize = 4 | 0x1000_0000 | 0x0400_0000;
    // The kernel's `struct sigaction`: handler, flags, restorer, mask of eight bytes.
    let action = [handler, FLAGS, restorer, usize::MAX];
    // SAFETY: the caller's contract; the structure is only read.
    check(unsafe { raw(NR_RT_SIGACTION, [signal as usize, action.as_ptr() as usize, 0, 8, 0]) }).map(drop)
}

/// Has `SIGPROF` sent each time the process has used so many microseconds of processor time, less than a second.
pub fn set_profiling_timer(microseconds: u32) -> Result<()> {
    const ITIMER_PROF: usize = 2;
    let interval = [0, u64::from(microseconds), 0, u64::from(microseconds)];
    // SAFETY: the two times are only read.
    check(unsafe { raw(NR_SETITIMER, [ITIMER_PROF, interval.as_ptr() as usize, 0, 0, 0]) }).map(drop)
}

/// Where one of the descriptors 0 to 2 is closed, opens something harmless in its place: `/dev/full` for input, which can't be read, and
/// `/dev/null` for output, which can't be written. The descriptors below it must be open.
///
/// # Errors
/// The device can't be opened, or is another one.
pub fn occupy_descriptor(number: i32) -> Result<()> {
    // SAFETY: the descriptor is only asked for; it need not be open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::fs::fstat(descriptor).err() != Some(Errno::BADF) {
        return Ok(());
    }
    let (path, mode, minor) =
        if number == 0 { (c"/dev/full", OFlags::WRONLY, 7) } else { (c"/dev/null", OFlags::RDONLY, 3) };
    let opened = rustix::fs::open(path, mode | OFlags::NOFOLLOW, Mode::empty())?;
    let is_meant = rustix::fs::fstat(&opened)?.st_rdev == rustix::fs::makedev(1, minor);
    // From here on it is open for the life of the process.
    if opened.into_raw_fd() == number && is_meant {
        Ok(())
    } else {
        Err(Errno::NODEV)
    }
}

/// Device, inode, size and kind of an open file.
pub fn status(fd: BorrowedFd<'_>) -> Result<FileStatus> {
    // As glibc's loader asks: a filter that was made for it may not know fstat(2).
    let st = rustix::fs::statat(fd, c"", rustix::fs::AtFlags::EMPTY_PATH)?;
    let regular = rustix::fs::FileType::from_raw_mode(st.st_mode) == rustix::fs::FileType::RegularFile;
    let set_user_id = Mode::from_raw_mode(st.st_mode).contains(Mode::SUID);
    Ok(FileStatus { id: FileId { dev: st.st_dev, ino: st.st_ino }, size: st.st_size as u64, regular, set_user_id })
}

/// Device and inode of `path`, which must be a directory for the answer to be `Ok(true)`.
pub fn is_directory(path: &CStr) -> Result<bool> {
    let st = rustix::fs::stat(path)?;
    Ok(rustix::fs::FileType::from_raw_mode(st.st_mode) == rustix::fs::FileType::Directory)
}

/// Identity of the file at `path`.
pub fn file_id(path: &CStr) -> Result<FileId> {
    let st = rustix::fs::stat(path)?;
    Ok(FileId { dev: st.st_dev, ino: st.st_ino })
}

/// Reads into `buf` at `offset` until it is full or the file ends; the number of bytes read.
pub fn read_at(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(fd, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads once from the current position.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    rustix::io::read(fd, buf)
}

/// Whether a file may be executed, for the real user and group.
///
/// # Errors
/// It may not, or is not there.
pub fn may_execute(path: &CStr) -> Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::empty())
}

/// Reads a symbolic link into `buf`; the part of it that was filled.
pub fn read_link<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8]> {
    let (target, _) = rustix::fs::readlinkat_raw(rustix::fs::CWD, path, buf_uninit(buf))?;
    Ok(target)
}

fn buf_uninit(buf: &mut [u8]) -> &mut [core::mem::MaybeUninit<u8>] {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and `readlinkat_raw` writes initialised bytes only.
    unsafe { &mut *(core::ptr::from_mut(buf) as *mut [core::mem::MaybeUninit<u8>]) }
}

/// The current working directory, without its terminating NUL.
pub fn current_directory(buf: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: getcwd (79) writes at most `buf.len()` bytes into `buf`.
    let n = check(unsafe { raw(79, [buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0]) })?;
    Ok(&buf[..n.saturating_sub(1)])
}

/// Writes all of `bytes` to `fd`, giving up silently on an error: there is nowhere left to report it.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return,
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The standard error stream.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is only borrowed; if it is closed, writes to it fail with EBADF, which is ignored.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// The standard output stream.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as for `stderr`.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Maps `len` bytes of `fd` from `offset`, privately.
///
/// # Safety
/// With [`Place::Replace`] nothing may use the old contents of the range afterwards.
pub unsafe fn map_file(place: Place, len: usize, prot: Prot, fd: impl AsFd, offset: u64) -> Result<Addr> {
    let (at, flags) = place.parts();
    // SAFETY: the caller owns the range that `Replace` overwrites; the other places touch no existing memory.
    let p = unsafe { rustix::mm::mmap(at as *mut _, len, prot.map_flags(), MapFlags::PRIVATE | flags, fd, offset)? };
    Ok(Addr(p as usize))
}

/// Maps `len` bytes of zeroes; `populate` asks the kernel to fault all of them in at once.
///
/// # Safety
/// With [`Place::Replace`] nothing may use the old contents of the range afterwards.
pub unsafe fn map_anonymous(place: Place, len: usize, prot: Prot, populate: bool) -> Result<Addr> {
    let (at, mut flags) = place.parts();
    if populate {
        flags |= MapFlags::POPULATE;
    }
    // SAFETY: as for `map_file`.
    let p = unsafe { rustix::mm::mmap_anonymous(at as *mut _, len, prot.map_flags(), MapFlags::PRIVATE | flags)? };
    Ok(Addr(p as usize))
}

/// Unmaps a range.
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn unmap(range: Range<Addr>) -> Result<()> {
    // SAFETY: the caller gives the range up.
    unsafe { rustix::mm::munmap(range.start.as_mut_ptr(), range.end.0 - range.start.0) }
}

/// Moves the mapping `from` on top of what is mapped at `to`, atomically for other readers.
///
/// # Safety
/// Nothing may use `from`, nor the old contents of the target, afterwards.
pub unsafe fn move_mapping(from: Range<Addr>, to: Addr) -> Result<()> {
    let len = from.end.0 - from.start.0;
    // SAFETY: both ranges are the caller's.
    unsafe {
        rustix::mm::mremap_fixed(from.start.as_mut_ptr(), len, len, MremapFlags::MAYMOVE, to.as_mut_ptr())?;
    }
    Ok(())
}

/// Changes the protection of a range of whole pages.
///
/// # Safety
/// No access that the new protection forbids may follow.
pub unsafe fn protect(range: Range<Addr>, prot: Prot) -> Result<()> {
    // SAFETY: the caller answers for later accesses.
    unsafe { rustix::mm::mprotect(range.start.as_mut_ptr(), range.end.0 - range.start.0, prot.mprotect_flags()) }
}

/// Makes the pages readable, writable and perhaps executable, and all below them of a mapping that grows downwards (`PROT_GROWSDOWN`): a
/// stack.
///
/// # Safety
/// The range must be the end of a stack, on which no code lies that is used without the right to execute it.
pub unsafe fn protect_downwards(range: Range<Addr>, executable: bool) -> Result<()> {
    const NR_MPROTECT: usize = 10;
    const READ_WRITE_GROWSDOWN: usize = 3 | 0x0100_0000;
    const EXEC: usize = 4;
    let prot = READ_WRITE_GROWSDOWN | if executable { EXEC } else { 0 };
    // SAFETY: the caller answers for accesses that follow.
    check(unsafe { raw(NR_MPROTECT, [range.start.0, range.end.0 - range.start.0, prot, 0, 0]) }).map(drop)
}

/// Seals a range of whole mapped pages: its mappings can never be unmapped, moved, replaced or re-protected again.
///
/// Safe, because a seal changes no byte and forbids no access that was allowed before.
pub fn mseal(range: Range<Addr>) -> Result<()> {
    mseal_with_flags(range.start, range.end.0 - range.start.0, 0)
}

/// The same call with all its arguments, as a program makes it.
pub fn mseal_with_flags(start: Addr, len: usize, flags: usize) -> Result<()> {
    // SAFETY: mseal reads and writes no memory of the process.
    check(unsafe { raw(NR_MSEAL, [start.0, len, flags, 0, 0]) }).map(drop)
}

/// Whether a page belongs to a mapping of device or kernel pages, such as `[vvar]`. Asked by a hint that has no effect and that only such
/// mappings refuse.
pub fn is_kernel_page(page: Addr) -> bool {
    // SAFETY: MADV_COLD changes no contents.
    let hint = unsafe { rustix::mm::madvise(page.as_mut_ptr(), 4096, rustix::mm::Advice::LinuxCold) };
    hint == Err(Errno::INVAL)
}

/// Asks the kernel to make the pages of a range the process's own now, instead of one by one as they are written (`MADV_POPULATE_WRITE`). A
/// kernel that does not know how leaves it at the latter.
pub fn populate_for_writing(range: Range<Addr>) {
    // SAFETY: no contents change.
    let _ = unsafe {
        rustix::mm::madvise(
            range.start.as_mut_ptr(),
            range.end.0 - range.start.0,
            rustix::mm::Advice::LinuxPopulateWrite,
        )
    };
}

/// Asks the kernel to clear a range in the children of a fork (`MADV_WIPEONFORK`).
pub fn wipe_on_fork(range: Range<Addr>) -> Result<()> {
    // SAFETY: in this process nothing changes.
    unsafe {
        rustix::mm::madvise(range.start.as_mut_ptr(), range.end.0 - range.start.0, rustix::mm::Advice::LinuxWipeOnFork)
    }
}

/// Sets the FS base of the calling thread: its thread pointer.
///
/// # Safety
/// `tp` must point to a thread control block that fits the code which will use it.
pub unsafe fn set_thread_pointer(tp: Addr) -> Result<()> {
    const ARCH_SET_FS: usize = 0x1002;
    // SAFETY: the caller vouches for `tp`.
    check(unsafe { raw(NR_ARCH_PRCTL, [ARCH_SET_FS, tp.0, 0, 0, 0]) }).map(drop)
}

/// Names the word that the kernel clears and wakes when this thread ends; the caller's thread id.
///
/// # Safety
/// `word` must stay valid for the life of the thread.
pub unsafe fn set_tid_address(word: Addr) -> u32 {
    // SAFETY: the caller vouches for `word`; this call cannot fail.
    unsafe { raw(NR_SET_TID_ADDRESS, [word.0, 0, 0, 0, 0]) as u32 }
}

/// Registers the head of the thread's robust mutex list (`set_robust_list(2)`).
///
/// # Safety
/// `head` must stay a valid `struct robust_list_head` for the life of the thread.
pub unsafe fn set_robust_list(head: Addr, size: usize) -> Result<()> {
    // SAFETY: the caller vouches for `head`.
    check(unsafe { raw(NR_SET_ROBUST_LIST, [head.0, size, 0, 0, 0]) }).map(drop)
}

/// Registers a restartable-sequences area for the thread (`rseq(2)`).
///
/// # Safety
/// `area` must stay valid, and 32-byte aligned, for the life of the thread.
pub unsafe fn register_rseq(area: Addr, size: usize, signature: u32) -> Result<()> {
    // SAFETY: the caller vouches for `area`.
    check(unsafe { raw(NR_RSEQ, [area.0, size, 0, signature as usize, 0]) }).map(drop)
}

/// `prctl(2)` with numeric arguments that name no memory which it would write.
///
/// # Safety
/// The caller answers for what the operation does to the process.
pub unsafe fn prctl(op: usize, args: [usize; 4]) -> Result<usize> {
    // SAFETY: the caller's contract.
    check(unsafe { raw(NR_PRCTL, [op, args[0], args[1], args[2], args[3]]) })
}

/// Ends the process.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: exit_group does not return and touches no memory of ours.
        unsafe { raw(NR_EXIT_GROUP, [status as usize, 0, 0, 0, 0]) };
    }
}

/// The kernel's id of the calling thread.
pub fn gettid() -> u32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { raw(NR_GETTID, [0; 5]) as u32 }
}

/// The process id.
pub fn getpid() -> u32 {
    // SAFETY: getpid (39) has no arguments and cannot fail.
    unsafe { raw(39, [0; 5]) as u32 }
}

/// What the kernel calls itself and the machine.
pub fn uname() -> rustix::system::Uname {
    rustix::system::uname()
}

/// What `PR_SET_MM_MAP` sets: `struct prctl_mm_map` of `linux/prctl.h`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)]
pub struct MemoryMap {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv: u64,
    pub auxv_size: u32,
    pub exe_fd: u32,
}

/// Tells the kernel what it is to show of the process in `/proc` (`PR_SET_MM_MAP`, which needs no privilege but a kernel that is built for
/// checkpoint and restore).
pub fn set_memory_map(map: &MemoryMap) -> Result<()> {
    const PR_SET_MM: usize = 35;
    const PR_SET_MM_MAP: usize = 14;
    let size = core::mem::size_of::<MemoryMap>();
    // SAFETY: the kernel reads the structure; what it sets changes no memory.
    check(unsafe { raw(NR_PRCTL, [PR_SET_MM, PR_SET_MM_MAP, core::ptr::from_ref(map) as usize, size, 0]) }).map(drop)
}

/// The program break.
pub fn program_break() -> u64 {
    // SAFETY: brk(0) changes nothing.
    unsafe { raw(12, [0; 5]) as u64 }
}

/// Replaces the process image; returns only on failure.
///
/// # Safety
/// `argv` and `envp` must be NULL-terminated arrays of C strings.
pub unsafe fn execve(path: &CStr, argv: *const *const u8, envp: *const *const u8) -> Errno {
    // SAFETY: the caller vouches for the arrays; `path` is a C string.
    let ret = unsafe { raw(59, [path.as_ptr() as usize, argv as usize, envp as usize, 0, 0]) };
    Errno::from_raw_os_error((-ret) as i32)
}
