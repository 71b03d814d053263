//! The tunable `glibc.cpu.hwcaps`: a list like `-AVX2,Prefer_ERMS` of features to disable and preferences to change.
//!
//! ld.so of glibc 2.36 does not stop at the end of the list but takes the rest of `GLIBC_TUNABLES` and of the environment
//! for more of it, up to two NULs in a row. That is the one thing not done like it.

use super::feature::*;
use super::preferred::*;
use super::CpuFeatures;

/// Features that can be disabled; none can be enabled.
#[rustfmt::skip]
const FEATURES: &[(&[u8], Feature)] = &[
    (b"AVX", AVX), (b"CX8", CX8), (b"FMA", FMA), (b"HTT", HTT), (b"RTM", RTM), (b"AVX2", AVX2), (b"BMI1", BMI1),
    (b"BMI2", BMI2), (b"CMOV", CMOV), (b"ERMS", ERMS), (b"FMA4", FMA4), (b"SSE2", SSE2), (b"LZCNT", LZCNT),
    (b"MOVBE", MOVBE), (b"SSSE3", SSSE3), (b"XSAVE", XSAVE), (b"POPCNT", POPCNT), (b"SSE4_1", SSE4_1), (b"SSE4_2", SSE4_2),
    (b"XSAVEC", XSAVEC), (b"AVX512F", AVX512F), (b"OSXSAVE", OSXSAVE), (b"AVX512CD", AVX512CD), (b"AVX512BW", AVX512BW),
    (b"AVX512DQ", AVX512DQ), (b"AVX512ER", AVX512ER), (b"AVX512PF", AVX512PF), (b"AVX512VL", AVX512VL),
];

/// What must hold for a preference to be set.
enum Settable {
    Never,
    Always,
    With(Feature),
}

/// Preferences; all can be cleared.
#[rustfmt::skip]
const PREFERENCES: &[(&[u8], u32, Settable)] = &[
    (b"I586", I586, Settable::Never),
    (b"I686", I686, Settable::Never),
    (b"Slow_BSF", SLOW_BSF, Settable::Always),
    (b"Prefer_ERMS", PREFER_ERMS, Settable::Always),
    (b"Prefer_FSRM", PREFER_FSRM, Settable::Always),
    (b"Slow_SSE4_2", SLOW_SSE4_2, Settable::With(SSE4_2)),
    (b"Fast_Rep_String", FAST_REP_STRING, Settable::Always),
    (b"Prefer_No_AVX512", PREFER_NO_AVX512, Settable::With(AVX512F)),
    (b"Fast_Copy_Backward", FAST_COPY_BACKWARD, Settable::Always),
    (b"Fast_Unaligned_Load", FAST_UNALIGNED_LOAD, Settable::Always),
    (b"Fast_Unaligned_Copy", FAST_UNALIGNED_COPY, Settable::Always),
    (b"Prefer_No_VZEROUPPER", PREFER_NO_VZEROUPPER, Settable::With(AVX)),
    (b"AVX_Fast_Unaligned_Load", AVX_FAST_UNALIGNED_LOAD, Settable::With(AVX)),
    (b"MathVec_Prefer_No_AVX512", MATHVEC_PREFER_NO_AVX512, Settable::With(AVX512F)),
    (b"Prefer_PMINUB_for_stringop", PREFER_PMINUB_FOR_STRINGOP, Settable::With(SSE2)),
];

/// Does what the list says, from left to right; unknown names are ignored.
pub(super) fn apply(cpu: &mut CpuFeatures, list: &[u8]) {
    for item in list.split(|&byte| byte == b',') {
        match item {
            [b'-', name @ ..] => disable(cpu, name),
            name => prefer(cpu, name),
        }
    }
}

fn disable(cpu: &mut CpuFeatures, name: &[u8]) {
    if let Some((_, feature)) = FEATURES.iter().find(|(known, _)| *known == name) {
        cpu.features.disable(*feature);
        if *feature == XSAVEC {
            cpu.xsave_state_size = u64::from(cpu.xsave_state_full_size);
        }
    }
    if let Some((_, bit, _)) = PREFERENCES.iter().find(|(known, ..)| *known == name) {
        cpu.preferred.clear(*bit);
    }
}

fn prefer(cpu: &mut CpuFeatures, name: &[u8]) {
    let Some((_, bit, settable)) = PREFERENCES.iter().find(|(known, ..)| *known == name) else { return };
    let is_allowed = match settable {
        Settable::Never => false,
        Settable::Always => true,
        Settable::With(feature) => cpu.features.usable(*feature),
    };
    if is_allowed {
        cpu.preferred.set(*bit);
    }
}
