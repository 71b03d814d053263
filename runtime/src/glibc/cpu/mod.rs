//! What glibc's `struct cpu_features` says about the processor, computed as ld.so of glibc 2.36 does.
//!
//! The resolvers of indirect functions in libc.so.6 and libm.so.6 choose by it, and memcpy takes its thresholds from it,
//! so a program gets the same implementations as under the system's loader only if every field is the same.
//!
//! [`CpuFeatures::detect`] reads as a list of the steps. Each CPUID leaf is asked for at most once (see [`cpuid`]).

mod cache;
pub mod cpuid;
pub mod feature;
mod hwcaps;
pub mod preferred;
mod thresholds;
mod usable;

pub use cache::Caches;
pub use feature::Features;
pub use preferred::Preferred;

use super::layout::{CpuFeaturesLayout, CpuKinds};
use super::tunables::TunableSet;
use cpuid::{Cpuid, Leaves};
use feature::*;

/// Who made the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuKind {
    /// Not determined yet.
    #[default]
    Unknown,
    /// Intel.
    Intel,
    /// AMD, or Hygon.
    Amd,
    /// Zhaoxin, or Centaur.
    Zhaoxin,
    /// Any other maker.
    Other,
}

/// glibc's `struct cpu_features`. Sizes and thresholds are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Who made the processor.
    pub kind: CpuKind,
    /// The highest basic CPUID leaf.
    pub max_cpuid: u32,
    /// Family, the extended family included.
    pub family: u32,
    /// Model, the extended model included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// CPUID leaves and what of them is usable.
    pub features: Features,
    /// What the processor is good at.
    pub preferred: Preferred,
    /// The x86-64 levels of the processor, as bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`, whatever tunables disable.
    pub isa_1: u32,
    /// Room that a lazy binding trampoline needs to save registers with XSAVEC or XSAVE; 0 if it can use neither.
    pub xsave_state_size: u64,
    /// The same for XSAVE of everything.
    pub xsave_state_full_size: u32,
    /// Size of the level 1 data cache, or what the user says it is.
    pub data_cache_size: u64,
    /// Size of the last cache before memory, or what the user says it is.
    pub shared_cache_size: u64,
    /// From which size on stores go past the caches.
    pub non_temporal_threshold: u64,
    /// From which size on `rep movsb` is used.
    pub rep_movsb_threshold: u64,
    /// Up to which size `rep movsb` is used.
    pub rep_movsb_stop_threshold: u64,
    /// From which size on `rep stosb` is used.
    pub rep_stosb_threshold: u64,
    /// The caches.
    pub caches: Caches,
    /// Size of the XSAVE area of everything the system has enabled; 0 without XSAVE.
    xsave_size: u32,
}

/// Bits of the hardware capabilities that glibc makes up itself, in the place of the kernel's AT_HWCAP.
const HWCAP_X86_64: u64 = 1 << 1;
const HWCAP_X86_AVX512_1: u64 = 1 << 2;

impl CpuFeatures {
    /// Finds out everything, as the tunables `glibc.cpu.*` want it, and stores in them what came out.
    pub fn detect(source: &dyn Cpuid, tunables: &mut TunableSet<'_>) -> Self {
        let mut leaves = Leaves::new(source);
        let mut cpu = CpuFeatures::default();
        cpu.identify(&mut leaves);
        usable::update(&mut cpu, &mut leaves);
        preferred::judge_model(&mut cpu);
        let (caches, last_level) = cache::find_out(&cpu, &mut leaves);
        cpu.caches = caches;
        thresholds::fill(&mut cpu, last_level, tunables);
        if let Some(list) = tunables.text_of(b"glibc.cpu.hwcaps") {
            hwcaps::apply(&mut cpu, list);
        }
        usable::withdraw_without_xsave(&mut cpu);
        cpu
    }

