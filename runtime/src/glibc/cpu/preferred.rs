//! What a processor is good at: the bits of `cpu_features.preferred`, and corrections for single models.

use super::feature::*;
use super::{CpuFeatures, CpuKind};

/// The bits of `cpu_features.preferred[0]`, numbered as in glibc 2.36.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferred(pub u32);

impl Preferred {
    /// Whether a bit is set.
    pub fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn set(&mut self, bits: u32) {
        self.0 |= bits;
    }

    pub(super) fn clear(&mut self, bits: u32) {
        self.0 &= !bits;
    }
}

macro_rules! preferred {
    ($($bit:literal $name:ident $glibc:literal,)*) => {
        $(#[doc = concat!("`", $glibc, "`.")] pub const $name: u32 = 1 << $bit;)*
        /// The bits with glibc's names for them.
        pub const PREFERRED_NAMES: &[(&str, u32)] = &[$(($glibc, $name),)*];
    };
}

preferred! {
    0 FAST_REP_STRING "Fast_Rep_String",
    1 FAST_COPY_BACKWARD "Fast_Copy_Backward",
    2 SLOW_BSF "Slow_BSF",
    3 FAST_UNALIGNED_LOAD "Fast_Unaligned_Load",
    4 PREFER_PMINUB_FOR_STRINGOP "Prefer_PMINUB_for_stringop",
    5 FAST_UNALIGNED_COPY "Fast_Unaligned_Copy",
    6 I586 "I586",
    7 I686 "I686",
    8 SLOW_SSE4_2 "Slow_SSE4_2",
    9 AVX_FAST_UNALIGNED_LOAD "AVX_Fast_Unaligned_Load",
    10 PREFER_NO_VZEROUPPER "Prefer_No_VZEROUPPER",
    11 PREFER_ERMS "Prefer_ERMS",
    12 PREFER_NO_AVX512 "Prefer_No_AVX512",
    13 MATHVEC_PREFER_NO_AVX512 "MathVec_Prefer_No_AVX512",
    14 PREFER_FSRM "Prefer_FSRM",
    15 AVOID_SHORT_DISTANCE_REP_MOVSB "Avoid_Short_Distance_REP_MOVSB",
}

/// Fills `preferred` for the processor's make and model, and disables what is broken or slow in it.
pub(super) fn judge_model(cpu: &mut CpuFeatures) {
    match cpu.kind {
        CpuKind::Intel => judge_intel(cpu),
        CpuKind::Amd => judge_amd(cpu),
        CpuKind::Zhaoxin => judge_zhaoxin(cpu),
        CpuKind::Unknown | CpuKind::Other => {}
    }
    if cpu.features.present(CX8) {
        cpu.preferred.set(I586);
    }
    if cpu.features.present(CMOV) {
        cpu.preferred.set(I686);
    }
}

fn judge_intel(cpu: &mut CpuFeatures) {
    if cpu.family == 6 {
        cpu.preferred.set(intel_strings(cpu.model, cpu.features.present(AVX)));
        disable_broken_tsx(cpu);
    }
    let features = &cpu.features;
    if features.present(AVX512ER) {
        cpu.preferred.set(PREFER_NO_VZEROUPPER);
    } else {
        if !features.present(AVX_VNNI) {
            cpu.preferred.set(PREFER_NO_AVX512);
        }
        if features.usable(RTM) {
            cpu.preferred.set(PREFER_NO_VZEROUPPER);
        }
    }
    if features.present(FSRM) {
        cpu.preferred.set(AVOID_SHORT_DISTANCE_REP_MOVSB);
    }
}

/// How string functions are best done on a model of family 6.
fn intel_strings(model: u32, has_avx: bool) -> u32 {
    const UNALIGNED: u32 = FAST_UNALIGNED_LOAD | FAST_UNALIGNED_COPY | PREFER_PMINUB_FOR_STRINGOP;
    match model {
        // Bonnell and Saltwell.
        0x1c | 0x26 => SLOW_BSF,
        // Silvermont, Airmont, Goldmont, Goldmont Plus and Knights Landing.
        0x37 | 0x4a | 0x4c | 0x4d | 0x57 | 0x5a | 0x5c | 0x5d | 0x5f | 0x75 | 0x7a => UNALIGNED | SLOW_SSE4_2,
        // Tremont.
        0x86 | 0x96 | 0x9c => FAST_REP_STRING | UNALIGNED | SLOW_SSE4_2,
        // Nehalem and Westmere.
        0x1a | 0x1e | 0x1f | 0x25 | 0x2c | 0x2e | 0x2f => FAST_REP_STRING | UNALIGNED,
        // Anything with AVX is taken for a descendant of theirs.
        _ if has_avx => FAST_REP_STRING | UNALIGNED,
        _ => 0,
    }
}

/// Transactional memory does not work, or aborts always, in many models; kernels without new microcode do not say so.
fn disable_broken_tsx(cpu: &mut CpuFeatures) {
    let aborts_always = match cpu.model {
        0x55 => cpu.stepping <= 5,
        0x8e | 0x9e => cpu.stepping <= 0xc,
        0x4e | 0x5e => true,
        _ => false,
    };
    let is_broken = match cpu.model {
        0x3f => cpu.stepping < 4,
        0x3c | 0x45 | 0x46 => true,
        _ => false,
    };
    if aborts_always {
        cpu.features.disable_all(&[HLE, RTM]);
        cpu.features.enable(RTM_ALWAYS_ABORT);
    } else if is_broken {
        cpu.features.disable(RTM);
    }
}

fn judge_amd(cpu: &mut CpuFeatures) {
    if cpu.features.usable(AVX) {
        cpu.features.enable_present(&[FMA4]);
    }
    // Excavator.
    if cpu.family == 0x15 && (0x60..=0x7f).contains(&cpu.model) {
        cpu.preferred.set(FAST_UNALIGNED_LOAD | FAST_COPY_BACKWARD);
        cpu.preferred.clear(AVX_FAST_UNALIGNED_LOAD);
    }
}

fn judge_zhaoxin(cpu: &mut CpuFeatures) {
    let is_slow_with_sse4_2 = matches!((cpu.family, cpu.model), (6, 0xf | 0x19) | (7, 0x1b));
    if is_slow_with_sse4_2 {
        cpu.preferred.set(SLOW_SSE4_2);
    }
    if is_slow_with_sse4_2 || (cpu.family, cpu.model) == (7, 0x3b) {
        cpu.features.disable_all(&[AVX, AVX2]);
        cpu.preferred.clear(AVX_FAST_UNALIGNED_LOAD);
    }
}
