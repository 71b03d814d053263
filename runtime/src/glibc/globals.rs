//! The variables that glibc's ld.so exports and libc.so.6 imports: here they are blocks of bytes, and a [`super::layout::Layout`] says
//! where in them a field is.

use super::layout::BitField;
use core::cell::UnsafeCell;
use core::ops::Range;
use loader::addr::Addr;

/// Memory that libc or a debugger reads as a structure.
#[repr(C, align(64))]
pub struct Block<const N: usize>(UnsafeCell<[u8; N]>);

/// On pages that hold nothing else.
#[repr(C, align(4096))]
pub struct OwnPages<T>(T);

impl<T> core::ops::Deref for OwnPages<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: who may write when is glibc's protocol: `_rtld_global_ro` before any other code runs, `_rtld_global` under its locks.
unsafe impl<const N: usize> Sync for Block<N> {}

impl<const N: usize> Block<N> {
    const fn new() -> Self {
        Block(UnsafeCell::new([0; N]))
    }

    /// The structure that starts at the block's first byte.
    pub fn structure(&'static self) -> Structure {
        Structure { start: self.0.get().cast(), size: N }
    }
}

/// A structure of glibc's in memory.
#[derive(Clone, Copy)]
pub struct Structure {
    start: *mut u8,
    size: usize,
}

impl Structure {
    /// A structure of `size` bytes.
    ///
    /// # Safety
    /// The bytes must be valid for reads and writes for as long as the value and its copies are used.
    pub unsafe fn at(start: *mut u8, size: usize) -> Structure {
        Structure { start, size }
    }

    /// Where it lies.
    pub fn addr(&self) -> Addr {
        Addr(self.start as usize)
    }

    /// Where a field lies.
    pub fn field(&self, offset: usize) -> Addr {
        Addr(self.start as usize + offset)
    }

    /// Its bytes.
    pub fn range(&self) -> Range<Addr> {
        self.addr()..Addr(self.start as usize + self.size)
    }

    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.size);
        // SAFETY: the field lies inside the structure.
        fits.then(|| unsafe { self.start.add(offset).cast() })
    }

    fn store<T>(&self, offset: usize, value: T) {
        if let Some(p) = self.pointer(offset) {
            // SAFETY: the bytes are valid for writes (the type's invariant).
            unsafe { core::ptr::write_unaligned(p, value) };
        }
    }

    fn load<T: Default>(&self, offset: usize) -> T {
        // SAFETY: the bytes are valid for reads (the type's invariant).
        self.pointer(offset).map_or_else(T::default, |p| unsafe { core::ptr::read_unaligned(p) })
    }

    /// Stores an eight-byte field.
    pub fn put_u64(&self, offset: usize, value: u64) {
        self.store(offset, value);
    }

    /// Stores a four-byte field.
    pub fn put_u32(&self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    /// Stores a two-byte field.
    pub fn put_u16(&self, offset: usize, value: u16) {
        self.store(offset, value);
    }

    /// Stores a one-byte field.
    pub fn put_u8(&self, offset: usize, value: u8) {
        self.store(offset, value);
    }

    /// Stores a pointer.
    pub fn put_addr(&self, offset: usize, value: Addr) {
        self.store(offset, value.0 as u64);
    }

    /// Stores a bit-field.
    pub fn put_bits(&self, field: BitField, value: u8) {
        let byte: u8 = self.load(field.byte);
        self.store(field.byte, field.with(byte, value));
    }

    /// Reads an eight-byte field.
    pub fn get_u64(&self, offset: usize) -> u64 {
        self.load(offset)
    }

    /// Reads a four-byte field.
    pub fn get_u32(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    /// The bytes from an offset to the end.
    ///
    /// # Safety
    /// No other reference to the bytes may be live.
    pub unsafe fn tail_mut(&self, offset: usize) -> &'static mut [u8] {
        let offset = offset.min(self.size);
        // SAFETY: the bytes are inside the structure, and the caller vouches for exclusiveness.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(offset), self.size - offset) }
    }
}

