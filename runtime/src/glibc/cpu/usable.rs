//! Which features a program may use: those the processor has and the system has made room for.

use super::cpuid::Leaves;
use super::feature::*;
use super::preferred::{Preferred, AVX_FAST_UNALIGNED_LOAD};
use super::CpuFeatures;

/// Features that need nothing from the system.
#[rustfmt::skip]
const UNCONDITIONAL: &[Feature] = &[
    SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4_1, SSE4_2, MOVBE, POPCNT, AES, OSXSAVE, TSC, CX8, CMOV, CLFSH, MMX, FXSR, SSE,
    SSE2, HTT, BMI1, HLE, BMI2, ERMS, RDSEED, ADX, CLFLUSHOPT, CLWB, SHA, PREFETCHWT1, OSPKE, WAITPKG, GFNI, RDPID, RDRAND,
    CLDEMOTE, MOVDIRI, MOVDIR64B, FSRM, RTM_ALWAYS_ABORT, SERIALIZE, TSXLDTRK, LAHF64_SAHF64, LZCNT, SSE4A, PREFETCHW, TBM,
    RDTSCP, WBNOINVD, FZLRM, FSRS, FSRCS, PTWRITE,
];

/// Features that use the ymm registers.
const WITH_AVX: &[Feature] = &[AVX, AVX2, AVX_VNNI, FMA, VAES, VPCLMULQDQ, XOP, F16C];

/// Features that use the zmm and mask registers.
#[rustfmt::skip]
const WITH_AVX512: &[Feature] = &[
    AVX512F, AVX512CD, AVX512ER, AVX512PF, AVX512VL, AVX512DQ, AVX512BW, AVX512_4FMAPS, AVX512_4VNNIW, AVX512_BITALG,
    AVX512_IFMA, AVX512_VBMI, AVX512_VBMI2, AVX512_VNNI, AVX512_VPOPCNTDQ, AVX512_VP2INTERSECT, AVX512_BF16, AVX512_FP16,
];

/// Features that use the tile registers.
const WITH_AMX: &[Feature] = &[AMX_BF16, AMX_TILE, AMX_INT8];

/// Features of XSAVE itself beyond XSAVE.
const WITH_XSAVE: &[Feature] = &[XSAVEOPT, XSAVEC, XGETBV_ECX_1, XFD];

/// Bits of XCR0.
const XMM_YMM_STATE: u32 = 1 << 1 | 1 << 2;
const AVX512_STATE: u32 = 1 << 5 | 1 << 6 | 1 << 7;
const AMX_STATE: u32 = 1 << 17 | 1 << 18;

/// Bytes that glibc's lazy binding trampoline keeps below the XSAVE area.
const TRAMPOLINE_REGISTERS: u32 = 64;
/// The state components that the trampoline saves: SSE, AVX, MPX bounds, and the three of AVX-512.
const TRAMPOLINE_COMPONENTS: u32 = 0xee;

/// Bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`.
pub(super) const ISA_BASELINE: u32 = 1;
pub(super) const ISA_V2: u32 = 2;
pub(super) const ISA_V3: u32 = 4;
pub(super) const ISA_V4: u32 = 8;

/// Fills the `active` words, `isa_1` and the sizes of the XSAVE area from the leaves that have been read.
pub(super) fn update(cpu: &mut CpuFeatures, leaves: &mut Leaves<'_>) {
    cpu.features.enable_present(UNCONDITIONAL);
    if !cpu.features.present(RTM_ALWAYS_ABORT) {
        cpu.features.enable_present(&[RTM]);
    }
    if cpu.features.present(OSXSAVE) {
        let xcr0 = leaves.xcr0();
        update_by_state(&mut cpu.features, &mut cpu.preferred, xcr0);
        cpu.features.enable(XSAVE);
        cpu.features.enable_present(WITH_XSAVE);
        if cpu.max_cpuid >= 0xd {
            update_xsave_sizes(cpu, leaves);
        }
    }
    if cpu.features.present(OSPKE) {
        cpu.features.enable(PKU);
    }
    if cpu.features.present(AESKLE) {
        cpu.features.enable(AESKLE);
        cpu.features.enable_present(&[KL, WIDE_KL]);
    }
    cpu.isa_1 = isa_level(&cpu.features);
}

