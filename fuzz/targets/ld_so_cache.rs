//! `/etc/ld.so.cache`: any bytes give an error or a cache whose every answer lies in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::search::cache::{compare_names, Cache};
use loader::search::hwcaps::{Hwcaps, Machine};
use loader_fuzz::lies_in;

fuzz_target!(|input: &[u8]| {
    let Ok(cache) = Cache::parse(input) else { return };
    let machine =
        Machine { isa_1: 15, platform: Some(b"haswell"), hwcap: 6, os_version: 0x60000, ..Machine::default() };
    let hwcaps = Hwcaps::new(machine, Some(b"mine"), None);
    let ranking = cache.ranking(&hwcaps);
    for name in cache.hwcaps_names().flatten() {
        assert!(lies_in(name, input));
    }
    let entries = cache.entries().count();
    assert!(entries <= cache.len() && cache.len() <= input.len());
    for entry in cache.entries().take(64) {
        assert!(lies_in(entry.name, input) && lies_in(entry.path, input));
        assert!(!entry.name.contains(&0) && !entry.path.contains(&0));
        if let Some(path) = cache.lookup(entry.name, &hwcaps, &ranking) {
            assert!(lies_in(path, input) && !path.contains(&0));
        }
    }
    let mut pairs = cache.entries().zip(cache.entries().skip(1)).take(64);
    assert!(pairs.all(|(a, b)| compare_names(a.name, b.name).is_eq() == compare_names(b.name, a.name).is_eq()));
    assert_eq!(
        cache.lookup(b"\x01 no such name", &hwcaps, &ranking).map(|path| lies_in(path, input)).unwrap_or(true),
        true
    );
});
