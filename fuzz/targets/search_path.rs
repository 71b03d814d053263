//! Search paths and the plan of a lookup: it ends, a second one asks for no absolute directory again, and nothing is opened in a missing one.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use loader::search::directories::Directories;
use loader::search::dst::Tokens;
use loader::search::hwcaps::{Hwcaps, Machine};
use loader::search::lookup::{Candidate, CommonPaths, Lookup, ObjectPaths};
use loader::search::path::{inhibits_rpath, split_preload, split_preload_file, LAYOUTS};
use loader_fuzz::two_texts;

fuzz_target!(|input: &[u8]| {
    let Some((&choices, texts)) = input.split_first() else { return };
    let (library_path, texts) = two_texts(texts);
    let (rpath, texts) = two_texts(texts);
    let (prepend, list) = two_texts(texts);
    assert!(
        split_preload(list, true).all(|name| !name.contains(&b'/') && split_preload(list, false).any(|n| n == name))
    );
    assert!(split_preload_file(list).all(|name| !name.is_empty() && !name.contains(&b'#')));
    let _ = inhibits_rpath(list, rpath);

    let machine = Machine {
        isa_1: u32::from(choices & 15),
        platform: (choices & 16 != 0).then_some(b"haswell"),
        hwcap: 6,
        legacy_subdirectories: choices & 32 != 0,
        ..Machine::default()
    };
    let prepend = prepend.get(..prepend.len().min(40)).unwrap_or_default();
    let mut directories = Directories::new(&Hwcaps::new(machine, Some(prepend), None));
    let layout = &LAYOUTS[0];
    let tokens =
        Tokens { origin: Some(b"/origin"), platform: machine.platform, layout, secure: false, executable: true };
    let object = ObjectPaths {
        rpath: directories.rpath(rpath.get(..rpath.len().min(200)).unwrap_or_default(), &tokens),
        has_runpath: choices & 64 != 0,
        no_default: choices & 128 != 0,
        ..ObjectPaths::default()
    };
    let common = CommonPaths {
        library_path: directories
            .library_path(library_path.get(..library_path.len().min(200)).unwrap_or_default(), &tokens),
        default: directories.list(layout.directories),
        inhibit_cache: false,
    };
    let mut answers: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let mut buffer = Vec::new();
    for (name, first) in [(&b"libx.so"[..], true), (b"liby.so", false)] {
        let mut lookup = Lookup::new(name, [&object].into_iter(), Some(&object), &common);
        let mut caches = 0;
        while let Some(candidate) = lookup.next(&mut directories, &mut buffer) {
            match candidate {
                Candidate::Probe => {
                    assert!(buffer.ends_with(b"/"));
                    let exists = buffer.iter().fold(choices, |hash, &byte| hash.wrapping_mul(31) ^ byte) % 3 != 0;
                    answers.insert(buffer.clone(), exists);
                    assert!(first || !buffer.starts_with(b"/"), "asked again");
                    lookup.answer(&mut directories, exists);
                }
                Candidate::File { .. } => {
                    let directory = buffer.strip_suffix(name).expect("the name comes last");
                    assert!(directory.is_empty() || answers.get(directory) == Some(&true));
                }
                Candidate::Cache { .. } => caches += 1,
            }
        }
        assert_eq!(caches, 1);
        assert_eq!(lookup.next(&mut directories, &mut buffer), None);
    }
});
