//! `/etc/ld.so.cache` read here and by the system's ld.so: the same file for every name, on this machine's cache and on
//! caches that ldconfig would hardly write.

mod support;

use std::path::Path;
use std::process::Command;

use loader::search::cache::Cache;
use loader::search::hwcaps::{Hwcaps, Machine};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{argument, have, searches, SystemLoader, LD_SO};

#[test]
fn every_name_in_this_machines_cache_is_found_where_ld_so_finds_it() {
    let Some(system) = SystemLoader::find() else { return };
    let Ok(file) = std::fs::read("/etc/ld.so.cache") else {
        eprintln!("SKIPPED: no /etc/ld.so.cache here");
        return;
    };
    let cache = Cache::parse(&file).unwrap();
    let hwcaps = Hwcaps::new(system.machine(), None, None);
    let ranking = cache.ranking(&hwcaps);
    let names: std::collections::BTreeSet<&[u8]> = cache.entries().map(|entry| entry.name).collect();
    let names: Vec<&[u8]> = names.into_iter().collect();
    let mut compared = std::collections::BTreeSet::new();
    for some in names.chunks(40) {
        let output = Command::new(LD_SO)
            .args(["--preload".as_ref(), argument(&some.join(&b':')), "--list".as_ref(), "/bin/true".as_ref()])
            .env("LD_DEBUG", "libs")
            .output()
            .unwrap();
        for search in searches(&output) {
            assert_eq!(cache.lookup(&search.name, &hwcaps, &ranking), search.cached(), "{search:?}");
            compared.insert(search.name);
        }
    }
    // Names of a library that came in under another name, or as somebody's dependency, are not searched again.
    assert!(compared.len() * 10 > names.len() * 8, "{} of {}", compared.len(), names.len());
}

#[test]
fn the_fuzzers_seeds_are_caches_that_depend_on_the_machine() {
    for seed in ["ld_so_cache-new", "ld_so_cache-behind-old"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(seed);
        let file = std::fs::read(path).unwrap();
        let cache = Cache::parse(&file).unwrap();
        assert_eq!(cache.entries().count(), 6);
        let find = |isa_1, platform: Option<&'static [u8]>, name: &str| {
            let hwcaps = Hwcaps::new(Machine { isa_1, platform, hwcap: 2, ..Machine::default() }, None, None);
            let found = cache.lookup(name.as_bytes(), &hwcaps, &cache.ranking(&hwcaps));
            found.map(|path| std::str::from_utf8(path).unwrap().to_owned())
        };
        assert_eq!(find(15, None, "libz.so.1").as_deref(), Some("/lib/x86-64-v3/libz.so.1"));
        assert_eq!(find(3, None, "libz.so.1").as_deref(), Some("/lib/x86-64-v2/libz.so.1"));
        assert_eq!(find(1, None, "libz.so.1").as_deref(), Some("/lib/libz.so.1"));
        assert_eq!(find(1, Some(b"haswell"), "libc.so.6").as_deref(), Some("/lib/tls/libc.so.6"));
        assert_eq!(find(1, None, "libc.so.6").as_deref(), Some("/lib/libc.so.6"));
        assert_eq!(find(1, None, "liba.so"), None);
    }
}

const NAMES: [&str; 7] =
    ["libqq.so", "libqq.so.1", "libqq.so.01", "libqq.so.2", "libqq.so.10", "libqqa.so.1", "libqq2.so.1"];
const SUBDIRECTORIES: [&str; 5] = ["mine", "other", "x86-64-v2", "x86-64-v3", "x86-64-v4"];

/// An entry of a generated cache; the name by its number in [`NAMES`].
#[derive(Debug, Clone)]
struct Entry {
    name: usize,
    flags: u32,
    os_version: u32,
    hwcap: u64,
}

fn entry() -> impl Strategy<Value = Entry> {
    let flags = prop_oneof![8 => Just(0x303u32), 2 => Just(1), 1 => Just(3), 1 => Just(0x103)];
    let os_version = prop_oneof![6 => Just(0u32), 1 => Just(0x0003_0200), 1 => Just(0x00ff_0000)];
    let named =
        (0..7u64, prop_oneof![3 => Just(0u64), 1 => 0..12u64]).prop_map(|(index, level)| 1 << 62 | level << 32 | index);
    let legacy = (0..8u64, prop_oneof![3 => Just(0u64), 1 => 0..16u64], any::<bool>())
        .prop_map(|(bits, platform, tls)| bits | platform << 48 | u64::from(tls) << 63);
    let hwcap = prop_oneof![4 => Just(0u64), 3 => named, 2 => legacy];
    (0..NAMES.len(), flags, os_version, hwcap).prop_map(|(name, flags, os_version, hwcap)| Entry {
        name,
        flags,
        os_version,
        hwcap,
    })
}

/// How the entries are laid out in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    New,
    Old,
    NewBehindOld,
}

