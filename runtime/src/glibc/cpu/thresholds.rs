//! From which size on memcpy and memset use which instructions.

use super::cache::LastLevel;
use super::feature::{AVX512F, ERMS, FSRM};
use super::preferred::{AVX_FAST_UNALIGNED_LOAD, PREFER_NO_AVX512};
use super::{CpuFeatures, CpuKind};
use crate::glibc::tunables::TunableSet;

/// Bounds of `non_temporal_threshold`: room for one round of the unrolled loop, and no overflow when it is multiplied.
const MIN_NON_TEMPORAL: u64 = 0x4040;
const MAX_NON_TEMPORAL: u64 = u64::MAX >> 4;

const DATA_CACHE_SIZE: &[u8] = b"glibc.cpu.x86_data_cache_size";
const SHARED_CACHE_SIZE: &[u8] = b"glibc.cpu.x86_shared_cache_size";
const NON_TEMPORAL: &[u8] = b"glibc.cpu.x86_non_temporal_threshold";
const REP_MOVSB: &[u8] = b"glibc.cpu.x86_rep_movsb_threshold";
const REP_STOSB: &[u8] = b"glibc.cpu.x86_rep_stosb_threshold";

/// Fills the sizes and thresholds from the caches and the tunables, and tells the tunables what came out.
pub(super) fn fill(cpu: &mut CpuFeatures, last: LastLevel, tunables: &mut TunableSet<'_>) {
    let wish = |name| Some(tunables.number_of(name)).filter(|&number| number != 0);
    let computed = non_temporal(cpu, last);
    let (default_rep_movsb, min_rep_movsb) = rep_movsb(cpu);

    cpu.data_cache_size = wish(DATA_CACHE_SIZE).unwrap_or(cpu.caches.level1_dcache_size as u64);
    cpu.shared_cache_size = wish(SHARED_CACHE_SIZE).unwrap_or(last.shared as u64);
    cpu.non_temporal_threshold = wish(NON_TEMPORAL)
        .filter(|number| (MIN_NON_TEMPORAL + 1..=MAX_NON_TEMPORAL).contains(number))
        .unwrap_or(computed);
    cpu.rep_movsb_threshold = wish(REP_MOVSB).filter(|&number| number > min_rep_movsb).unwrap_or(default_rep_movsb);
    cpu.rep_stosb_threshold = wish(REP_STOSB).unwrap_or(2048);
    cpu.rep_movsb_stop_threshold = match cpu.kind {
        CpuKind::Amd => cpu.caches.level2_cache_size as u64,
        _ => cpu.non_temporal_threshold,
    };

    tunables.set_with_bounds(DATA_CACHE_SIZE, cpu.data_cache_size, 0, u64::MAX);
    tunables.set_with_bounds(SHARED_CACHE_SIZE, cpu.shared_cache_size, 0, u64::MAX);
    tunables.set_with_bounds(NON_TEMPORAL, cpu.non_temporal_threshold, MIN_NON_TEMPORAL, MAX_NON_TEMPORAL);
    tunables.set_with_bounds(REP_MOVSB, cpu.rep_movsb_threshold, min_rep_movsb, u64::MAX);
    tunables.set_with_bounds(REP_STOSB, cpu.rep_stosb_threshold, 1, u64::MAX);
}

/// Where stores begin to go past the caches: a quarter of the last cache if `rep movsb` is fast, but no less than three
/// quarters of a thread's share in it.
fn non_temporal(cpu: &CpuFeatures, last: LastLevel) -> u64 {
    let share = (last.per_thread.wrapping_mul(3) / 4) as u64;
    let threshold = if cpu.features.usable(ERMS) { ((last.shared / 4) as u64).max(share) } else { share };
    threshold.clamp(MIN_NON_TEMPORAL, MAX_NON_TEMPORAL)
}

/// Where `rep movsb` begins to be used: the default, and the lowest value a user may give, 8 times the vector size.
fn rep_movsb(cpu: &CpuFeatures) -> (u64, u64) {
    let (threshold, vector) = if cpu.features.usable(AVX512F) && !cpu.preferred.has(PREFER_NO_AVX512) {
        (16384, 64)
    } else if cpu.preferred.has(AVX_FAST_UNALIGNED_LOAD) {
        (8192, 32)
    } else {
        (2048, 16)
    };
    (if cpu.features.usable(FSRM) { 2112 } else { threshold }, vector * 8)
}
