//! The locks that the interpreter shares with libc: recursive mutexes in `_rtld_global`, locked by libc's own functions once those can be
//! called. Until then there is one thread and nothing to lock.

use super::globals::RTLD_GLOBAL;
use super::libc::FUNCTIONS;
use crate::process;

/// A held mutex of `_rtld_global`.
pub struct SharedLock {
    mutex: usize,
}

/// The lock of the TLS modules (`_dl_load_tls_lock`).
pub struct TlsLock {
    _lock: SharedLock,
}

fn lock(offset: usize) -> SharedLock {
    let mutex = RTLD_GLOBAL.structure().field(offset).0;
    match FUNCTIONS.get().pthread_mutex_lock {
        Some(lock) => {
            // SAFETY: the mutex is one that libc knows, of the recursive kind.
            unsafe { lock(mutex as *mut u8) };
            SharedLock { mutex }
        }
        None => SharedLock { mutex: 0 },
    }
}

impl Drop for SharedLock {
    fn drop(&mut self) {
        if self.mutex == 0 {
            return;
        }
        if let Some(unlock) = FUNCTIONS.get().pthread_mutex_unlock {
            // SAFETY: this value locked it.
            unsafe { unlock(self.mutex as *mut u8) };
        }
    }
}

/// `_dl_load_lock`: held by who loads or unloads, also while constructors and destructors run.
pub fn load() -> SharedLock {
    lock(process::layout().rtld_global.dl_load_lock)
}

/// `_dl_load_write_lock`: held while the lists of objects change, which `dl_iterate_phdr` walks.
pub fn write() -> SharedLock {
    lock(process::layout().rtld_global.dl_load_write_lock)
}

/// `_dl_load_tls_lock`
pub fn tls() -> TlsLock {
    let global = &process::layout().rtld_global;
    TlsLock { _lock: lock(global.dl_load_tls_lock.unwrap_or(global.dl_load_lock)) }
}

/// Takes the lock of the TLS modules and keeps it, for a fork.
pub fn keep_tls() {
    core::mem::forget(tls());
}

/// Ends what [`keep_tls`] has begun.
pub fn let_go_tls() {
    let global = &process::layout().rtld_global;
    let offset = global.dl_load_tls_lock.unwrap_or(global.dl_load_lock);
    drop(SharedLock { mutex: RTLD_GLOBAL.structure().field(offset).0 });
}

/// In the child of a fork: frees the locks of the lists and of the TLS modules, whose holders are not there. libc does so with some only.
pub fn renew_after_fork() {
    let layout = process::layout();
    let global = RTLD_GLOBAL.structure();
    let fields = &layout.rtld_global;
    for at in [Some(fields.dl_load_write_lock), fields.dl_load_tls_lock].into_iter().flatten() {
        // All before the kind: state, count, owner, users.
        for word in (0..layout.mutex.kind).step_by(4) {
            global.put_u32(at + word, 0);
        }
    }
}
