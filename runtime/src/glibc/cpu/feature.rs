//! Names for the bits of the CPUID leaves that are kept in `cpu_features.features`.

/// Number of leaves kept.
pub const LEAVES: usize = 9;

/// CPUID leaf 1.
pub(super) const LEAF_1: usize = 0;
/// CPUID leaf 7, subleaf 0.
pub(super) const LEAF_7: usize = 1;
/// CPUID leaf 0x80000001.
pub(super) const LEAF_80000001: usize = 2;
/// CPUID leaf 0xd, subleaf 1.
pub(super) const LEAF_D_1: usize = 3;
/// CPUID leaf 0x80000007.
pub(super) const LEAF_80000007: usize = 4;
/// CPUID leaf 0x80000008.
pub(super) const LEAF_80000008: usize = 5;
/// CPUID leaf 7, subleaf 1.
pub(super) const LEAF_7_1: usize = 6;
/// CPUID leaf 0x19.
pub(super) const LEAF_19: usize = 7;
/// CPUID leaf 0x14, subleaf 0.
pub(super) const LEAF_14: usize = 8;

pub(super) const EAX: usize = 0;
pub(super) const EBX: usize = 1;
pub(super) const ECX: usize = 2;
pub(super) const EDX: usize = 3;

/// One bit of one register of one kept leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    leaf: usize,
    register: usize,
    mask: u32,
}

/// A kept leaf: what CPUID says, and which of its bits a program may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// eax, ebx, ecx, edx as CPUID gave them.
    pub cpuid: [u32; 4],
    /// The same registers, with the bits of what the system supports and nobody has disabled.
    pub active: [u32; 4],
}

/// The kept leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// In glibc's order.
    pub leaves: [Leaf; LEAVES],
}

impl Features {
    /// Whether the processor has a feature.
    pub fn present(&self, feature: Feature) -> bool {
        self.leaves[feature.leaf].cpuid[feature.register] & feature.mask != 0
    }

    /// Whether a program may use a feature.
    pub fn usable(&self, feature: Feature) -> bool {
        self.leaves[feature.leaf].active[feature.register] & feature.mask != 0
    }

    /// Whether a program may use every one of these features.
    pub fn all_usable(&self, features: &[Feature]) -> bool {
        features.iter().all(|&feature| self.usable(feature))
    }

    pub(super) fn enable(&mut self, feature: Feature) {
        self.leaves[feature.leaf].active[feature.register] |= feature.mask;
    }

    pub(super) fn disable(&mut self, feature: Feature) {
        self.leaves[feature.leaf].active[feature.register] &= !feature.mask;
    }

    pub(super) fn disable_all(&mut self, features: &[Feature]) {
        features.iter().for_each(|&feature| self.disable(feature));
    }

    /// Makes those of the features usable that the processor has.
    pub(super) fn enable_present(&mut self, features: &[Feature]) {
        for &feature in features {
            if self.present(feature) {
                self.enable(feature);
            }
        }
    }
}

macro_rules! features {
    ($($leaf:ident $register:ident { $($name:ident = $bit:literal),* $(,)? })*) => {
        $($(
            #[doc = concat!("Bit ", $bit, " of ", stringify!($register), " in ", stringify!($leaf), ".")]
            pub const $name: Feature = Feature { leaf: $leaf, register: $register, mask: 1 << $bit };
        )*)*
    };
}

#[rustfmt::skip]
features! {
    LEAF_1 ECX {
        SSE3 = 0, PCLMULQDQ = 1, SSSE3 = 9, FMA = 12, CMPXCHG16B = 13, SSE4_1 = 19, SSE4_2 = 20, MOVBE = 22, POPCNT = 23,
        AES = 25, XSAVE = 26, OSXSAVE = 27, AVX = 28, F16C = 29, RDRAND = 30,
    }
    LEAF_1 EDX {
        FPU = 0, TSC = 4, CX8 = 8, CMOV = 15, CLFSH = 19, MMX = 23, FXSR = 24, SSE = 25, SSE2 = 26, HTT = 28,
    }
    LEAF_7 EBX {
        BMI1 = 3, HLE = 4, AVX2 = 5, BMI2 = 8, ERMS = 9, RTM = 11, AVX512F = 16, AVX512DQ = 17, RDSEED = 18, ADX = 19,
        AVX512_IFMA = 21, CLFLUSHOPT = 23, CLWB = 24, AVX512PF = 26, AVX512ER = 27, AVX512CD = 28, SHA = 29, AVX512BW = 30,
        AVX512VL = 31,
    }
    LEAF_7 ECX {
        PREFETCHWT1 = 0, AVX512_VBMI = 1, PKU = 3, OSPKE = 4, WAITPKG = 5, AVX512_VBMI2 = 6, GFNI = 8, VAES = 9,
        VPCLMULQDQ = 10, AVX512_VNNI = 11, AVX512_BITALG = 12, AVX512_VPOPCNTDQ = 14, RDPID = 22, KL = 23, CLDEMOTE = 25,
        MOVDIRI = 27, MOVDIR64B = 28,
    }
    LEAF_7 EDX {
        AVX512_4VNNIW = 2, AVX512_4FMAPS = 3, FSRM = 4, AVX512_VP2INTERSECT = 8, RTM_ALWAYS_ABORT = 11, SERIALIZE = 14,
        TSXLDTRK = 16, AMX_BF16 = 22, AVX512_FP16 = 23, AMX_TILE = 24, AMX_INT8 = 25,
    }
    LEAF_80000001 ECX {
        LAHF64_SAHF64 = 0, LZCNT = 5, SSE4A = 6, PREFETCHW = 8, XOP = 11, FMA4 = 16, TBM = 21,
    }
    LEAF_80000001 EDX { RDTSCP = 27 }
    LEAF_D_1 EAX { XSAVEOPT = 0, XSAVEC = 1, XGETBV_ECX_1 = 2, XFD = 4 }
    LEAF_80000008 EBX { WBNOINVD = 9 }
    LEAF_7_1 EAX { AVX_VNNI = 4, AVX512_BF16 = 5, FZLRM = 10, FSRS = 11, FSRCS = 12 }
    LEAF_19 EBX { AESKLE = 0, WIDE_KL = 2 }
    LEAF_14 EBX { PTWRITE = 4 }
}
