//! `GLIBC_TUNABLES`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::seal::tunables::SealTunables;
use loader::tunables::{items, parse_number};
use loader_fuzz::lies_in;

fuzz_target!(|input: &[u8]| {
    for (name, value) in items(input) {
        assert!(lies_in(name, input) && lies_in(value, input));
        assert!(!name.contains(&b'=') && !name.contains(&b':') && !value.contains(&b':'));
        let _ = parse_number(value);
    }
    let tunables = SealTunables::parse(input, false);
    assert!(tunables.exclude.is_none_or(|glob| lies_in(glob, input)));
    assert_eq!(SealTunables::parse(input, true), SealTunables::default());
});
