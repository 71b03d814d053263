//! Where a library is looked for: search paths, `/etc/ld.so.cache`, hardware-capability subdirectories.
//!
//! Everything here is pure. The caller opens what [`lookup::Lookup`] proposes and reports back what it found.

pub mod cache;
pub mod directories;
pub mod dst;
pub mod finder;
pub mod hwcaps;
pub mod lookup;
pub mod path;