    /// Reads who the processor is, and the leaves that are kept.
    fn identify(&mut self, leaves: &mut Leaves<'_>) {
        let [max_cpuid, ebx, ecx, edx] = leaves.get(0, 0);
        self.max_cpuid = max_cpuid;
        let mut vendor = [0; 12];
        for (bytes, register) in vendor.chunks_exact_mut(4).zip([ebx, edx, ecx]) {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
        self.kind = match &vendor {
            b"GenuineIntel" => CpuKind::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => CpuKind::Amd,
            b"CentaurHauls" | b"  Shanghai  " => CpuKind::Zhaoxin,
            _ => CpuKind::Other,
        };
        // Of other makers' processors not even leaf 1 is looked at.
        if self.kind != CpuKind::Other {
            self.read_signature(leaves);
            self.read_extended_leaves(leaves);
        }
        let kept = [(7, LEAF_7, 0), (7, LEAF_7_1, 1), (0xd, LEAF_D_1, 1), (0x14, LEAF_14, 0), (0x19, LEAF_19, 0)];
        for (leaf, index, subleaf) in kept {
            // Without Key Locker its leaf is all zeroes (Intel SDM, "CPUID").
            let is_empty = leaf == 0x19 && !self.features.present(KL);
            if max_cpuid >= leaf && !is_empty {
                self.features.leaves[index].cpuid = leaves.get(leaf, subleaf);
            }
        }
    }

    fn read_signature(&mut self, leaves: &mut Leaves<'_>) {
        let registers = leaves.get(1, 0);
        self.features.leaves[LEAF_1].cpuid = registers;
        let signature = registers[0];
        let extended_model = (signature >> 12) & 0xf0;
        self.family = (signature >> 8) & 0xf;
        self.model = (signature >> 4) & 0xf;
        self.stepping = signature & 0xf;
        if self.family == 0xf {
            self.family += (signature >> 20) & 0xff;
            self.model += extended_model;
        }
        match self.kind {
            CpuKind::Intel if self.family == 6 => self.model += extended_model,
            CpuKind::Zhaoxin => {
                self.model += extended_model;
                // glibc 2.36 does not keep the stepping of these.
                self.stepping = 0;
            }
            _ => {}
        }
    }

    fn read_extended_leaves(&mut self, leaves: &mut Leaves<'_>) {
        let [max_extended, ..] = leaves.get(0x8000_0000, 0);
        let kept = [(0x8000_0001, LEAF_80000001), (0x8000_0007, LEAF_80000007), (0x8000_0008, LEAF_80000008)];
        for (leaf, index) in kept {
            if max_extended >= leaf {
                self.features.leaves[index].cpuid = leaves.get(leaf, 0);
            }
        }
    }

    /// What `getauxval(AT_HWCAP)` returns and `_dl_hwcap` is. (`_dl_hwcap2` is the kernel's AT_HWCAP2.)
    pub fn hwcap(&self) -> u64 {
        let has_avx512_1 = self.kind == CpuKind::Intel
            && self.features.all_usable(&[AVX512CD, AVX512BW, AVX512DQ, AVX512VL])
            && !self.features.usable(AVX512ER);
        HWCAP_X86_64 | if has_avx512_1 { HWCAP_X86_AVX512_1 } else { 0 }
    }

    /// The name that takes the place of the kernel's AT_PLATFORM in `$PLATFORM`, if one does.
    pub fn platform(&self) -> Option<&'static str> {
        if self.kind != CpuKind::Intel {
            None
        } else if self.features.all_usable(&[AVX512CD, AVX512ER, AVX512PF]) {
            Some("xeon_phi")
        } else if self.features.all_usable(&[AVX2, FMA, BMI1, BMI2, LZCNT, MOVBE, POPCNT]) {
            Some("haswell")
        } else {
            None
        }
    }

