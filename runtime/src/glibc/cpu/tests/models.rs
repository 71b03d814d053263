//! What single models are known for, compared with what ld.so of glibc 2.36 made of each (see `recorded/models.txt`).

use super::*;

/// A processor with the leaves of another, but of another model.
struct Disguised<'a> {
    recording: &'a Recording,
    signature: u32,
}

impl Cpuid for Disguised<'_> {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Registers {
        let [eax, ebx, ecx, edx] = self.recording.leaf(leaf, subleaf);
        [if leaf == 1 { self.signature } else { eax }, ebx, ecx, edx]
    }

    fn xcr0(&self) -> u32 {
        self.recording.xcr0()
    }
}

/// eax of CPUID leaf 1 for a model.
fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (family, extended_family) = (family.min(0xf), family.saturating_sub(0xf));
    extended_family << 20 | (model >> 4) << 16 | family << 8 | (model & 0xf) << 4 | stepping
}

fn outcome(recording: &Recording, signature: u32) -> String {
    let mut tunables = TunableSet::new(tunables_v2_36::TUNABLES, Mode::Ordinary);
    let cpu = CpuFeatures::detect(&Disguised { recording, signature }, &mut tunables);
    let (leaf_1, leaf_7) = (cpu.features.leaves[LEAF_1].active, cpu.features.leaves[LEAF_7].active);
    format!(
        "{:#x} {:#x} {:#x} {:#x} {:#x}",
        cpu.preferred.0, leaf_1[ECX], leaf_7[EBX], leaf_7[EDX], cpu.non_temporal_threshold
    )
}

fn number(text: &str) -> u32 {
    u32::from_str_radix(text, 16).expect("hexadecimal")
}

fn base(name: &str) -> Recording {
    Recording::parse(match name {
        "intel-skylake-server" => include_str!("../recorded/intel-skylake-server.txt"),
        "intel-nehalem" => include_str!("../recorded/intel-nehalem.txt"),
        "intel-silvermont" => include_str!("../recorded/intel-silvermont.txt"),
        "intel-haswell" => include_str!("../recorded/intel-haswell.txt"),
        "amd-excavator" => include_str!("../recorded/amd-excavator.txt"),
        "zhaoxin-kx6000" => include_str!("../recorded/zhaoxin-kx6000.txt"),
        other => panic!("{other} is no base"),
    })
}

/// Compares every model of one sweep, and says how many there were.
fn compare_sweep(sweep: &str) -> usize {
    // Long lists go on in lines that begin with blanks.
    let sweep = sweep.replace("\n ", "");
    let field = |name: &str| {
        let mut values = sweep.lines().filter_map(|line| line.strip_prefix(name));
        values.next().unwrap_or_else(|| panic!("no {name} in {sweep}")).trim()
    };
    let numbers = |name| match field(name).split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => field(name).split(' ').map(number).collect::<Vec<_>>(),
    };
    let outcomes: Vec<(&str, &str)> = sweep.lines().filter_map(|line| line.split_once(": ")).collect();
    let listed: BTreeMap<&str, &str> = outcomes
        .iter()
        .flat_map(|(outcome, models)| models.split_whitespace().map(move |model| (model, *outcome)))
        .collect();
    let &(all_others, "all others") = outcomes.last().expect("an outcome") else { panic!("no outcome of all others") };

    let recording = base(field("base"));
    let mut compared = 0;
    for family in numbers("families") {
        for model in numbers("models") {
            for stepping in numbers("steppings") {
                let name = format!("{family:x}.{model:x}.{stepping:x}");
                let expected = *listed.get(name.as_str()).unwrap_or(&all_others);
                let ours = outcome(&recording, signature(family, model, stepping));
                assert_eq!(ours, expected, "{} as {name}", field("base"));
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn models_are_judged_as_ld_so_judges_them() {
    let text = include_str!("../recorded/models.txt");
    let compared: usize = text.split("\n\n").filter(|part| part.contains("base ")).map(compare_sweep).sum();
    assert_eq!(compared, 1536 + 256 + 256 + 8 + 15 + 12);
}
