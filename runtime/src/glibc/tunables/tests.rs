//! The values, compared with those that ld.so of glibc 2.36 prints.

use super::*;
use crate::glibc::cpu::cpuid::Processor;
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::system_loader;
use crate::glibc::tables::tunables_v2_36::TUNABLES;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

const SECURE: Mode = Mode::Secure { suid_debug: false };

/// The set that an environment of these variables makes.
fn set<'a>(mode: Mode, lines: &'a [String]) -> TunableSet<'a> {
    TunableSet::from_environment(TUNABLES, mode, lines.iter().map(String::as_bytes))
}

fn lines(environment: &[(&str, &str)]) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Writes the set as `--list-tunables` does.
fn listing(set: &TunableSet<'_>) -> Vec<String> {
    let describe = |(id, tunable): (usize, &Tunable)| {
        let name = std::str::from_utf8(tunable.name).expect("ASCII");
        let (min, max) = set.bounds(id).expect("a tunable");
        match set.value(id).expect("a tunable") {
            Value::Int32(value) => format!("{name}: {value} (min: {}, max: {})", min as i32, max as i32),
            Value::Uint64(value) => format!("{name}: {value:#x} (min: {min:#x}, max: {max:#x})"),
            Value::Text(None) => format!("{name}:"),
            Value::Text(Some(text)) => format!("{name}: {}", std::str::from_utf8(text).expect("ASCII")),
        }
    };
    set.table().iter().enumerate().map(describe).collect()
}

fn compare(environment: &[(&str, &str)]) {
    let lines = lines(environment);
    let mut ours = set(Mode::Ordinary, &lines);
    CpuFeatures::detect(&Processor, &mut ours);
    let theirs: Vec<String> =
        system_loader::run("--list-tunables", environment).lines().map(|line| line.trim_end().to_string()).collect();
    let ours: Vec<String> = listing(&ours).iter().map(|line| line.trim_end().to_string()).collect();
    assert_eq!(ours, theirs, "{environment:?}");
}

#[test]
fn equals_the_system_loader() {
    if !system_loader::is_glibc_2_36("tunables::tests::equals_the_system_loader") {
        return;
    }
    let strings = [
        "",
        ":",
        "glibc.malloc.check",
        "glibc.malloc.check=3",
        "glibc.malloc.check=4",
        "glibc.malloc.check=-1",
        "glibc.malloc.check=03:glibc.malloc.perturb=0xfe:glibc.mem.tagging=256",
        "glibc.malloc.check=2:glibc.malloc.check=4",
        "glibc.malloc.check=2:glibc.malloc.check=abc",
        "glibc.malloc.check=2=1",
        "glibc.malloc.check =2",
        " glibc.malloc.check=2",
        "glibc.malloc.checks=2:malloc.check=1:glibc.malloc.chec=1:=1",
        "glibc.malloc.check=4294967297",
        "glibc.malloc.mmap_max=2147483647:glibc.malloc.arena_max=0:glibc.malloc.arena_test=1",
        "glibc.malloc.mmap_max=2147483648:glibc.malloc.arena_max=-1",
        "glibc.malloc.trim_threshold=1k:glibc.malloc.top_pad= 17:glibc.malloc.mmap_threshold=\t+0x20",
        "glibc.pthread.stack_cache_size=99999999999999999999:glibc.pthread.mutex_spin_count=32768",
        "glibc.rtld.nns=16:glibc.rtld.optional_static_tls=0:glibc.rtld.dynamic_sort=1",
        "glibc.rtld.nns=17:glibc.rtld.dynamic_sort=3:glibc.rtld.dynamic_sort=0",
        "glibc.gmon.minarcs=49:glibc.gmon.maxarcs=51",
        "glibc.cpu.hwcap_mask=0xffffffffffffffff:glibc.pthread.rseq=0",
        "glibc.cpu.hwcaps=-AVX2,-AVX:glibc.cpu.x86_ibt=:glibc.cpu.x86_shstk=permissive",
        "glibc.cpu.x86_non_temporal_threshold=0x8000:glibc.cpu.x86_rep_movsb_threshold=99999",
        "glibc.rtld.seal=2:ldseal.vdso=0",
    ];
    for string in strings {
        compare(&[("GLIBC_TUNABLES", string)]);
    }
}

