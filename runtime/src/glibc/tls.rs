//! Thread-local storage as libc and compiled code know it: the dynamic thread vector (DTV) of each thread, and the functions on it.
//!
//! A DTV is an array of 16-byte elements. Element -1 holds how many modules there is room for, element 0 the generation that the vector
//! is up to date with, and element `m` the address of module `m`'s block (or -1) and the pointer to free it by. libc walks a DTV
//! itself when it uses a thread's stack again, so the format, and that `to_free` comes from the program's allocator, is ABI.

use super::globals::{Structure, RTLD_GLOBAL};
use super::libc;
use super::locks::{self, TlsLock};
use super::thread::Stacks;
use super::tls_block;
use super::tls_modules::{self, Module, Place};
use crate::process;
use alloc::vec::Vec;
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use loader::addr::Addr;
use loader::tls::TlsSegment;

/// Room for modules that are added later, in every new DTV (glibc's `DTV_SURPLUS`).
const DTV_SURPLUS: usize = 14;
const UNALLOCATED: u64 = u64::MAX;

/// An element of a DTV.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DtvElement {
    value: u64,
    to_free: *mut u8,
}

/// The argument of `__tls_get_addr`.
#[repr(C)]
pub struct TlsIndex {
    module: u64,
    offset: u64,
}

struct Threads(UnsafeCell<Vec<Addr>>);
// SAFETY: touched under the TLS lock only.
unsafe impl Sync for Threads {}

/// Threads whose static TLS has been written and that libc's lists may not have yet. A module that becomes static meanwhile must reach
/// them too.
static COMING: Threads = Threads(UnsafeCell::new(Vec::new()));

/// Counts changes of the modules; a DTV with another count is out of date.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// The main thread's first DTV, which is not from the program's allocator.
static INITIAL_DTV: AtomicU64 = AtomicU64::new(0);
/// Size of all static TLS including `struct pthread` and the surplus, and its alignment.
static STATIC_SIZE: AtomicU64 = AtomicU64::new(0);
static STATIC_ALIGN: AtomicU64 = AtomicU64::new(64);

fn coming(_lock: &mut TlsLock) -> &mut Vec<Addr> {
    // SAFETY: the lock guards the vector, and the borrow of it is exclusive.
    unsafe { &mut *COMING.0.get() }
}

/// Records size and alignment of the static block, for `_dl_get_tls_static_info`.
pub fn set_static_info(size: u64, align: u64) {
    STATIC_SIZE.store(size, Ordering::Relaxed);
    STATIC_ALIGN.store(align, Ordering::Relaxed);
}

/// Sets module `number`, from 1.
pub fn set_module(number: usize, module: Module) {
    let lock = locks::tls();
    if let Some(entry) = tls_modules::make_entry(&lock, number) {
        entry.set(&lock, module);
    }
}

/// A module as it is now.
pub fn module(number: usize) -> Option<Module> {
    tls_modules::entry(number).map(|entry| entry.get(&locks::tls()))
}

/// The current generation.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Makes the changes since the last call visible to threads.
pub fn set_generation(value: u64) {
    GENERATION.store(value, Ordering::Release);
    RTLD_GLOBAL.structure().put_u64(process::layout().rtld_global.dl_tls_generation, value);
}

/// The thread pointer of the calling thread.
pub fn thread_pointer() -> Addr {
    let tp: usize;
    // SAFETY: reads the word at %fs:16, the thread control block's pointer to itself.
    unsafe { asm!("mov {}, fs:[16]", out(reg) tp, options(nostack, readonly, preserves_flags)) };
    Addr(tp)
}

/// Read anew each time: a signal handler of the thread may have replaced it.
fn dtv_of(tcb: Addr) -> *mut DtvElement {
    // SAFETY: a thread control block has its DTV pointer in the second word.
    unsafe { (tcb.0 as *const *mut DtvElement).add(1).read_volatile() }
}

/// The first word of an element of a vector that may be the calling thread's, whose signal handlers may change it.
///
/// # Safety
/// The vector must have the element, and stay as long as the value is used.
unsafe fn word<'d>(dtv: *mut DtvElement, index: usize) -> &'d AtomicU64 {
    // SAFETY: the caller's contract; elements are aligned.
    unsafe { AtomicU64::from_ptr(&raw mut (*dtv.add(index)).value) }
}

fn set_dtv(tcb: Addr, dtv: *mut DtvElement) {
    // SAFETY: as for `dtv_of`.
    unsafe { *(tcb.0 as *mut *mut DtvElement).add(1) = dtv };
}

