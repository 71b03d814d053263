//! Caches of Intel processors, from the descriptors of CPUID leaf 2 or the parameters of leaf 4.

use super::*;
use Level::{Data1, Instructions1, Level2, Level3};

/// What the descriptor bytes of leaf 2 stand for: level, size in KiB, ways, bytes in a line.
#[rustfmt::skip]
const DESCRIPTORS: &[(u8, Level, u16, u8, u8)] = &[
    (0x06, Instructions1, 8, 4, 32), (0x08, Instructions1, 16, 4, 32), (0x09, Instructions1, 32, 4, 32),
    (0x0a, Data1, 8, 2, 32), (0x0c, Data1, 16, 4, 32), (0x0d, Data1, 16, 4, 64), (0x0e, Data1, 24, 6, 64),
    (0x21, Level2, 256, 8, 64), (0x22, Level3, 512, 4, 64), (0x23, Level3, 1024, 8, 64), (0x25, Level3, 2048, 8, 64),
    (0x29, Level3, 4096, 8, 64), (0x2c, Data1, 32, 8, 64), (0x30, Instructions1, 32, 8, 64),
    (0x39, Level2, 128, 4, 64), (0x3a, Level2, 192, 6, 64), (0x3b, Level2, 128, 2, 64), (0x3c, Level2, 256, 4, 64),
    (0x3d, Level2, 384, 6, 64), (0x3e, Level2, 512, 4, 64), (0x3f, Level2, 256, 2, 64), (0x41, Level2, 128, 4, 32),
    (0x42, Level2, 256, 4, 32), (0x43, Level2, 512, 4, 32), (0x44, Level2, 1024, 4, 32), (0x45, Level2, 2048, 4, 32),
    (0x46, Level3, 4096, 4, 64), (0x47, Level3, 8192, 8, 64), (0x48, Level2, 3072, 12, 64),
    (0x49, Level2, 4096, 16, 64), (0x4a, Level3, 6144, 12, 64), (0x4b, Level3, 8192, 16, 64),
    (0x4c, Level3, 12288, 12, 64), (0x4d, Level3, 16384, 16, 64), (0x4e, Level2, 6144, 24, 64),
    (0x60, Data1, 16, 8, 64), (0x66, Data1, 8, 4, 64), (0x67, Data1, 16, 4, 64), (0x68, Data1, 32, 4, 64),
    (0x78, Level2, 1024, 8, 64), (0x79, Level2, 128, 8, 64), (0x7a, Level2, 256, 8, 64), (0x7b, Level2, 512, 8, 64),
    (0x7c, Level2, 1024, 8, 64), (0x7d, Level2, 2048, 8, 64), (0x7f, Level2, 512, 2, 64), (0x80, Level2, 512, 8, 64),
    (0x82, Level2, 256, 8, 32), (0x83, Level2, 512, 8, 32), (0x84, Level2, 1024, 8, 32), (0x85, Level2, 2048, 8, 32),
    (0x86, Level2, 512, 4, 64), (0x87, Level2, 1024, 8, 64), (0xd0, Level3, 512, 4, 64), (0xd1, Level3, 1024, 4, 64),
    (0xd2, Level3, 2048, 4, 64), (0xd6, Level3, 1024, 8, 64), (0xd7, Level3, 2048, 8, 64),
    (0xd8, Level3, 4096, 8, 64), (0xdc, Level3, 2048, 12, 64), (0xdd, Level3, 4096, 12, 64),
    (0xde, Level3, 8192, 12, 64), (0xe2, Level3, 2048, 16, 64), (0xe3, Level3, 4096, 16, 64),
    (0xe4, Level3, 8192, 16, 64), (0xea, Level3, 12288, 24, 64), (0xeb, Level3, 18432, 24, 64),
    (0xec, Level3, 24576, 24, 64),
];

/// There is no level 2 cache, or if there is, no level 3 cache.
const NO_OUTER_CACHE: u8 = 0x40;
/// Leaf 4 has it all.
const SEE_LEAF_4: u8 = 0xff;
/// A level 2 cache; in family 15, model 6, the same cache is on level 3.
const LEVEL_2_OR_3: u8 = 0x49;

pub(super) fn query(cpu: &CpuFeatures, leaves: &mut Leaves<'_>, level: Level, property: Property) -> i64 {
    if cpu.max_cpuid < 2 {
        return NOT_DETERMINED;
    }
    let mut registers = leaves.get(2, 0);
    // The low byte says how often to ask; processors for which that isn't once describe their caches in leaf 4 only.
    if registers[0] & 0xff != 1 {
        return deterministic(leaves, level, property).unwrap_or(NOT_DETERMINED);
    }
    registers[0] &= !0xff;
    let mut has_no_outer_cache = false;
    for register in registers.into_iter().filter(|register| register & 0x8000_0000 == 0) {
        for byte in register.to_le_bytes() {
            match byte {
                NO_OUTER_CACHE => {
                    has_no_outer_cache = true;
                    if level == Level3 {
                        break;
                    }
                }
                SEE_LEAF_4 => return deterministic(leaves, level, property).unwrap_or(NOT_DETERMINED),
                _ => {
                    let is_level3 = byte == LEVEL_2_OR_3 && level == Level3 && (cpu.family, cpu.model) == (15, 6);
                    let listed = if is_level3 { Level2 } else { level };
                    if let Some(found) = described(byte, listed, property) {
                        return found;
                    }
                }
            }
        }
    }
    if has_no_outer_cache && matches!(level, Level2 | Level3) {
        NOT_DETERMINED
    } else {
        0
    }
}

fn described(byte: u8, level: Level, property: Property) -> Option<i64> {
    let &(_, _, kib, ways, line) = DESCRIPTORS.iter().find(|known| (known.0, known.1) == (byte, level))?;
    Some(match property {
        Property::Size => i64::from(kib) * 1024,
        Property::Ways => i64::from(ways),
        Property::Line => i64::from(line),
    })
}