/// A cache file. The path of the entry number `n` is `/absent/n`.
fn write_cache(entries: &[Entry], format: Format) -> Vec<u8> {
    let mut old = Vec::new();
    if format != Format::New {
        old.extend_from_slice(b"ld.so-1.7.0\0");
        let count = if format == Format::Old { entries.len() } else { 0 };
        old.extend_from_slice(&(count as u32).to_le_bytes());
    }
    let old_count = if format == Format::Old { entries.len() } else { 0 };
    let base = old.len();
    let header = if format == Format::Old { 0 } else { 48 + entries.len() * 24 };
    let mut strings = Vec::new();
    let mut intern = |text: &str| {
        let at = header + strings.len();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at as u32
    };
    let subdirectories: Vec<u32> = SUBDIRECTORIES.iter().map(|name| intern(name) + base as u32).collect();
    let offsets: Vec<(u32, u32)> = entries
        .iter()
        .enumerate()
        .map(|(n, entry)| (intern(NAMES[entry.name]), intern(&format!("/absent/{n}"))))
        .collect();
    let mut file = old;
    if format != Format::Old {
        let extension = (base + header + strings.len()).next_multiple_of(4) as u32;
        file.extend_from_slice(b"glibc-ld.so.cache1.1");
        for word in [entries.len() as u32, strings.len() as u32, 2, extension, 0, 0, 0] {
            file.extend_from_slice(&word.to_le_bytes());
        }
    }
    for (entry, (key, value)) in entries.iter().zip(&offsets) {
        for word in [entry.flags, *key, *value] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        if old_count == 0 {
            file.extend_from_slice(&entry.os_version.to_le_bytes());
            file.extend_from_slice(&entry.hwcap.to_le_bytes());
        }
    }
    file.extend_from_slice(&strings);
    if format != Format::Old {
        file.resize(file.len().next_multiple_of(4), 0);
        let data = file.len() as u32 + 8 + 16;
        for word in [0xeaa4_2174, 1, 1, 0, data, 4 * subdirectories.len() as u32] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        subdirectories.iter().for_each(|offset| file.extend_from_slice(&offset.to_le_bytes()));
    }
    file
}

/// Runs the system's ld.so with `cache` in place of `/etc/ld.so.cache`, in a mount namespace of its own.
fn with_cache(cache: &Path, arguments: &[&str]) -> std::process::Output {
    let script = r#"mount --bind "$0" /etc/ld.so.cache && LD_DEBUG=libs exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(cache).arg(LD_SO).args(arguments);
    command.output().unwrap()
}

#[test]
fn generated_caches_give_the_files_that_ld_so_tries() {
    let Some(system) = SystemLoader::find() else { return };
    if !have("unshare") {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{}", std::process::id()));
    std::fs::write(&path, write_cache(&[], Format::New)).unwrap();
    if !with_cache(&path, &["--version"]).status.success() {
        eprintln!("SKIPPED: no mount namespaces here");
        return;
    }
    let machine = system.machine();
    let plain = Hwcaps::new(machine, None, None);
    let chosen = Hwcaps::new(machine, Some(b"mine:x86-64-v2"), Some(b"x86-64-v3"));
    let options = ["--glibc-hwcaps-prepend", "mine:x86-64-v2", "--glibc-hwcaps-mask", "x86-64-v3"];
    let preload = ["--preload", &NAMES.join(":"), "--list", "/bin/true"].map(str::to_owned);
    let format = prop_oneof![4 => Just(Format::New), 1 => Just(Format::Old), 1 => Just(Format::NewBehindOld)];
    let order = prop_oneof![9 => Just(true), 1 => Just(false)];
    let strategy = (proptest::collection::vec(entry(), 0..24), format, order, any::<bool>());
    let found = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |(mut entries, format, sorted, with_options)| {
        if sorted {
            sort_as_ldconfig(&mut entries);
        }
        let file = write_cache(&entries, format);
        std::fs::write(&path, &file).unwrap();
        let mut arguments: Vec<&str> = if with_options { options.to_vec() } else { Vec::new() };
        arguments.extend(preload.iter().map(String::as_str));
        let output = with_cache(&path, &arguments);
        let hwcaps = if with_options { &chosen } else { &plain };
        let cache = Cache::parse(&file).unwrap();
        let ranking = cache.ranking(hwcaps);
        let searches = searches(&output);
        let names: Vec<&str> = searches.iter().filter_map(|search| std::str::from_utf8(&search.name).ok()).collect();
        prop_assert_eq!(&names[..NAMES.len()], NAMES);
        for search in &searches {
            let theirs = search.cached().filter(|path| path.starts_with(b"/absent/"));
            let ours = cache.lookup(&search.name, hwcaps, &ranking);
            prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&search.name));
            found.set(found.get() + usize::from(theirs.is_some()));
        }
        Ok(())
    });
    std::fs::remove_file(&path).unwrap();
    result.unwrap();
    assert!(found.get() > 100, "only {found:?} names found: the generator is too poor");
}

/// Downwards by name; entries with a glibc-hwcaps subdirectory before the others, by its name.
fn sort_as_ldconfig(entries: &mut [Entry]) {
    entries.sort_by(|a, b| {
        let names = loader::search::cache::compare_names(NAMES[b.name].as_bytes(), NAMES[a.name].as_bytes());
        let named = |entry: &Entry| entry.hwcap >> 62 & 3 == 1;
        names.then(b.flags.cmp(&a.flags)).then(named(b).cmp(&named(a))).then(b.hwcap.cmp(&a.hwcap))
    });
}