/// Fills the DTV block that starts at `block` with room for `capacity` modules.
///
/// # Safety
/// `block` must have room for `capacity + 2` zeroed elements.
unsafe fn make_dtv(block: *mut DtvElement, capacity: usize) -> *mut DtvElement {
    // SAFETY: the first element is in the block.
    unsafe {
        (*block).value = capacity as u64;
        block.add(1)
    }
}

static MAIN_THREAD: AtomicU64 = AtomicU64::new(0);

/// The thread pointer of the main thread.
pub fn main_thread() -> Addr {
    Addr(MAIN_THREAD.load(Ordering::Relaxed) as usize)
}

/// Makes the main thread's DTV from the interpreter's own memory.
pub fn make_initial_dtv(tcb: Addr) -> Addr {
    let capacity = tls_modules::count() + DTV_SURPLUS;
    let empty = DtvElement { value: 0, to_free: core::ptr::null_mut() };
    let block = Vec::leak(alloc::vec![empty; capacity + 2]).as_mut_ptr();
    // SAFETY: the block was made with that many elements.
    let dtv = unsafe { make_dtv(block, capacity) };
    INITIAL_DTV.store(dtv as u64, Ordering::Relaxed);
    MAIN_THREAD.store(tcb.0 as u64, Ordering::Relaxed);
    set_dtv(tcb, dtv);
    Addr(dtv as usize)
}

/// A DTV from the program's allocator; `None` if there is no memory.
fn allocate_dtv(capacity: usize) -> Option<*mut DtvElement> {
    let block: *mut DtvElement = libc::allocate((capacity + 2) * size_of::<DtvElement>()).cast();
    // SAFETY: the block was allocated, zeroed, with that many elements.
    (!block.is_null()).then(|| unsafe { make_dtv(block, capacity) })
}

/// Makes room for all modules in the DTV of `tcb`. The vector before it stays as long as the thread, since a signal handler that grows it
/// may have interrupted somebody who uses it; each is twice as long as the last.
fn grow_dtv(tcb: Addr, module_count: usize) {
    loop {
        let old = dtv_of(tcb);
        // SAFETY: element -1 of a DTV is its capacity.
        let capacity = unsafe { (*old.sub(1)).value } as usize;
        if capacity >= module_count {
            return;
        }
        let room = (module_count + DTV_SURPLUS).max(2 * capacity);
        let Some(new) = allocate_dtv(room) else {
            crate::fatal(format_args!("cannot allocate memory for thread-local data: ABORT"));
        };
        if dtv_of(tcb) != old {
            // SAFETY: it came from the program's allocator, and nobody has seen it.
            unsafe { libc::give_back(new.sub(1).cast()) };
            continue;
        }
        // Filled before it is put in place: a signal handler of the thread may use it at once.
        // SAFETY: both vectors have the old capacity and the generation element, and the new one as much as was asked for.
        unsafe {
            core::ptr::copy_nonoverlapping(old, new, capacity + 1);
            for number in capacity + 1..=room {
                *new.add(number) = DtvElement { value: UNALLOCATED, to_free: core::ptr::null_mut() };
            }
            (*new.sub(1)).to_free = old.cast();
            set_dtv(tcb, new);
        }
        return;
    }
}

/// What is in the static TLS of a thread that is initialised.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// Zeroes from the kernel.
    Fresh,
    /// What a thread before has left.
    Used,
}

/// (Re)initialises the DTV and the static TLS blocks of a thread.
///
/// # Safety
/// `tcb` must have the static TLS size below it and a DTV.
unsafe fn initialise_thread(tcb: Addr, memory: Memory) {
    let mut lock = loop {
        // Room first, without the lock: it comes from the program's allocator, which may be anybody's.
        let count = tls_modules::count();
        grow_dtv(tcb, count);
        let lock = locks::tls();
        if tls_modules::count() <= count {
            break lock;
        }
    };
    if !coming(&mut lock).contains(&tcb) && tcb != main_thread() {
        coming(&mut lock).push(tcb);
    }
    let dtv = dtv_of(tcb);
    let mut newest = 0;
    // With the lock no module can go, and its image be unmapped, before it is copied.
    for (index, entry) in tls_modules::entries().enumerate() {
        let Module { generation, place, .. } = entry.get(&lock);
        newest = newest.max(generation);
        let mut element = DtvElement { value: UNALLOCATED, to_free: core::ptr::null_mut() };
        if let (Some(segment), Some(offset)) = (&place.segment, place.static_offset) {
            // This thread has its place now.
            entry.settle(&lock);
            element.value = tcb.0 as u64 - offset;
            let block = element.value as *mut u8;
            match memory {
                // SAFETY: the block lies in the thread's static TLS.
                Memory::Fresh => unsafe { tls_block::copy_image(block, segment) },
                // SAFETY: as above.
                Memory::Used => unsafe { tls_block::initialise(block, segment) },
            }
        }
        // SAFETY: the DTV has room for all modules.
        unsafe { *dtv.add(index + 1) = element };
    }
    // SAFETY: element 0 is the generation.
    unsafe { (*dtv).value = newest };
}

