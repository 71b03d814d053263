//! The cache reader against hand-made caches and this machine's own.
use std::vec::Vec;
use std::{eprintln, format};

use super::*;
use crate::search::hwcaps::Machine;

fn modern() -> Hwcaps<'static> {
    let machine = Machine { isa_1: 15, hwcap: 6, platform: Some(b"haswell"), ..Machine::default() };
    Hwcaps::new(machine, None, None)
}

fn lookup<'a>(cache: &Cache<'a>, name: &[u8], hwcaps: &Hwcaps<'_>) -> Option<&'a [u8]> {
    cache.lookup(name, hwcaps, &cache.ranking(hwcaps))
}

#[test]
fn every_soname_of_this_machine_resolves_as_ldconfig_lists_it() {
    let (Ok(file), Ok(list)) =
        (std::fs::read("/etc/ld.so.cache"), std::process::Command::new("/sbin/ldconfig").arg("-p").output())
    else {
        eprintln!("SKIPPED: no /etc/ld.so.cache or no ldconfig here");
        return;
    };
    let cache = Cache::parse(&file).unwrap();
    let text = std::string::String::from_utf8(list.stdout).unwrap();
    let mut listed = 0;
    let mut seen = std::collections::HashMap::new();
    for (entry, line) in cache.entries().zip(text.lines().skip(1)) {
        let (name, rest) = line.trim().split_once(" (").unwrap();
        let path = rest.rsplit_once(" => ").unwrap().1;
        assert_eq!((entry.name, entry.path), (name.as_bytes(), path.as_bytes()));
        if entry.flags == FLAG_NATIVE && entry.hwcap == 0 {
            seen.entry(name).or_insert(path);
        }
        listed += 1;
    }
    assert_eq!(listed, cache.len());
    for (name, path) in seen {
        assert_eq!(lookup(&cache, name.as_bytes(), &modern()), Some(path.as_bytes()), "{name}");
        assert_eq!(lookup(&cache, format!("{name}x").as_bytes(), &modern()), None);
    }
}

#[test]
fn names_compare_with_numbers_as_numbers_and_digits_above_all() {
    assert_eq!(compare_names(b"libc.so.6", b"libc.so.10"), Ordering::Less);
    assert_eq!(compare_names(b"libc.so.06", b"libc.so.6"), Ordering::Equal);
    assert_eq!(compare_names(b"liba", b"lib1"), Ordering::Less);
    assert_eq!(compare_names(b"lib1", b"lib"), Ordering::Greater);
    assert_eq!(compare_names(b"lib", b"lib1"), Ordering::Less);
    assert_eq!(compare_names(b"lib", b"lib"), Ordering::Equal);
    assert_eq!(compare_names(b"lib\xff", b"liba"), Ordering::Less);
    assert_eq!(compare_names(b"lib\xff", b"lib"), Ordering::Less);
}

#[test]
fn damaged_headers_are_refused() {
    assert_eq!(Cache::parse(b"").err(), Some(CacheError::BadMagic));
    assert_eq!(Cache::parse(NEW_MAGIC).err(), Some(CacheError::Truncated));
    let mut file: Vec<u8> = NEW_MAGIC.to_vec();
    file.resize(NEW_HEADER, 0);
    assert!(Cache::parse(&file).unwrap().is_empty());
    file[28] = 3;
    assert_eq!(Cache::parse(&file).err(), Some(CacheError::WrongEndian));
    file[28] = 2;
    file[20] = 1;
    assert_eq!(Cache::parse(&file).err(), Some(CacheError::Truncated));
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_an_answer(tail: Vec<u8>, which in 0..3, count in 0..4u8) {
        let mut file = match which {
            0 => NEW_MAGIC.to_vec(),
            1 => b"ld.so-1.7.0\0\0\0\0\0glibc-ld.so.cache1.1".to_vec(),
            _ => b"ld.so-1.7.0\0".to_vec(),
        };
        file.extend_from_slice(&[count, 0, 0, 0]);
        file.extend_from_slice(&tail);
        if let Ok(cache) = Cache::parse(&file) {
            let _ = cache.entries().count();
            let _ = lookup(&cache, b"libc.so.6", &modern());
        }
    }

    #[test]
    fn names_are_in_a_total_order(a in "[a0-2.]{0,5}", b in "[a0-2.]{0,5}", c in "[a0-2.]{0,5}") {
        let (a, b, c) = (a.as_bytes(), b.as_bytes(), c.as_bytes());
        proptest::prop_assert_eq!(compare_names(a, b), compare_names(b, a).reverse());
        if compare_names(a, b).is_le() && compare_names(b, c).is_le() {
            proptest::prop_assert!(compare_names(a, c).is_le());
        }
    }
}
