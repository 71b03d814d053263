//! Caches of AMD and Hygon processors, from CPUID leaves 0x80000005 and 0x80000006.

use super::*;

pub(super) fn query(leaves: &mut Leaves<'_>, level: Level, property: Property) -> i64 {
    let leaf = match level {
        Level::Instructions1 | Level::Data1 => 0x8000_0005,
        Level::Level2 | Level::Level3 => 0x8000_0006,
        Level::Level4 => return NOT_DETERMINED,
    };
    if leaves.get(0x8000_0000, 0)[0] < leaf {
        return 0;
    }
    let [_, _, ecx, edx] = leaves.get(leaf, 0);
    i64::from(match level {
        Level::Data1 => level1(ecx, property),
        Level::Instructions1 => level1(edx, property),
        Level::Level2 => outer(ecx, (ecx >> 6) & 0x03ff_fc00, property),
        _ => outer(edx, (edx & 0x3ffc_0000) << 1, property),
    })
}

fn level1(register: u32, property: Property) -> u32 {
    let size = (register >> 14) & 0x3_fc00;
    match property {
        Property::Size => size,
        Property::Ways => match (register >> 16) & 0xff {
            // Fully associative: glibc takes the size for the number of ways.
            0xff => size,
            ways => ways,
        },
        Property::Line => register & 0xff,
    }
}

fn outer(register: u32, size: u32, property: Property) -> u32 {
    let ways = (register >> 12) & 0xf;
    let line = register & 0xff;
    match property {
        Property::Size if ways == 0 => 0,
        Property::Size => size,
        Property::Line if ways == 0 => 0,
        Property::Line => line,
        Property::Ways => match ways {
            0 | 1 | 2 | 4 => ways,
            6 => 8,
            8 => 16,
            10 => 32,
            11 => 48,
            12 => 64,
            13 => 96,
            14 => 128,
            15 => size.checked_div(line).unwrap_or(0),
            _ => 0,
        },
    }
}

/// The last cache: the level 3 cache of a core complex since family 0x17, else levels 2 and 3, which exclude each other.
pub(super) fn last_level(cpu: &CpuFeatures, leaves: &mut Leaves<'_>, caches: &Caches) -> LastLevel {
    let (core, shared) = (caches.level2_cache_size, caches.level3_cache_size);
    if shared <= 0 {
        return LastLevel { shared: core, per_thread: core };
    }
    let mut threads = 0u32;
    if leaves.get(0x8000_0000, 0)[0] >= 0x8000_0008 {
        threads = 1 << ((leaves.get(0x8000_0008, 0)[2] >> 12) & 0xf);
    }
    if threads == 0 || cpu.family >= 0x17 {
        let [_, ebx, _, edx] = leaves.get(1, 0);
        if edx & (1 << 28) != 0 {
            threads = (ebx >> 16) & 0xff;
        }
    }
    let per_thread = shared.checked_div(i64::from(threads)).unwrap_or(shared);
    if cpu.family >= 0x17 {
        let sharing = ((leaves.get(0x8000_001d, 3)[0] >> 14) & 0xfff) + 1;
        LastLevel { shared, per_thread: per_thread.wrapping_mul(i64::from(sharing)) }
    } else {
        LastLevel { shared: shared.wrapping_add(core), per_thread: per_thread.wrapping_add(core) }
    }
}