fn update_by_state(features: &mut Features, preferred: &mut Preferred, xcr0: u32) {
    let has = |state| xcr0 & state == state;
    if has(XMM_YMM_STATE) {
        if features.present(AVX) {
            features.enable_present(WITH_AVX);
            if features.present(AVX2) {
                preferred.set(AVX_FAST_UNALIGNED_LOAD);
            }
        }
        if has(AVX512_STATE) && features.present(AVX512F) {
            features.enable_present(WITH_AVX512);
        }
    }
    if has(AMX_STATE) {
        features.enable_present(WITH_AMX);
    }
}

fn update_xsave_sizes(cpu: &mut CpuFeatures, leaves: &mut Leaves<'_>) {
    let [supported, xsave_size, _, _] = leaves.get(0xd, 0);
    cpu.xsave_size = xsave_size;
    if xsave_size == 0 {
        return;
    }
    cpu.xsave_state_full_size = align_up(xsave_size.wrapping_add(TRAMPOLINE_REGISTERS));
    cpu.xsave_state_size = u64::from(cpu.xsave_state_full_size);
    if cpu.features.present(XSAVEC) {
        cpu.xsave_state_size = u64::from(align_up(compacted_size(supported) + TRAMPOLINE_REGISTERS));
    }
}

/// The size of the area that XSAVEC writes for the components that the trampoline saves, of those that the processor has (`supported`, which
/// is eax of CPUID leaf 0xd). Their subleaves would say what the architecture has fixed for good, and CPUID is dear in virtual machines.
fn compacted_size(supported: u32) -> u32 {
    /// The legacy area, which has the state of SSE, and the header.
    const BEGINNING: u32 = 576;
    /// Components with their sizes: AVX, MPX bounds, opmask, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31 (Intel SDM 1, 13.5). All
    /// are multiples of 64, so it does not matter which are aligned.
    const COMPONENTS: [(u32, u32); 5] = [(2, 256), (3, 64), (5, 64), (6, 512), (7, 1024)];
    let has = |component: u32| TRAMPOLINE_COMPONENTS & supported & (1 << component) != 0;
    BEGINNING + COMPONENTS.iter().filter(|(component, _)| has(*component)).map(|(_, size)| size).sum::<u32>()
}

const fn align_up(size: u32) -> u32 {
    size.wrapping_add(63) & !63
}

/// The x86-64 levels whose features are all usable, as bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`.
pub(super) fn isa_level(features: &Features) -> u32 {
    const BASELINE: &[Feature] = &[CMOV, CX8, FXSR, MMX, SSE, SSE2];
    const V2: &[Feature] = &[CMPXCHG16B, LAHF64_SAHF64, POPCNT, SSE3, SSSE3, SSE4_1, SSE4_2];
    const V3: &[Feature] = &[AVX, AVX2, BMI1, BMI2, F16C, FMA, LZCNT, MOVBE];
    const V4: &[Feature] = &[AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL];
    if !features.present(FPU) {
        return 0;
    }
    [(BASELINE, ISA_BASELINE), (V2, ISA_V2), (V3, ISA_V3), (V4, ISA_V4)]
        .into_iter()
        .take_while(|(needed, _)| features.all_usable(needed))
        .fold(0, |level, (_, bit)| level | bit)
}

/// Takes back what can't work without XSAVE, once the user's wishes are known.
pub(super) fn withdraw_without_xsave(cpu: &mut CpuFeatures) {
    let features = &mut cpu.features;
    let has_system_support = features.usable(OSXSAVE);
    if !has_system_support {
        features.disable(XSAVE);
        features.disable_all(WITH_XSAVE);
    }
    if !has_system_support || (!features.usable(XSAVE) && !features.usable(XSAVEC)) {
        cpu.xsave_state_size = 0;
        for group in [WITH_AVX, WITH_AVX512, WITH_AMX, &[FMA4]] {
            features.disable_all(group);
        }
    }
}