/// Sets up the calling main thread's DTV and static TLS blocks, after relocation: an image may hold relocated pointers.
///
/// # Safety
/// `tcb` must have the static TLS size below it and a DTV.
pub unsafe fn initialise_main_thread(tcb: Addr) {
    // SAFETY: the caller's contract.
    unsafe { initialise_thread(tcb, Memory::Fresh) };
}

/// Adds or changes static module `number`, and writes its initial contents into every thread there is.
///
/// # Safety
/// The segment must fit the static TLS at the module's offset, its image be relocated, and no thread use the block yet.
pub unsafe fn add_static(stacks: &Stacks, number: usize, module: Module) {
    let (Some(segment), Some(offset)) = (module.place.segment, module.place.static_offset) else {
        return;
    };
    set_module(number, module);
    let mut lock = locks::tls();
    // SAFETY: the caller's contract.
    unsafe { initialise_everywhere(&mut lock, stacks, &segment, offset) };
}

/// Gives a module that threads may be about to use a place in static TLS, with its initial contents in every thread. False if a thread has
/// a block of it elsewhere: two blocks of one variable must never exist in a thread.
///
/// # Safety
/// The segment must fit the static TLS at `offset`, and its image be relocated.
pub unsafe fn make_static(stacks: &Stacks, number: usize, segment: &TlsSegment, offset: u64) -> bool {
    // Held from the look to the last thread: none can make a block of its own in between, or use the place before it is filled.
    let mut lock = locks::tls();
    let known = tls_modules::entry(number).map(|entry| (entry, entry.get(&lock)));
    let Some((entry, mut module)) = known.filter(|(_, m)| !m.decided && m.place.segment.is_some()) else {
        return false;
    };
    module.place.static_offset = Some(offset);
    entry.set(&lock, module);
    // SAFETY: the caller's contract; nobody uses the place, since it was not the module's.
    unsafe { initialise_everywhere(&mut lock, stacks, segment, offset) };
    true
}

/// Takes the place in static TLS back from a module, unless a thread has used it meanwhile. Says whether it is free again.
pub fn take_static_back(number: usize) -> bool {
    let lock = locks::tls();
    let known = tls_modules::entry(number).map(|entry| (entry, entry.get(&lock)));
    let Some((entry, mut module)) = known.filter(|(_, m)| !m.decided) else {
        return false;
    };
    module.place.static_offset = None;
    entry.set(&lock, module);
    true
}

/// Writes the initial contents of a static block into every thread: those on libc's lists, and those that are on their way there.
///
/// # Safety
/// As for [`add_static`].
unsafe fn initialise_everywhere(lock: &mut TlsLock, stacks: &Stacks, segment: &TlsSegment, offset: u64) {
    // SAFETY: the caller's contract; threads on their way have their static TLS already.
    let write = |tcb: Addr| unsafe { tls_block::initialise((tcb.0 as u64 - offset) as *mut u8, segment) };
    let coming = coming(lock);
    stacks.each_running(|tcb| {
        write(tcb);
        coming.retain(|c| *c != tcb);
    });
    coming.iter().for_each(|tcb| write(*tcb));
}

/// `__tls_get_addr`: the address of a thread-local variable. Old compilers call it with a misaligned stack, which the slow path repairs.
///
/// # Safety
/// `index` must name a module of a loaded object.
#[unsafe(naked)]
#[cfg_attr(feature = "interpreter", export_name = "__tls_get_addr")]
pub unsafe extern "C" fn tls_get_addr(index: *const TlsIndex) -> *mut u8 {
    naked_asm!(
        "mov rax, fs:[8]",
        "mov rdx, [rip + {generation}]",
        "cmp [rax], rdx",
        "jne 2f",
        "mov rdx, [rdi]",
        "shl rdx, 4",
        "mov rax, [rax + rdx]",
        "cmp rax, -1",
        "je 2f",
        "add rax, [rdi + 8]",
        "ret",
        "2:",
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "call {slow}",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
        generation = sym GENERATION,
        slow = sym tls_get_addr_slow,
    )
}

