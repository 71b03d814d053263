//! The cache file of this machine, mapped.

use crate::addr::Addr;
use crate::search::cache::{Cache, Ranking};
use crate::search::hwcaps::Hwcaps;
use crate::sys;
use alloc::vec::Vec;
use core::ffi::CStr;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// Where the cache of library names lies (ldconfig(8)).
pub(super) const CACHE_PATH: &CStr = c"/etc/ld.so.cache";

/// The cache file while it is mapped, and what this machine makes of it.
pub(super) struct MappedCache {
    /// Its bytes; they are only lent while this value lives.
    bytes: &'static [u8],
    ranking: Ranking,
}

impl MappedCache {
    /// Maps the cache file; `None` if it is broken. Without `hwcaps` what is for some processors only does not count.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open(hwcaps: Option<&Hwcaps<'_>>) -> Result<Option<MappedCache>, Errno> {
        Ok(MappedCache::map(sys::open_read(CACHE_PATH)?, hwcaps))
    }

    fn map(fd: OwnedFd, hwcaps: Option<&Hwcaps<'_>>) -> Option<MappedCache> {
        let size = usize::try_from(sys::status(fd.as_fd()).ok()?.size).ok().filter(|&size| size > 0)?;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe { sys::map_file(sys::Place::Anywhere, size, sys::Prot::READ, fd.as_fd(), 0).ok()? };
        // SAFETY: `size` bytes are mapped there until this value is dropped, and nothing borrows them for longer. ldconfig replaces the
        // file by renaming, so they do not change.
        let mut cache = MappedCache {
            bytes: unsafe { core::slice::from_raw_parts(at.as_ptr(), size) },
            ranking: Ranking::default(),
        };
        let parsed = Cache::parse(cache.bytes).ok()?;
        cache.ranking = hwcaps.map_or_else(Ranking::default, |hwcaps| parsed.ranking(hwcaps));
        Some(cache)
    }

    /// The path for a name.
    pub(super) fn look_up(&self, name: &[u8], hwcaps: &Hwcaps<'_>) -> Option<Vec<u8>> {
        Some(Cache::parse(self.bytes).ok()?.lookup(name, hwcaps, &self.ranking)?.to_vec())
    }
}

impl Drop for MappedCache {
    fn drop(&mut self) {
        let start = self.bytes.as_ptr() as usize;
        // SAFETY: nothing borrows the bytes any more. There is no recourse if this fails.
        let _ = unsafe { sys::unmap(Addr(start)..Addr(start + self.bytes.len())) };
    }
}