/// Larger than `struct rtld_global` of any release.
pub const RTLD_GLOBAL_SIZE: usize = 8192;
/// Larger than `struct rtld_global_ro` of any release; the second half is for tables that it points to.
pub const RTLD_GLOBAL_RO_SIZE: usize = 8192;
/// Where in `_rtld_global_ro`'s block those tables start.
pub const RO_TABLES: usize = 4096;

/// `_rtld_global`
#[cfg_attr(feature = "interpreter", export_name = "_rtld_global")]
pub static RTLD_GLOBAL: Block<RTLD_GLOBAL_SIZE> = Block::new();

/// `_rtld_global_ro`: read-only and sealed once it is filled.
#[cfg_attr(feature = "interpreter", export_name = "_rtld_global_ro")]
pub static RTLD_GLOBAL_RO: OwnPages<Block<RTLD_GLOBAL_RO_SIZE>> = OwnPages(Block::new());

/// A variable of one word.
#[repr(transparent)]
pub struct Word<T>(UnsafeCell<T>);

// SAFETY: written before the program's first instruction and only read afterwards.
unsafe impl<T> Sync for Word<T> {}

impl<T: Copy> Word<T> {
    const fn new(value: T) -> Self {
        Word(UnsafeCell::new(value))
    }

    /// Sets the variable.
    ///
    /// # Safety
    /// Only while the interpreter is alone in the process.
    pub unsafe fn set(&self, value: T) {
        // SAFETY: the caller's contract.
        unsafe { *self.0.get() = value };
    }
}

/// `__libc_stack_end`: where the kernel put argc.
#[cfg_attr(feature = "interpreter", export_name = "__libc_stack_end")]
pub static LIBC_STACK_END: Word<usize> = Word::new(0);
/// `_dl_argv`
#[cfg_attr(feature = "interpreter", export_name = "_dl_argv")]
pub static DL_ARGV: Word<usize> = Word::new(0);
/// `__libc_enable_secure`
#[cfg_attr(feature = "interpreter", export_name = "__libc_enable_secure")]
pub static LIBC_ENABLE_SECURE: Word<i32> = Word::new(0);
/// `__rseq_offset`: distance of the registered area from the thread pointer.
#[cfg_attr(feature = "interpreter", export_name = "__rseq_offset")]
pub static RSEQ_OFFSET: Word<isize> = Word::new(0);
/// `__rseq_size`: 0 when nothing is registered.
#[cfg_attr(feature = "interpreter", export_name = "__rseq_size")]
pub static RSEQ_SIZE: Word<u32> = Word::new(0);
/// `__rseq_flags`
#[cfg_attr(feature = "interpreter", export_name = "__rseq_flags")]
pub static RSEQ_FLAGS: Word<u32> = Word::new(0);
/// `__nptl_initial_report_events`, which libthread_db sets through ptrace.
#[cfg_attr(feature = "interpreter", export_name = "__nptl_initial_report_events")]
pub static NPTL_INITIAL_REPORT_EVENTS: Word<u8> = Word::new(0);

/// `_r_debug`, the rendezvous with debuggers, with the link to the next namespace's behind it.
#[repr(C, align(8))]
pub struct RDebugBlock(UnsafeCell<[u8; R_DEBUG_SIZE]>);

/// Size of `struct r_debug_extended`.
const R_DEBUG_SIZE: usize = 48;

// SAFETY: written under the loader's lock only.
unsafe impl Sync for RDebugBlock {}

/// `_r_debug` and what follows it. Among initialised data, whose page is written at every start anyway.
#[cfg_attr(feature = "interpreter", link_section = ".data.r_debug")]
#[cfg_attr(feature = "interpreter", export_name = "ldseal_r_debug_extended")]
pub static R_DEBUG: RDebugBlock = RDebugBlock(UnsafeCell::new([0; R_DEBUG_SIZE]));

// The name that debuggers and programs know has the size of `struct r_debug`, which a program may copy.
#[cfg(feature = "interpreter")]
core::arch::global_asm!(
    ".globl _r_debug",
    ".type _r_debug, @object",
    ".size _r_debug, 40",
    ".set _r_debug, {block}",
    block = sym R_DEBUG,
);

impl RDebugBlock {
    /// As a structure.
    pub fn structure(&'static self) -> Structure {
        Structure { start: self.0.get().cast(), size: R_DEBUG_SIZE }
    }
}
