//! The ELF header and the program headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::elf::header;
use loader::elf::property::properties;
use loader_fuzz::File;

fuzz_target!(|input: &[u8]| {
    let file = File::new(input);
    let Some(headers) = file.program_headers() else { return };
    let _ = header::wants_executable_stack(&headers);
    for segment in &headers {
        let _ = properties(file.segment(segment), segment.p_align);
    }
});