#[test]
fn aliases_equal_the_system_loader() {
    if !system_loader::is_glibc_2_36("tunables::tests::aliases_equal_the_system_loader") {
        return;
    }
    compare(&[("MALLOC_ARENA_MAX", "2"), ("MALLOC_CHECK_", "1"), ("LD_HWCAP_MASK", "7")]);
    compare(&[("MALLOC_ARENA_MAX", "0"), ("MALLOC_CHECK_", "abc"), ("MALLOC_PERTURB_", "256")]);
    compare(&[("GLIBC_TUNABLES", "glibc.malloc.arena_max=3"), ("MALLOC_ARENA_MAX", "2")]);
    compare(&[("GLIBC_TUNABLES", "glibc.malloc.arena_max=0"), ("MALLOC_ARENA_MAX", "2")]);
    compare(&[
        ("MALLOC_TOP_PAD_", "1"),
        ("MALLOC_MMAP_THRESHOLD_", "2"),
        ("MALLOC_TRIM_THRESHOLD_", "3"),
        ("MALLOC_MMAP_MAX_", "4"),
        ("MALLOC_ARENA_TEST", "5"),
    ]);
}

#[test]
fn glibc_tunables_goes_before_aliases_wherever_it_stands() {
    let first = lines(&[("GLIBC_TUNABLES", "glibc.malloc.arena_max=3"), ("MALLOC_ARENA_MAX", "2")]);
    let last = lines(&[("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")]);
    for lines in [first, last] {
        assert_eq!(set(Mode::Ordinary, &lines).number_of(b"glibc.malloc.arena_max"), 3);
    }
}

#[test]
fn the_first_acceptable_alias_holds() {
    let lines = lines(&[("MALLOC_ARENA_MAX", "0"), ("MALLOC_ARENA_MAX", "5"), ("MALLOC_ARENA_MAX", "6")]);
    assert_eq!(set(Mode::Ordinary, &lines).number_of(b"glibc.malloc.arena_max"), 5);
}

#[test]
fn only_what_was_accepted_is_set() {
    let lines = lines(&[("GLIBC_TUNABLES", "glibc.malloc.check=9:glibc.malloc.perturb=1:glibc.cpu.hwcaps=-AVX")]);
    let set = set(Mode::Ordinary, &lines);
    let named: Vec<&[u8]> = (0..TUNABLES.len()).filter(|&id| set.is_set(id)).map(|id| TUNABLES[id].name).collect();
    assert_eq!(named, [&b"glibc.malloc.perturb"[..], b"glibc.cpu.hwcaps"]);
}

#[test]
fn callbacks_are_given_the_whole_word() {
    let lines = lines(&[("GLIBC_TUNABLES", "glibc.malloc.perturb=7:glibc.cpu.hwcaps=-AVX")]);
    let set = set(Mode::Ordinary, &lines);
    let id = |name: &[u8]| set.find(name).expect("a tunable");
    assert_eq!(set.callback_word(id(b"glibc.malloc.perturb")), Some(7));
    let text = set.callback_word(id(b"glibc.cpu.hwcaps")).expect("an address");
    assert_eq!(Some(text), set.text_of(b"glibc.cpu.hwcaps").map(|text| text.as_ptr() as u64));
    assert_eq!(set.callback_word(id(b"glibc.cpu.x86_ibt")), Some(0));
}

#[test]
fn numbers_beyond_the_table_are_nothing() {
    let set = TunableSet::new(TUNABLES, Mode::Ordinary);
    for id in [TUNABLES.len(), CAPACITY - 1, CAPACITY, usize::MAX] {
        assert_eq!((set.value(id), set.callback_word(id), set.bounds(id)), (None, None, None));
        assert!(!set.is_set(id));
    }
}

#[test]
fn the_table_fits_and_names_nothing_twice() {
    assert_eq!(TUNABLES.len(), 37);
    const { assert!(37 <= CAPACITY) };
    let set = TunableSet::new(TUNABLES, Mode::Ordinary);
    for (id, tunable) in TUNABLES.iter().enumerate() {
        assert_eq!(set.find(tunable.name), Some(id));
    }
}

