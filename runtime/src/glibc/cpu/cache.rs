//! The processor's caches, as glibc finds them out. Sizes are bytes; -1 is "not determined", 0 is "none" or "not found".

use super::cpuid::Leaves;
use super::feature::{HTT, LEAF_1};
use super::{CpuFeatures, CpuKind};

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Instructions1,
    Data1,
    Level2,
    Level3,
    Level4,
}

/// What there is to know of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Size,
    Ways,
    Line,
}

/// The caches of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// `level1_icache_size`.
    pub level1_icache_size: i64,
    /// `level1_icache_linesize`.
    pub level1_icache_linesize: i64,
    /// `level1_dcache_size`.
    pub level1_dcache_size: i64,
    /// `level1_dcache_assoc`: number of ways.
    pub level1_dcache_assoc: i64,
    /// `level1_dcache_linesize`.
    pub level1_dcache_linesize: i64,
    /// `level2_cache_size`.
    pub level2_cache_size: i64,
    /// `level2_cache_assoc`.
    pub level2_cache_assoc: i64,
    /// `level2_cache_linesize`.
    pub level2_cache_linesize: i64,
    /// `level3_cache_size`.
    pub level3_cache_size: i64,
    /// `level3_cache_assoc`.
    pub level3_cache_assoc: i64,
    /// `level3_cache_linesize`.
    pub level3_cache_linesize: i64,
    /// `level4_cache_size`.
    pub level4_cache_size: i64,
}

/// The last cache before memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastLevel {
    /// Its size, with what caches above it hold in addition.
    pub(super) shared: i64,
    /// The share of a thread.
    pub(super) per_thread: i64,
}

const NOT_DETERMINED: i64 = -1;

impl Default for Caches {
    fn default() -> Self {
        Caches::from_queries(|_, _| NOT_DETERMINED)
    }
}

impl Caches {
    fn from_queries(mut query: impl FnMut(Level, Property) -> i64) -> Self {
        use {Level::*, Property::*};
        Caches {
            level1_icache_size: query(Instructions1, Size),
            level1_icache_linesize: query(Instructions1, Line),
            level1_dcache_size: query(Data1, Size),
            level1_dcache_assoc: query(Data1, Ways),
            level1_dcache_linesize: query(Data1, Line),
            level2_cache_size: query(Level2, Size),
            level2_cache_assoc: query(Level2, Ways),
            level2_cache_linesize: query(Level2, Line),
            level3_cache_size: query(Level3, Size),
            level3_cache_assoc: query(Level3, Ways),
            level3_cache_linesize: query(Level3, Line),
            level4_cache_size: query(Level4, Size),
        }
    }
}

/// The caches, and the last of them.
pub(super) fn find_out(cpu: &CpuFeatures, leaves: &mut Leaves<'_>) -> (Caches, LastLevel) {
    match cpu.kind {
        CpuKind::Intel => {
            let caches = Caches::from_queries(|level, property| intel::query(cpu, leaves, level, property));
            (caches, sharing::by_topology(cpu, leaves, &caches))
        }
        CpuKind::Zhaoxin => {
            let caches = Caches::from_queries(|level, property| match level {
                Level::Level4 => NOT_DETERMINED,
                _ => deterministic(leaves, level, property).unwrap_or(0),
            });
            (caches, sharing::by_topology(cpu, leaves, &caches))
        }
        CpuKind::Amd => {
            let caches = Caches::from_queries(|level, property| amd::query(leaves, level, property));
            (caches, amd::last_level(cpu, leaves, &caches))
        }
        CpuKind::Unknown | CpuKind::Other => {
            (Caches::default(), LastLevel { shared: NOT_DETERMINED, per_thread: NOT_DETERMINED })
        }
    }
}

/// More subleaves of leaf 4 than any processor has caches.
const MAX_CACHES: u32 = 32;

/// A property of a cache from the deterministic cache parameters, CPUID leaf 4; `None` when there is no such cache.
fn deterministic(leaves: &mut Leaves<'_>, level: Level, property: Property) -> Option<i64> {
    for subleaf in 0..MAX_CACHES {
        let [eax, ebx, ecx, _] = leaves.get(4, subleaf);
        let is_wanted = match (eax & 0x1f, (eax >> 5) & 7) {
            (0, _) => return None,
            (1, 1) => level == Level::Data1,
            (2, 1) => level == Level::Instructions1,
            (_, 2) => level == Level::Level2,
            (_, 3) => level == Level::Level3,
            (_, 4) => level == Level::Level4,
            _ => false,
        };
        if is_wanted {
            let ways = (ebx >> 22) + 1;
            let partitions = ((ebx >> 12) & 0x3ff) + 1;
            let line = (ebx & 0xfff) + 1;
            return Some(i64::from(match property {
                Property::Size => ways.wrapping_mul(partitions).wrapping_mul(line).wrapping_mul(ecx.wrapping_add(1)),
                Property::Ways => ways,
                Property::Line => line,
            }));
        }
    }
    None
}

mod amd;
mod intel;
mod sharing;
