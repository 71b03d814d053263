//! Dynamic symbols, hash tables and versions of a whole file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::addr::VAddr;
use loader::elf::symbols::{HashedName, Symbols};
use loader::elf::version::Versions;
use loader::elf::{dynamic, header};
use loader_fuzz::File;

fuzz_target!(|input: &[u8]| {
    let file = File::new(input);
    let Some(headers) = file.program_headers() else { return };
    let Some(segment) = header::find(&headers, 2) else { return };
    let Ok(dynamic) = dynamic::parse(file.segment(segment), VAddr(segment.p_vaddr)) else { return };
    let view = file.view(&headers);
    let Ok(symbols) = Symbols::parse(&view, &dynamic) else { return };
    for offset in dynamic.needed.iter().map(|d| &d.name).chain(&dynamic.soname).chain(&dynamic.runpath) {
        let _ = symbols.string(*offset);
    }
    for index in 0..symbols.count().min(64) {
        let Some(symbol) = symbols.get(index) else { break };
        assert_eq!(symbols.index_of(symbol), Some(index));
        let name = symbols.name(symbol);
        let _ = symbols.version_index(index);
        let _ =
            symbols.find(HashedName::new(name), |_, candidate| (candidate.st_value == symbol.st_value).then_some(()));
    }
    let _ = symbols.find(HashedName::new(b"no such symbol"), |_, _| None::<()>);
    if let Ok(versions) = Versions::parse(&view, &dynamic, &symbols) {
        for index in 0..=u16::from(u8::MAX) {
            let _ = versions.get(index);
        }
    }
});