/// Brings the calling thread's DTV up to date and allocates the module's block if it has none.
pub(super) unsafe extern "C" fn tls_get_addr_slow(index: *const TlsIndex) -> *mut u8 {
    // SAFETY: the caller of `__tls_get_addr` passes a valid index.
    let (module, offset) = unsafe { ((*index).module as usize, (*index).offset) };
    let block = current_block(module);
    (block as u64).wrapping_add(offset) as *mut u8
}

/// The calling thread's block of a module, made if need be. A signal handler that interrupts this may come here too: whoever is last to
/// put something in place finds what the other has put there.
pub fn current_block(number: usize) -> *mut u8 {
    let tcb = thread_pointer();
    update_dtv(tcb);
    // SAFETY: the vector has room for all modules, and stays as long as the thread.
    let value = unsafe { word(dtv_of(tcb), number) }.load(Ordering::Relaxed);
    if value != UNALLOCATED {
        return value as *mut u8;
    }
    match settle(number) {
        Some(Place { segment: Some(_), static_offset: Some(offset) }) => {
            let block = tcb.0 as u64 - offset;
            // SAFETY: as above.
            unsafe { word(dtv_of(tcb), number) }.store(block, Ordering::Relaxed);
            block as *mut u8
        }
        Some(Place { segment: Some(segment), static_offset: None }) => {
            let (block, to_free) = tls_block::allocate(&segment);
            put_block(tcb, number, block, to_free)
        }
        _ => crate::fatal(format_args!("inconsistency: no thread-local module {number}")),
    }
}

/// Puts a block into the calling thread's vector, unless there is one by now, and returns the one that is there.
fn put_block(tcb: Addr, number: usize, block: *mut u8, to_free: *mut u8) -> *mut u8 {
    loop {
        let dtv = dtv_of(tcb);
        // SAFETY: the vector has room for all modules, and stays as long as the thread.
        let value = unsafe { word(dtv, number) };
        match value.compare_exchange(UNALLOCATED, block as u64, Ordering::Relaxed, Ordering::Relaxed) {
            Err(other) if other != block as u64 => {
                // SAFETY: the block came from the program's allocator, and nobody has seen it.
                unsafe { libc::give_back(to_free) };
                return other as *mut u8;
            }
            // SAFETY: the element is that of the block.
            _ => unsafe { (&raw mut (*dtv.add(number)).to_free).write_volatile(to_free) },
        }
        if dtv_of(tcb) == dtv {
            return block;
        }
    }
}

/// Where a module's blocks are. From now on that is settled.
fn settle(number: usize) -> Option<Place> {
    let entry = tls_modules::entry(number)?;
    Some(entry.settled().unwrap_or_else(|| entry.settle(&locks::tls())))
}

/// The calling thread's block of a module if it has one.
pub fn existing_block(number: usize) -> *mut u8 {
    let dtv = dtv_of(thread_pointer());
    // SAFETY: elements -1 and 0 are capacity and generation.
    unsafe {
        if number == 0 || number as u64 > (*dtv.sub(1)).value {
            return core::ptr::null_mut();
        }
        if tls_modules::entry(number).is_some_and(|entry| entry.generation() > (*dtv).value) {
            return core::ptr::null_mut();
        }
        let value = (*dtv.add(number)).value;
        if value == UNALLOCATED {
            core::ptr::null_mut()
        } else {
            value as *mut u8
        }
    }
}

/// Takes blocks of modules that are gone out of the calling thread's vector, and makes room for new ones. The program's allocator is
/// called without a lock: it may be anybody's.
fn update_dtv(tcb: Addr) {
    // SAFETY: element 0 is the generation.
    let generation_of = |dtv| unsafe { word(dtv, 0) };
    let now = GENERATION.load(Ordering::Acquire);
    let have = generation_of(dtv_of(tcb)).load(Ordering::Relaxed);
    if have == now {
        return;
    }
    // The modules of that generation are in the table.
    let count = tls_modules::count();
    grow_dtv(tcb, count);
    for number in (1..=count).filter(|number| tls_modules::entry(*number).is_some_and(|e| e.generation() > have)) {
        let dtv = dtv_of(tcb);
        if generation_of(dtv).load(Ordering::Relaxed) != have {
            // A signal handler has done it.
            return;
        }
        // SAFETY: the vector has room for `count` modules.
        let element = unsafe { &mut *dtv.add(number) };
        if element.value != UNALLOCATED || !element.to_free.is_null() {
            let to_free = core::mem::replace(&mut element.to_free, core::ptr::null_mut());
            element.value = UNALLOCATED;
            // SAFETY: a dynamic block came from the program's allocator; a null pointer is ignored.
            unsafe { libc::give_back(to_free) };
        }
    }
    // Fails if a signal handler has done it.
    let _ = generation_of(dtv_of(tcb)).compare_exchange(have, now, Ordering::Relaxed, Ordering::Relaxed);
}

