//! Where a library is looked for: search paths, `/etc/ld.so.cache`, hardware-capability subdirectories.
//!
//! All but [`finder`] and the cache file's mapping is pure: the finder opens what [`lookup::Lookup`] proposes and reports back what it found.

pub mod cache;
mod cache_file;
pub mod directories;
pub mod dst;
pub mod finder;
pub mod hwcaps;
pub mod lookup;
pub mod path;
