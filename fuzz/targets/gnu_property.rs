//! GNU property notes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::elf::property::{properties, Properties};

fuzz_target!(|input: &[u8]| {
    assert_eq!(properties(input, 4), None);
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