/// `_dl_allocate_tls`: gives a new thread its DTV and its static TLS contents. libc always passes memory.
///
/// # Safety
/// `tcb` must be a thread control block with the static TLS size below it.
#[cfg_attr(feature = "interpreter", export_name = "_dl_allocate_tls")]
pub unsafe extern "C" fn dl_allocate_tls(tcb: *mut u8) -> *mut u8 {
    if tcb.is_null() {
        return tcb;
    }
    super::gscope::reset(Addr(tcb as usize));
    let Some(dtv) = allocate_dtv(tls_modules::count() + DTV_SURPLUS) else {
        return core::ptr::null_mut();
    };
    set_dtv(Addr(tcb as usize), dtv);
    // SAFETY: the caller's contract, and the DTV was just made.
    unsafe { initialise_thread(Addr(tcb as usize), Memory::Used) };
    tcb
}

/// `_dl_allocate_tls_init`: the same for a thread whose stack is used again. Releases disagree on what the second argument means, and
/// agree that libc only passes new threads, whose images must be written.
///
/// # Safety
/// As for [`dl_allocate_tls`]; the thread must have a DTV.
#[cfg_attr(feature = "interpreter", export_name = "_dl_allocate_tls_init")]
pub unsafe extern "C" fn dl_allocate_tls_init(tcb: *mut u8, _flag: bool) -> *mut u8 {
    if !tcb.is_null() {
        super::gscope::reset(Addr(tcb as usize));
        // The thread that had the stack before may have left an error that it never asked for.
        crate::services::error::forget_thread(Addr(tcb as usize));
        // SAFETY: the caller's contract.
        unsafe { initialise_thread(Addr(tcb as usize), Memory::Used) };
    }
    tcb
}

/// `_dl_deallocate_tls`: frees the dynamic blocks and the DTV of a thread that has ended. libc never asks to free the block itself.
///
/// # Safety
/// `tcb` must be a thread that has ended and has a DTV.
#[cfg_attr(feature = "interpreter", export_name = "_dl_deallocate_tls")]
pub unsafe extern "C" fn dl_deallocate_tls(tcb: *mut u8, _free_tcb: bool) {
    // libc may hold the lock of its lists of stacks: nothing here waits for who may be waiting for that.
    crate::services::error::forget_thread(Addr(tcb as usize));
    coming(&mut locks::tls()).retain(|c| c.0 != tcb as usize);
    let dtv = dtv_of(Addr(tcb as usize));
    // SAFETY: the DTV has as many elements as its capacity says, and each block came from the program's allocator.
    unsafe {
        let capacity = (*dtv.sub(1)).value as usize;
        for number in 1..=capacity {
            libc::give_back((*dtv.add(number)).to_free);
        }
        // The vectors before it, too.
        let mut next = dtv;
        while !next.is_null() && next as u64 != INITIAL_DTV.load(Ordering::Relaxed) {
            let block = next.sub(1);
            next = (*block).to_free.cast();
            libc::give_back(block.cast());
        }
    }
}

/// `_dl_get_tls_static_info`
///
/// # Safety
/// Both pointers must be valid for writes.
#[cfg_attr(feature = "interpreter", export_name = "_dl_get_tls_static_info")]
pub unsafe extern "C" fn dl_get_tls_static_info(size: *mut usize, align: *mut usize) {
    // SAFETY: the caller's contract.
    unsafe {
        *size = STATIC_SIZE.load(Ordering::Relaxed) as usize;
        *align = STATIC_ALIGN.load(Ordering::Relaxed) as usize;
    }
}

/// `_dl_tls_get_addr_soft`: the calling thread's block of an object's module, null if it has none yet.
///
/// # Safety
/// `map` must be a link map.
pub unsafe extern "C" fn dl_tls_get_addr_soft(map: *mut u8) -> *mut u8 {
    let layout = process::layout();
    // SAFETY: the caller passes a link map.
    let map = unsafe { Structure::at(map, layout.link_map.size) };
    existing_block(map.get_u64(layout.link_map.l_tls_modid) as usize)
}

/// Forgets a module that was never used: its transaction failed.
pub fn forget_module(number: usize) {
    let lock = locks::tls();
    if let Some(entry) = tls_modules::entry(number).filter(|entry| entry.generation() == 0) {
        entry.set(&lock, Module::FREE);
    }
}
