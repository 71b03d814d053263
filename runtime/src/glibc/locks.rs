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
