//! Processors that are not at hand: for each a file with its CPUID leaves, the value of `GLIBC_TUNABLES` if there is one, and
//! the lines that ld.so of glibc 2.36 (Debian 12) printed when its CPUID instructions were answered with those leaves.

use super::*;

macro_rules! recordings {
    ($($test:ident $file:literal,)*) => {
        $(#[test] fn $test() { check(include_str!(concat!("../recorded/", $file, ".txt")), $file); })*
    };
}

recordings! {
    intel_emerald_rapids "intel-emerald-rapids",
    intel_emerald_rapids_without_avx2 "intel-emerald-rapids-without-avx2",
    intel_skylake_server "intel-skylake-server",
    intel_haswell "intel-haswell",
    intel_nehalem "intel-nehalem",
    intel_knights_landing "intel-knights-landing",
    intel_silvermont "intel-silvermont",
    intel_bonnell "intel-bonnell",
    intel_netburst "intel-netburst",
    intel_netburst_level_3 "intel-netburst-level-3",
    intel_pentium_iii "intel-pentium-iii",
    intel_tiles_and_keys "intel-tiles-and-keys",
    amd_zen4 "amd-zen4",
    amd_excavator "amd-excavator",
    amd_k10 "amd-k10",
    amd_odd_caches "amd-odd-caches",
    hygon_dhyana "hygon-dhyana",
    zhaoxin_kx6000 "zhaoxin-kx6000",
    zhaoxin_zx_c "zhaoxin-zx-c",
    other "other",
}

fn check(text: &str, name: &str) {
    let tunables = text.lines().find_map(|line| line.strip_prefix("GLIBC_TUNABLES=")).unwrap_or_default();
    let recording = Recording::parse(text);
    assert_same(&diagnostics(&recording, tunables), &relevant(text), name);
    let asked = recording.asked.borrow();
    let repeated: Vec<_> = asked.iter().filter(|(_, &count)| count > 1).collect();
    assert!(repeated.is_empty(), "{name}: CPUID leaves asked for more than once: {repeated:x?}");
    assert!(asked.len() <= 32, "{name}: {} leaves asked for", asked.len());
    let of_components = asked.keys().filter(|(leaf, subleaf)| *leaf == 0xd && *subleaf > 1).count();
    assert_eq!(of_components, 0, "{name}: sizes that the architecture has fixed are asked for");
}

#[test]
fn signal_stacks_are_what_the_kernel_says_or_the_xsave_area_needs() {
    let size_on = |text, at_minsigstksz| {
        let mut tunables = TunableSet::new(tunables_v2_36::TUNABLES, Mode::Ordinary);
        CpuFeatures::detect(&Recording::parse(text), &mut tunables).min_signal_stack(at_minsigstksz)
    };
    let (zen4, pentium) = (include_str!("../recorded/amd-zen4.txt"), include_str!("../recorded/intel-pentium-iii.txt"));
    assert_eq!(size_on(zen4, 3632), 3632);
    assert_eq!(size_on(zen4, 0), 512 + 0x988 + 4);
    assert_eq!(size_on(pentium, 0), 2048);
}

#[test]
fn a_layout_without_room_is_refused() {
    let mut tunables = TunableSet::new(tunables_v2_36::TUNABLES, Mode::Ordinary);
    let cpu = CpuFeatures::detect(&Recording::parse(""), &mut tunables);
    let layout = &layout_v2_36::LAYOUT;
    let mut memory = std::vec![0; layout.cpu_features.size];
    let mut write = |layout: &CpuFeaturesLayout, length: usize| {
        cpu.write_into(layout, &layout_v2_36::LAYOUT.cpu_kinds, &mut memory[..length])
    };
    assert_eq!(write(&layout.cpu_features, layout.cpu_features.size), Some(()));
    assert_eq!(write(&layout.cpu_features, layout.cpu_features.size - 1), None);
    assert_eq!(write(&CpuFeaturesLayout { features_len: LEAVES - 1, ..layout.cpu_features }, 480), None);
}

proptest::proptest! {
    /// Whatever a processor (or a hypervisor) says, it is taken without a panic and the search for caches ends.
    #[test]
    fn any_answers_are_taken(
        vendor in proptest::sample::select(std::vec![*b"GenuineIntel", *b"AuthenticAMD", *b"CentaurHauls", *b"NobodyNobody"]),
        max_cpuid in 0u32..0x20,
        answers in proptest::collection::vec(proptest::prelude::any::<[u32; 4]>(), 64),
        xcr0 in proptest::prelude::any::<u32>(),
        list in "(-?(AVX|XSAVE|XSAVEC|OSXSAVE|SSE2|Slow_BSF|[a-z]*),?){0,4}",
    ) {
        struct Noise {
            vendor: Registers,
            answers: Vec<Registers>,
            xcr0: u32,
        }
        impl Cpuid for Noise {
            fn leaf(&self, leaf: u32, subleaf: u32) -> Registers {
                if leaf == 0 {
                    return self.vendor;
                }
                self.answers[((leaf ^ (leaf >> 31) ^ (subleaf << 3)) % 64) as usize]
            }

            fn xcr0(&self) -> u32 {
                self.xcr0
            }
        }
        let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().expect("four bytes"));
        let noise = Noise { vendor: [max_cpuid, word(0), word(8), word(4)], answers, xcr0 };
        let lines = diagnostics(&noise, &format!("glibc.cpu.hwcaps={list}"));
        proptest::prop_assert!(!lines.is_empty());
    }
}
