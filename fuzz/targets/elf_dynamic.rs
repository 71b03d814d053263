//! The dynamic section: the input is its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::addr::VAddr;
use loader::elf::dynamic;

fuzz_target!(|input: &[u8]| {
    let Ok(parsed) = dynamic::parse(input, VAddr(0x1000)) else { return };
    assert!(parsed.entries.len() * dynamic::DYN_SIZE <= input.len());
    let _ = parsed.binds_now();
});
