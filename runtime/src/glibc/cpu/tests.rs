//! Compared with ld.so of glibc 2.36, here and on recorded processors.

use super::cpuid::{Processor, Registers};
use super::preferred::PREFERRED_NAMES;
use super::*;
use crate::glibc::tables::{layout_v2_36, tunables_v2_36};
use crate::glibc::tunables::Mode;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

mod models;
mod recordings;
mod system;

/// A processor as CPUID described it once.
struct Recording {
    leaves: BTreeMap<(u32, u32), Registers>,
    xcr0: u32,
    /// How often each leaf has been asked for.
    asked: core::cell::RefCell<BTreeMap<(u32, u32), usize>>,
}

impl Recording {
    /// Reads lines `leaf LEAF.SUBLEAF = EAX EBX ECX EDX` and `xcr0 = VALUE`, all in hexadecimal.
    fn parse(text: &str) -> Self {
        let number = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number");
        let mut recording = Recording { leaves: BTreeMap::new(), xcr0: 0, asked: Default::default() };
        for line in text.lines() {
            let Some((name, value)) = line.split_once(" = ") else { continue };
            if let Some((leaf, subleaf)) = name.strip_prefix("leaf ").and_then(|key| key.split_once('.')) {
                let words: Vec<u32> = value.split(' ').map(number).collect();
                recording.leaves.insert((number(leaf), number(subleaf)), words.try_into().expect("four registers"));
            } else if name == "xcr0" {
                recording.xcr0 = number(value);
            }
        }
        recording
    }
}

impl Cpuid for Recording {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Registers {
        *self.asked.borrow_mut().entry((leaf, subleaf)).or_default() += 1;
        self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    fn xcr0(&self) -> u32 {
        self.xcr0
    }
}

/// What a program under glibc 2.36 has in memory, written as `--list-diagnostics` does. `environment` is the value of
/// `GLIBC_TUNABLES`.
fn diagnostics(source: &dyn Cpuid, environment: &str) -> Vec<String> {
    let variable = format!("GLIBC_TUNABLES={environment}");
    let mut tunables = TunableSet::from_environment(tunables_v2_36::TUNABLES, Mode::Ordinary, [variable.as_bytes()]);
    let cpu = CpuFeatures::detect(source, &mut tunables);
    let layout = &layout_v2_36::LAYOUT;
    let mut memory = std::vec![0; layout.cpu_features.size];
    cpu.write_into(&layout.cpu_features, &layout.cpu_kinds, &mut memory).expect("it fits");

    let mut lines = Vec::new();
    lines.push(format!("dl_hwcap={:#x}", cpu.hwcap()));
    lines.push(format!("dl_hwcaps_subdirs_active={:#x}", hwcaps_mask(&cpu)));
    lines.push(format!("dl_platform=\"{}\"", cpu.platform().unwrap_or("x86_64")));
    describe_memory(&memory, &layout.cpu_features, &mut lines);
    lines
}

/// A bit for each level that is searched, the best being the lowest bit of three.
fn hwcaps_mask(cpu: &CpuFeatures) -> u32 {
    let count = cpu.glibc_hwcaps().len();
    ((1 << count) - 1) << (3 - count)
}

fn describe_memory(memory: &[u8], layout: &CpuFeaturesLayout, lines: &mut Vec<String>) {
    let word = |offset: usize| u32::from_le_bytes(memory[offset..offset + 4].try_into().expect("four bytes"));
    let long = |offset: usize| u64::from_le_bytes(memory[offset..offset + 8].try_into().expect("eight bytes"));
    let mut say = |name: &str, value: u64| lines.push(format!("x86.cpu_features.{name}={value:#x}"));
    say("basic.kind", word(layout.basic_kind).into());
    say("basic.max_cpuid", word(layout.basic_max_cpuid).into());
    say("basic.family", word(layout.basic_family).into());
    say("basic.model", word(layout.basic_model).into());
    say("basic.stepping", word(layout.basic_stepping).into());
    for leaf in 0..layout.features_len {
        for (half, name) in ["cpuid", "active"].into_iter().enumerate() {
            for register in 0..4 {
                let offset = layout.features + 32 * leaf + 16 * half + 4 * register;
                say(&format!("features[{leaf:#x}].{name}[{register:#x}]"), word(offset).into());
            }
        }
    }
    for (name, bit) in PREFERRED_NAMES {
        say(&format!("preferred.{name}"), u64::from(word(layout.preferred) & bit != 0));
    }
    say("isa_1", word(layout.isa_1).into());
    say("xsave_state_size", long(layout.xsave_state_size));
    say("xsave_state_full_size", word(layout.xsave_state_full_size).into());
    say("data_cache_size", long(layout.data_cache_size));
    say("shared_cache_size", long(layout.shared_cache_size));
    say("non_temporal_threshold", long(layout.non_temporal_threshold));
    say("rep_movsb_threshold", long(layout.rep_movsb_threshold));
    say("rep_movsb_stop_threshold", long(layout.rep_movsb_stop_threshold));
    say("rep_stosb_threshold", long(layout.rep_stosb_threshold));
    say("level1_icache_size", long(layout.level1_icache_size));
    say("level1_icache_linesize", long(layout.level1_icache_linesize));
    say("level1_dcache_size", long(layout.level1_dcache_size));
    say("level1_dcache_assoc", long(layout.level1_dcache_assoc));
    say("level1_dcache_linesize", long(layout.level1_dcache_linesize));
    say("level2_cache_size", long(layout.level2_cache_size));
    say("level2_cache_assoc", long(layout.level2_cache_assoc));
    say("level2_cache_linesize", long(layout.level2_cache_linesize));
    say("level3_cache_size", long(layout.level3_cache_size));
    say("level3_cache_assoc", long(layout.level3_cache_assoc));
    say("level3_cache_linesize", long(layout.level3_cache_linesize));
    say("level4_cache_size", long(layout.level4_cache_size));
}

/// The lines of `--list-diagnostics` that [`diagnostics`] writes, in the same order.
fn relevant(output: &str) -> Vec<String> {
    const PREFIXES: [&str; 4] = ["x86.cpu_features.", "dl_hwcap=", "dl_hwcaps_subdirs_active=", "dl_platform="];
    let wanted = |line: &&str| PREFIXES.iter().any(|prefix| line.starts_with(prefix));
    output.lines().filter(wanted).map(ToString::to_string).collect()
}

/// Fails with only the lines that differ.
fn assert_same(ours: &[String], theirs: &[String], context: &str) {
    assert!(!theirs.is_empty(), "{context}: nothing to compare with");
    let differences: Vec<String> = (0..ours.len().max(theirs.len()))
        .filter(|&line| ours.get(line) != theirs.get(line))
        .map(|line| format!("  ours {:?}, ld.so {:?}", ours.get(line), theirs.get(line)))
        .collect();
    assert!(differences.is_empty(), "{context}:\n{}", differences.join("\n"));
}