    /// The subdirectories of `glibc-hwcaps` that are searched, best first. Tunables that disable features count here.
    pub fn glibc_hwcaps(&self) -> &'static [&'static str] {
        const ALL: &[&str] = &["x86-64-v4", "x86-64-v3", "x86-64-v2"];
        let level = usable::isa_level(&self.features);
        let missing = [usable::ISA_V4, usable::ISA_V3, usable::ISA_V2].iter().filter(|&bit| level & bit == 0).count();
        ALL.get(missing..).unwrap_or_default()
    }

    /// The levels of [`CpuFeatures::isa_1`] of which tunables have disabled a feature.
    pub fn disabled_levels(&self) -> u32 {
        self.isa_1 & !usable::isa_level(&self.features)
    }

    /// The least size of a signal stack in bytes: the kernel's AT_MINSIGSTKSZ, or if it gives none (0), a signal frame with the
    /// XSAVE area.
    pub fn min_signal_stack(&self, at_minsigstksz: u64) -> u64 {
        /// What the kernel writes besides the XSAVE area: the frame and a return address aligned to 16, padding to 64.
        const FRAME: u64 = 464 + 48;
        /// The magic number behind the XSAVE area.
        const MAGIC: u64 = 4;
        /// `MINSIGSTKSZ`.
        const CONSTANT: u64 = 2048;
        if at_minsigstksz != 0 {
            at_minsigstksz
        } else if self.max_cpuid >= 0xd && self.features.present(OSXSAVE) {
            FRAME + u64::from(self.xsave_size) + MAGIC
        } else {
            CONSTANT
        }
    }

    /// Stores everything where a glibc keeps it. `base` begins where its `struct cpu_features` does.
    ///
    /// `None` if `base` is too short, or the layout has room for fewer leaves than there are.
    pub fn write_into(&self, layout: &CpuFeaturesLayout, kinds: &CpuKinds, base: &mut [u8]) -> Option<()> {
        let kind = match self.kind {
            CpuKind::Unknown => kinds.unknown,
            CpuKind::Intel => kinds.intel,
            CpuKind::Amd => kinds.amd,
            CpuKind::Zhaoxin => kinds.zhaoxin,
            CpuKind::Other => kinds.other,
        };
        let words = [
            (layout.basic_kind, kind),
            (layout.basic_max_cpuid, self.max_cpuid),
            (layout.basic_family, self.family),
            (layout.basic_model, self.model),
            (layout.basic_stepping, self.stepping),
            (layout.preferred, self.preferred.0),
            (layout.isa_1, self.isa_1),
            (layout.xsave_state_full_size, self.xsave_state_full_size),
        ];
        for (offset, word) in words {
            store(base, offset, &word.to_le_bytes())?;
        }
        if layout.features_len < LEAVES {
            return None;
        }
        let registers = self.features.leaves.iter().flat_map(|leaf| leaf.cpuid.into_iter().chain(leaf.active));
        for (index, word) in registers.enumerate() {
            store(base, layout.features + 4 * index, &word.to_le_bytes())?;
        }
        for (offset, word) in self.long_words(layout) {
            store(base, offset, &word.to_le_bytes())?;
        }
        Some(())
    }

    /// The fields of eight bytes and their offsets.
    fn long_words(&self, layout: &CpuFeaturesLayout) -> [(usize, u64); 19] {
        let caches = &self.caches;
        [
            (layout.xsave_state_size, self.xsave_state_size),
            (layout.data_cache_size, self.data_cache_size),
            (layout.shared_cache_size, self.shared_cache_size),
            (layout.non_temporal_threshold, self.non_temporal_threshold),
            (layout.rep_movsb_threshold, self.rep_movsb_threshold),
            (layout.rep_movsb_stop_threshold, self.rep_movsb_stop_threshold),
            (layout.rep_stosb_threshold, self.rep_stosb_threshold),
            (layout.level1_icache_size, caches.level1_icache_size as u64),
            (layout.level1_icache_linesize, caches.level1_icache_linesize as u64),
            (layout.level1_dcache_size, caches.level1_dcache_size as u64),
            (layout.level1_dcache_assoc, caches.level1_dcache_assoc as u64),
            (layout.level1_dcache_linesize, caches.level1_dcache_linesize as u64),
            (layout.level2_cache_size, caches.level2_cache_size as u64),
            (layout.level2_cache_assoc, caches.level2_cache_assoc as u64),
            (layout.level2_cache_linesize, caches.level2_cache_linesize as u64),
            (layout.level3_cache_size, caches.level3_cache_size as u64),
            (layout.level3_cache_assoc, caches.level3_cache_assoc as u64),
            (layout.level3_cache_linesize, caches.level3_cache_linesize as u64),
            (layout.level4_cache_size, caches.level4_cache_size as u64),
        ]
    }
}

fn store(base: &mut [u8], offset: usize, bytes: &[u8]) -> Option<()> {
    base.get_mut(offset..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests;
