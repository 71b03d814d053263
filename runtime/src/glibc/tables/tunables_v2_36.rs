//! The tunables of glibc 2.36, by the number by which libc.so.6 asks for them.
//!
//! The order is that of the release's generated list, neither alphabetical nor stable: every release numbers them anew.

use crate::glibc::tunables::{Kind, Security, Tunable};

const INT_MAX: u64 = i32::MAX as u64;

const fn tunable(
    name: &'static [u8],
    kind: Kind,
    default: u64,
    min: u64,
    max: u64,
    alias: Option<&'static [u8]>,
    security: Security,
) -> Tunable {
    Tunable { name, kind, default, min, max, alias, security }
}

/// The table: name, type, default, lowest and highest value, alias in the environment, fate in secure execution.
#[rustfmt::skip]
pub static TUNABLES: &[Tunable] = &[
    /*  0 */ tunable(b"glibc.rtld.nns", Kind::Size, 4, 1, 16, None, Security::Erased),
    /*  1 */ tunable(b"glibc.elision.skip_lock_after_retries", Kind::Int32, 3, 0, INT_MAX, None, Security::Erased),
    /*  2 */ tunable(b"glibc.malloc.trim_threshold", Kind::Size, 0, 0, u64::MAX, Some(b"MALLOC_TRIM_THRESHOLD_"), Security::Ignored),
    /*  3 */ tunable(b"glibc.malloc.perturb", Kind::Int32, 0, 0, 255, Some(b"MALLOC_PERTURB_"), Security::Ignored),
    /*  4 */ tunable(b"glibc.cpu.x86_shared_cache_size", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /*  5 */ tunable(b"glibc.pthread.rseq", Kind::Int32, 1, 0, 1, None, Security::Erased),
    /*  6 */ tunable(b"glibc.mem.tagging", Kind::Int32, 0, 0, 255, None, Security::Ignored),
    /*  7 */ tunable(b"glibc.elision.tries", Kind::Int32, 3, 0, INT_MAX, None, Security::Erased),
    /*  8 */ tunable(b"glibc.elision.enable", Kind::Int32, 0, 0, 1, None, Security::Erased),
    /*  9 */ tunable(b"glibc.malloc.hugetlb", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 10 */ tunable(b"glibc.cpu.x86_rep_movsb_threshold", Kind::Size, 0, 1, u64::MAX, None, Security::Erased),
    /* 11 */ tunable(b"glibc.malloc.mxfast", Kind::Size, 0, 0, u64::MAX, None, Security::Ignored),
    /* 12 */ tunable(b"glibc.rtld.dynamic_sort", Kind::Int32, 2, 1, 2, None, Security::Erased),
    /* 13 */ tunable(b"glibc.elision.skip_lock_busy", Kind::Int32, 3, 0, INT_MAX, None, Security::Erased),
    /* 14 */ tunable(b"glibc.malloc.top_pad", Kind::Size, 0, 0, u64::MAX, Some(b"MALLOC_TOP_PAD_"), Security::Ignored),
    /* 15 */ tunable(b"glibc.cpu.x86_rep_stosb_threshold", Kind::Size, 2048, 1, u64::MAX, None, Security::Erased),
    /* 16 */ tunable(b"glibc.cpu.x86_non_temporal_threshold", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 17 */ tunable(b"glibc.cpu.x86_shstk", Kind::Text, 0, 0, 0, None, Security::Erased),
    /* 18 */ tunable(b"glibc.pthread.stack_cache_size", Kind::Size, 41943040, 0, u64::MAX, None, Security::Erased),
    /* 19 */ tunable(b"glibc.gmon.minarcs", Kind::Int32, 50, 50, INT_MAX, None, Security::Erased),
    /* 20 */ tunable(b"glibc.cpu.hwcap_mask", Kind::Uint64, 6, 0, u64::MAX, Some(b"LD_HWCAP_MASK"), Security::Erased),
    /* 21 */ tunable(b"glibc.malloc.mmap_max", Kind::Int32, 0, 0, INT_MAX, Some(b"MALLOC_MMAP_MAX_"), Security::Ignored),
    /* 22 */ tunable(b"glibc.elision.skip_trylock_internal_abort", Kind::Int32, 3, 0, INT_MAX, None, Security::Erased),
    /* 23 */ tunable(b"glibc.malloc.tcache_unsorted_limit", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 24 */ tunable(b"glibc.cpu.x86_ibt", Kind::Text, 0, 0, 0, None, Security::Erased),
    /* 25 */ tunable(b"glibc.cpu.hwcaps", Kind::Text, 0, 0, 0, None, Security::Erased),
    /* 26 */ tunable(b"glibc.elision.skip_lock_internal_abort", Kind::Int32, 3, 0, INT_MAX, None, Security::Erased),
    /* 27 */ tunable(b"glibc.malloc.arena_max", Kind::Size, 0, 1, u64::MAX, Some(b"MALLOC_ARENA_MAX"), Security::Ignored),
    /* 28 */ tunable(b"glibc.malloc.mmap_threshold", Kind::Size, 0, 0, u64::MAX, Some(b"MALLOC_MMAP_THRESHOLD_"), Security::Ignored),
    /* 29 */ tunable(b"glibc.cpu.x86_data_cache_size", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 30 */ tunable(b"glibc.malloc.tcache_count", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 31 */ tunable(b"glibc.malloc.arena_test", Kind::Size, 0, 1, u64::MAX, Some(b"MALLOC_ARENA_TEST"), Security::Ignored),
    /* 32 */ tunable(b"glibc.pthread.mutex_spin_count", Kind::Int32, 100, 0, 32767, None, Security::Erased),
    /* 33 */ tunable(b"glibc.gmon.maxarcs", Kind::Int32, 1048576, 50, INT_MAX, None, Security::Erased),
    /* 34 */ tunable(b"glibc.rtld.optional_static_tls", Kind::Size, 512, 0, u64::MAX, None, Security::Erased),
    /* 35 */ tunable(b"glibc.malloc.tcache_max", Kind::Size, 0, 0, u64::MAX, None, Security::Erased),
    /* 36 */ tunable(b"glibc.malloc.check", Kind::Int32, 0, 0, 3, Some(b"MALLOC_CHECK_"), Security::Erased),
];
