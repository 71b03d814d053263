//! GNU property notes, and this project's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::elf::note::opts_out;
use loader::elf::property::{properties, Properties};

fuzz_target!(|input: &[u8]| {
    assert_eq!(properties(input, 4), None);
    if opts_out(input, 4) || opts_out(input, 8) {
        assert!(input.windows(7).any(|bytes| bytes == b"ldseal\0"));
    }
    let Some(found) = properties(input, 8) else { return };
    assert!(input.windows(4).any(|bytes| bytes == b"GNU\0"));
    let states = |kind: u32| input.windows(4).any(|bytes| bytes == kind.to_le_bytes());
    if found.isa_1_needed.is_some() {
        assert!(states(0xc000_8002));
    }
    if found.feature_1_and != 0 {
        assert!(states(0xc000_0002));
    }
    if found.memory_seal {
        assert!(states(3));
    }
    assert_eq!(found.missing_isa_levels(u32::MAX), 0);
    assert_eq!(Properties::default().missing_isa_levels(0), 0);
});
