//! How many threads share the last cache of an Intel or Zhaoxin processor, from CPUID leaves 4 and 0xb.

use super::*;

/// How many threads share the caches, while it is being found out.
struct Threads {
    /// Of level 2.
    level2: i32,
    /// Of level 3; -1 if there is none.
    level3: i32,
    /// Whether the level 3 cache holds what level 2 holds.
    is_inclusive: bool,
}

/// The last cache, and a thread's share in it.
pub(super) fn by_topology(cpu: &CpuFeatures, leaves: &mut Leaves<'_>, caches: &Caches) -> LastLevel {
    let core = caches.level2_cache_size;
    let has_level3 = caches.level3_cache_size > 0;
    let shared = if has_level3 { caches.level3_cache_size } else { core };
    let mut last = LastLevel { shared, per_thread: shared };
    let mut threads = Threads { level2: 0, level3: if has_level3 { 0 } else { -1 }, is_inclusive: true };
    // Without the HTT bit there is a single logical processor.
    if cpu.features.present(HTT) {
        let sharers = if cpu.max_cpuid >= 4 && count_ids(cpu, leaves, &mut threads) {
            narrow_to_threads(cpu, leaves, &mut threads, has_level3);
            count_sharers(cpu, &mut threads, has_level3)
        } else {
            // All logical processors of the package.
            (cpu.features.leaves[LEAF_1].cpuid[1] >> 16) & 0xff
        };
        if last.per_thread > 0 {
            last.per_thread = last.per_thread.checked_div(i64::from(sharers)).unwrap_or(last.per_thread);
        }
    }
    if !threads.is_inclusive {
        let core_per_thread = if threads.level2 > 0 { core / i64::from(threads.level2) } else { core };
        last.per_thread = last.per_thread.wrapping_add(core_per_thread);
        last.shared = last.shared.wrapping_add(core);
    }
    last
}

/// Reads from leaf 4 the highest number that identifies a thread sharing each cache. False if an Intel processor ends its
/// list before that.
fn count_ids(cpu: &CpuFeatures, leaves: &mut Leaves<'_>, threads: &mut Threads) -> bool {
    let (mut wants_level2, mut wants_level3) = (true, threads.level3 == 0);
    for subleaf in 0..MAX_CACHES {
        let [eax, _, _, edx] = leaves.get(4, subleaf);
        if cpu.kind == CpuKind::Intel && eax & 0x1f == 0 {
            return false;
        }
        let highest = ((eax >> 14) & 0x3ff) as i32;
        match (eax >> 5) & 7 {
            2 if wants_level2 => {
                threads.level2 = highest;
                wants_level2 = false;
            }
            3 if wants_level3 => {
                threads.level3 = highest;
                threads.is_inclusive = edx & 2 != 0;
                wants_level3 = false;
            }
            _ => {}
        }
        if !wants_level2 && !wants_level3 {
            break;
        }
    }
    true
}

/// More levels of topology than leaf 0xb has.
const MAX_TOPOLOGY: u32 = 32;

/// With leaf 0xb, narrows the numbers from leaf 4, which count identifiers that may be unused, to threads that exist.
fn narrow_to_threads(cpu: &CpuFeatures, leaves: &mut Leaves<'_>, threads: &mut Threads, has_level3: bool) {
    let lacks_topology = cpu.kind == CpuKind::Zhaoxin && cpu.family == 6;
    if cpu.max_cpuid < 11 || lacks_topology {
        return;
    }
    let mut wants_smt = threads.level2 > 0 && has_level3;
    let mut wants_core = threads.level3 > 0 || (threads.level2 > 0 && !has_level3);
    for subleaf in 0..MAX_TOPOLOGY {
        if !wants_smt && !wants_core {
            return;
        }
        let [_, ebx, ecx, _] = leaves.get(11, subleaf);
        let shipped = (ebx & 0xff) as i32;
        match (shipped, ecx & 0xff00) {
            (0, _) | (_, 0) => return,
            (_, 0x100) if wants_smt => {
                threads.level2 = existing(shipped, threads.level2);
                wants_smt = false;
            }
            (_, 0x200) if wants_core => {
                let shared = if has_level3 { &mut threads.level3 } else { &mut threads.level2 };
                *shared = existing(shipped, *shared);
                wants_core = false;
            }
            _ => {}
        }
    }
}

/// Of `shipped` threads, the highest number of one among those that `highest` identifies.
fn existing(shipped: i32, highest: i32) -> i32 {
    let bits = highest.max(1).ilog2() + 1;
    (shipped - 1) & ((1 << bits) - 1)
}

fn count_sharers(cpu: &CpuFeatures, threads: &mut Threads, has_level3: bool) -> u32 {
    for highest in [&mut threads.level2, &mut threads.level3] {
        if *highest > 0 {
            *highest += 1;
        }
    }
    let count = if has_level3 { threads.level3 } else { threads.level2 };
    // Silvermont's level 2 cache belongs to two cores, whatever it says.
    let is_silvermont =
        cpu.kind == CpuKind::Intel && cpu.family == 6 && matches!(cpu.model, 0x37 | 0x4a | 0x4d | 0x5a | 0x5d);
    if !has_level3 && is_silvermont && count > 2 {
        return 2;
    }
    count as u32
}
