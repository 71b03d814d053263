//! Globs of `ldseal.exclude`. (Time is what is tested: libFuzzer reports slow inputs.)
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::seal::glob::{matches, matches_object};
use loader_fuzz::two_texts;

fuzz_target!(|input: &[u8]| {
    let (pattern, text) = two_texts(input);
    if matches(pattern, text) {
        assert!(matches_object(pattern, text));
        assert!(matches(&[b"*", pattern].concat(), text));
    }
    let literal: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
    assert!(matches(&literal, text));
    assert!(!matches(&[&literal[..], b"?"].concat(), text));
});
