//! Dynamic string tokens, in and out of secure execution.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::search::dst::{expand, is_trusted, Tokens};
use loader::search::path::LAYOUTS;
use loader_fuzz::two_texts;

fuzz_target!(|input: &[u8]| {
    let Some((&choices, texts)) = input.split_first() else { return };
    let (origin, path) = two_texts(texts);
    let tokens = Tokens {
        origin: (choices & 1 == 0).then_some(origin),
        platform: (choices & 2 == 0).then_some(b"haswell"),
        layout: &LAYOUTS[usize::from(choices >> 2 & 1)],
        secure: choices & 8 != 0,
        executable: choices & 16 != 0,
    };
    let expanded = expand(path, &tokens);
    if !path.contains(&b'$') {
        assert_eq!(expanded.as_deref(), Some(path));
    }
    let Some(expanded) = expanded else { return };
    let has = |needle: &[u8]| path.windows(needle.len()).any(|bytes| bytes == needle);
    let origin_stands = has(b"${ORIGIN}");
    if origin_stands && tokens.secure {
        assert!(path.starts_with(b"${ORIGIN}") && tokens.origin.is_some());
        assert!(expanded.starts_with(origin));
        if tokens.executable {
            assert!(is_trusted(&expanded, tokens.layout));
        }
    }
    if !origin.contains(&b'$') && !tokens.secure && origin.first().is_some_and(|&byte| byte == b'/') {
        assert_eq!(expand(&expanded, &tokens).as_deref(), Some(&*expanded), "nothing is left to expand");
    }
});
