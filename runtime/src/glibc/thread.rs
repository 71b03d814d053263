//! The thread control block of the main thread: `struct pthread`, with static TLS below it.

use super::globals::{self, Structure, RTLD_GLOBAL};
use super::layout::Layout;
use super::tls;
use core::sync::atomic::{AtomicU32, Ordering};
use loader::addr::Addr;
use loader::sys::{self, Place, Prot};
use rustix::io::Errno;
use rustix::thread::futex;

/// What registers an area for restartable sequences is expected to be signed with on x86.
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
/// Bytes that are registered (`struct rseq` as the kernel first had it).
const RSEQ_LENGTH: usize = 32;
/// What `__rseq_size` says: the part with a meaning, without the padding.
const RSEQ_USED: u32 = 20;
const CPU_ID_UNINITIALIZED: u32 = u32::MAX;
const CPU_ID_REGISTRATION_FAILED: u32 = u32::MAX - 1;

/// Blocks up to this size are faulted in at once.
const SMALL: usize = 64 * 1024;

/// Allocates the main thread's block: `static_size` bytes that end with `struct pthread`. The address of the latter is the thread pointer.
///
/// # Errors
/// The kernel gives no memory.
pub fn allocate(layout: &Layout, static_size: u64, align: u64) -> Result<Structure, Errno> {
    let total = (static_size + align + 4095) as usize & !4095;
    // SAFETY: new memory at a place of the kernel's choice.
    let block = unsafe { sys::map_anonymous(Place::Anywhere, total, Prot::READ_WRITE, total <= SMALL)? };
    let aligned = (block.0 + align as usize - 1) & !(align as usize - 1);
    let pthread = aligned + static_size as usize - layout.pthread.size;
    // SAFETY: the block is that large, zeroed, and never unmapped.
    Ok(unsafe { Structure::at(pthread as *mut u8, layout.pthread.size) })
}

/// Fills the block as glibc's ld.so does before any code of the program runs, and makes it the thread's.
///
/// # Errors
/// The kernel refuses the thread pointer.
pub fn initialise(
    layout: &Layout,
    pthread: &Structure,
    random: Option<[u64; 2]>,
    stack_end: Addr,
    use_rseq: bool,
) -> Result<(), Errno> {
    let fields = &layout.pthread;
    pthread.put_addr(fields.header_tcb, pthread.addr());
    pthread.put_addr(fields.header_self, pthread.addr());
    if let Some([guard, pointer_guard]) = random {
        // The low byte is zero, so that a string function does not copy past a guard.
        pthread.put_u64(fields.header_stack_guard, guard & !0xff);
        pthread.put_u64(fields.header_pointer_guard, pointer_guard);
    }
    let dtv = tls::make_initial_dtv(pthread.addr());
    RTLD_GLOBAL.structure().put_addr(layout.rtld_global.dl_initial_dtv, dtv);
    // SAFETY: the control block is complete enough for whoever reads it through %fs, and lives as long as the process.
    unsafe { sys::set_thread_pointer(pthread.addr())? };

    let user_stacks = RTLD_GLOBAL.structure().field(layout.rtld_global.dl_stack_user);
    let node = pthread.field(fields.list);
    pthread.put_addr(fields.list, user_stacks);
    pthread.put_addr(fields.list + 8, user_stacks);
    RTLD_GLOBAL.structure().put_addr(layout.rtld_global.dl_stack_user, node);
    RTLD_GLOBAL.structure().put_addr(layout.rtld_global.dl_stack_user + 8, node);

    // SAFETY: the word lies in the control block. From 2.43 on it is another one, `joinstate`.
    let tid = unsafe { sys::set_tid_address(pthread.field(fields.joinstate.unwrap_or(fields.tid))) };
    pthread.put_u32(fields.tid, tid);
    pthread.put_addr(fields.specific, pthread.field(fields.specific_1stblock));
    if let Some(user_stack) = fields.user_stack {
        pthread.put_u8(user_stack, 1);
    }
    if let Some(stack_mode) = fields.stack_mode {
        pthread.put_u32(stack_mode, 2);
    }
    if let Some(joinstate) = fields.joinstate {
        pthread.put_u32(joinstate, 2);
    }
    let robust_head = pthread.field(fields.robust_head_list);
    pthread.put_addr(fields.robust_prev, robust_head);
    pthread.put_addr(fields.robust_head_list, robust_head);
    pthread.put_u64(fields.robust_head_futex_offset, (-32i64) as u64);
    // SAFETY: the list head lies in the control block. An old kernel without robust mutexes refuses, and they then do not work.
    let _ = unsafe { sys::set_robust_list(robust_head, 24) };
    pthread.put_addr(fields.stackblock_size, stack_end);
    if let Some(area) = fields.rseq_area {
        register_rseq(pthread, area, use_rseq);
    }
    Ok(())
}

