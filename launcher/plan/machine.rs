//! What the search for libraries needs to know of the processor. (`glibc.cpu.hwcaps` in `GLIBC_TUNABLES`, which takes features away from a
//! program, is not looked at.)

use loader::search::hwcaps::Machine;
use std::arch::is_x86_feature_detected as has;

/// Levels of the psABI, as the bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`.
const BASELINE: u32 = 1 << 0;
const V2: u32 = 1 << 1;
const V3: u32 = 1 << 2;
const V4: u32 = 1 << 3;

/// Bits of glibc's hwcap word.
const HWCAP_X86_64: u64 = 1 << 1;
const HWCAP_AVX512_1: u64 = 1 << 2;

/// This machine.
pub fn machine() -> Machine<'static> {
    let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2");
    let haswell = has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("movbe");
    let v3 = v2 && haswell && has!("avx") && has!("f16c");
    let avx512_1 = has!("avx512cd") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    let v4 = v3 && avx512_1 && has!("avx512f");
    let levels = [(true, BASELINE), (v2, V2), (v3, V3), (v4, V4)];
    let intel = is_intel();
    Machine {
        isa_1: levels.iter().filter(|(present, _)| *present).fold(0, |all, (_, bit)| all | bit),
        platform: Some(if intel && haswell && has!("popcnt") { b"haswell" } else { b"x86_64" }),
        hwcap: HWCAP_X86_64 | if intel && avx512_1 { HWCAP_AVX512_1 } else { 0 },
        disabled_levels: 0,
        os_version: 0,
        legacy_subdirectories: true,
    }
}

/// The legacy names (`haswell`) are given to processors of one vendor only.
fn is_intel() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find(|line| line.starts_with("vendor_id"));
    vendor.is_some_and(|line| line.ends_with("GenuineIntel"))
}