#[test]
fn secure_execution_reads_nothing() {
    let lines = lines(&[
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=3:glibc.malloc.check=3:glibc.mem.tagging=1"),
        ("MALLOC_PERTURB_", "1"),
        ("MALLOC_CHECK_", "1"),
    ]);
    let set = set(SECURE, &lines);
    assert_eq!(listing(&set), listing(&TunableSet::new(TUNABLES, Mode::Ordinary)));
}

#[test]
fn the_administrator_can_allow_malloc_check() {
    let lines = lines(&[("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.malloc.perturb=1")]);
    let set = set(Mode::Secure { suid_debug: true }, &lines);
    assert_eq!(set.number_of(b"glibc.malloc.check"), 3);
    assert_eq!(set.number_of(b"glibc.malloc.perturb"), 0);
}

#[test]
fn secure_execution_erases_some_variables() {
    let secure = TunableSet::new(TUNABLES, SECURE);
    assert!(secure.erases_variable(b"MALLOC_CHECK_"));
    assert!(secure.erases_variable(b"LD_HWCAP_MASK"));
    assert!(!secure.erases_variable(b"MALLOC_PERTURB_"));
    assert!(!secure.erases_variable(b"HOME"));
    assert!(!TunableSet::new(TUNABLES, Mode::Ordinary).erases_variable(b"MALLOC_CHECK_"));
    assert!(!TunableSet::new(TUNABLES, Mode::Secure { suid_debug: true }).erases_variable(b"MALLOC_CHECK_"));
}

#[test]
fn children_of_secure_execution_inherit_what_is_merely_ignored() {
    let set = TunableSet::new(TUNABLES, SECURE);
    for (string, rest) in [
        ("", ""),
        ("glibc.malloc.check=1", ""),
        ("glibc.malloc.perturb=1", "glibc.malloc.perturb=1"),
        (
            "glibc.malloc.check=1:glibc.malloc.perturb=1=2:x=y:no:glibc.mem.tagging=:glibc.malloc.perturb=2:",
            "glibc.malloc.perturb=1=2:glibc.mem.tagging=:glibc.malloc.perturb=2",
        ),
        ("::glibc.malloc.mxfast=9:glibc.malloc.mxfast", "glibc.malloc.mxfast=9"),
        ("glibc.rtld.seal=0:ldseal.vdso=0", ""),
    ] {
        let mut copy = string.as_bytes().to_vec();
        let kept = set.filter_for_children(&mut copy);
        assert_eq!(String::from_utf8_lossy(&copy[..kept]), rest, "{string}");
    }
}

#[test]
fn bounds_only_become_narrower() {
    let name: &[u8] = b"glibc.malloc.arena_max";
    let mut set = TunableSet::new(TUNABLES, Mode::Ordinary);
    let id = set.find(name).expect("a tunable");
    set.set_with_bounds(name, 7, 0, 100);
    assert_eq!((set.number_of(name), set.bounds(id), set.is_set(id)), (7, Some((1, 100)), true));
    set.set_with_bounds(name, 200, 5, 300);
    assert_eq!((set.number_of(name), set.bounds(id)), (7, Some((1, 100))));
    set.set_with_bounds(name, 50, 80, 60);
    assert_eq!((set.number_of(name), set.bounds(id)), (50, Some((1, 100))));
}

proptest::proptest! {
    #[test]
    fn any_environment_is_read(
        entries in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), 0..8),
        string in "((glibc\\.malloc\\.(check|perturb|mxfast)|x)=?[-0-9a-z=]{0,6}:?){0,6}",
    ) {
        let variable = format!("GLIBC_TUNABLES={string}");
        let environment = entries.iter().map(Vec::as_slice).chain([variable.as_bytes()]);
        for mode in [Mode::Ordinary, SECURE] {
            let set = TunableSet::from_environment(TUNABLES, mode, environment.clone());
            let mut copy = string.clone().into_bytes();
            let kept = set.filter_for_children(&mut copy);
            proptest::prop_assert!(kept <= copy.len());
            // What is left is left as it is when filtered once more.
            let mut again = copy[..kept].to_vec();
            proptest::prop_assert_eq!(set.filter_for_children(&mut again), kept);
            proptest::prop_assert_eq!(&again[..], &copy[..kept]);
        }
    }
}