fn register_rseq(pthread: &Structure, area: usize, wanted: bool) {
    const CPU_ID_START: usize = 0;
    const CPU_ID: usize = 4;
    pthread.put_u32(area + CPU_ID_START, 0);
    pthread.put_u32(area + CPU_ID, CPU_ID_UNINITIALIZED);
    // SAFETY: the area lies in the control block, aligned to 32 bytes.
    let registered = wanted && unsafe { sys::register_rseq(pthread.field(area), RSEQ_LENGTH, RSEQ_SIGNATURE) }.is_ok();
    if !registered {
        pthread.put_u32(area + CPU_ID, CPU_ID_REGISTRATION_FAILED);
    }
    // SAFETY: the interpreter is alone in the process.
    unsafe {
        globals::RSEQ_OFFSET.set(area as isize);
        globals::RSEQ_SIZE.set(if registered { RSEQ_USED } else { 0 });
    }
}

/// libc's lists of stacks, locked.
pub struct Stacks {
    running: [Addr; 2],
    own: [Addr; 2],
    node: usize,
    _lock: StackCacheLock,
}

/// Waits for libc's lists of stacks. While libc holds this lock it frees TLS, and calls what may not be bound yet: so it comes before the
/// gate and before the lock of the TLS modules.
pub fn lock_stacks(layout: &Layout) -> Stacks {
    let word = RTLD_GLOBAL.structure().field(layout.rtld_global.dl_stack_cache_lock);
    Stacks::new(layout, StackCacheLock::take(word))
}

/// Locks libc's lists of stacks unless somebody has them.
pub fn try_lock_stacks(layout: &Layout) -> Option<Stacks> {
    let word = RTLD_GLOBAL.structure().field(layout.rtld_global.dl_stack_cache_lock);
    Some(Stacks::new(layout, StackCacheLock::try_take(word)?))
}

impl Stacks {
    fn new(layout: &Layout, lock: StackCacheLock) -> Stacks {
        let fields = &layout.rtld_global;
        let list = |offset| RTLD_GLOBAL.structure().field(offset);
        Stacks {
            running: [list(fields.dl_stack_used), list(fields.dl_stack_user)],
            own: [list(fields.dl_stack_used), list(fields.dl_stack_cache)],
            node: layout.pthread.list,
            _lock: lock,
        }
    }

    /// Calls `visit` with the thread pointer of every thread that runs.
    pub fn each_running(&self, visit: impl FnMut(Addr)) {
        self.each(self.running, visit);
    }

    /// Calls `visit` with the thread pointers at all stacks that libc has made, those of threads that have ended and whose stacks
    /// will be used again among them.
    pub fn each_own(&self, visit: impl FnMut(Addr)) {
        self.each(self.own, visit);
    }

    fn each(&self, lists: [Addr; 2], mut visit: impl FnMut(Addr)) {
        for head in lists.map(|list| list.0) {
            // SAFETY: the lists are circular and link `struct pthread`s of mapped stacks while the lock is held.
            unsafe {
                let mut node = *(head as *const usize);
                while node != head && node != 0 {
                    visit(Addr(node - self.node));
                    node = *(node as *const usize);
                }
            }
        }
    }
}

/// glibc's low-level lock: 0 free, 1 held, 2 held with waiters.
struct StackCacheLock(&'static AtomicU32);

impl StackCacheLock {
    fn word(at: Addr) -> &'static AtomicU32 {
        // SAFETY: the word is an aligned int of `_rtld_global`, which libc too uses with atomic instructions only.
        unsafe { &*at.as_ptr::<AtomicU32>() }
    }

    fn take(at: Addr) -> StackCacheLock {
        if let Some(lock) = StackCacheLock::try_take(at) {
            return lock;
        }
        let word = StackCacheLock::word(at);
        while word.swap(2, Ordering::Acquire) != 0 {
            // Whatever wakes it, the loop looks again.
            let _ = futex::wait(word, futex::Flags::PRIVATE, 2, None);
        }
        StackCacheLock(word)
    }

    fn try_take(at: Addr) -> Option<StackCacheLock> {
        let word = StackCacheLock::word(at);
        word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| StackCacheLock(word))
    }
}

impl Drop for StackCacheLock {
    fn drop(&mut self) {
        if self.0.swap(0, Ordering::Release) == 2 {
            // A failed wake leaves nobody waiting.
            let _ = futex::wake(self.0, futex::Flags::PRIVATE, 1);
        }
    }
}
