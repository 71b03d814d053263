//! The first line of a script, read as the kernel reads it (`fs/binfmt_script.c`).

/// How much of a file the kernel looks at (BINPRM_BUF_SIZE).
pub const HEAD: usize = 256;

/// The start of a file, zero-filled when the file is shorter.
pub type Head = [u8; HEAD];

/// What a `#!` line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The path of the interpreter.
    pub interpreter: &'a [u8],
    /// All that follows it, as one argument, blanks inside included.
    pub argument: Option<&'a [u8]>,
}

/// Reads the `#!` line at the start of a file. None where the kernel answers ENOEXEC: no `#!`, no interpreter, or an
/// interpreter's path that may go on beyond the head.
pub fn parse(head: &Head) -> Option<Line<'_>> {
    if !head.starts_with(b"#!") {
        return None;
    }
    let line_end = find(head, 2, |byte| byte == b'\n' || byte == 0).filter(|&at| head[at] == b'\n');
    let mut end = match line_end {
        Some(end) => end,
        None => {
            let word = find(head, 2, |byte| !is_blank(byte))?;
            find(head, word, is_terminator)?;
            HEAD - 1
        }
    };
    while is_blank(head[end - 1]) {
        end -= 1;
    }
    let start = find(head, 2, |byte| !is_blank(byte)).filter(|&at| at < end)?;
    let separator = find(head, start, is_terminator).filter(|&at| at < end);
    // An end of file right after a blank leaves an empty argument, where an end of line leaves none.
    let argument = separator
        .filter(|&at| head[at] != 0)
        .and_then(|at| find(head, at, |byte| !is_blank(byte)))
        .map(|at| string(&head[at..end.max(at)]));
    Some(Line { interpreter: string(&head[start..separator.unwrap_or(end)]), argument })
}

/// Whether a shell takes a file of this length that the kernel refuses (ENOEXEC) for a script of its own: there is no NUL
/// in its first line.
pub fn is_text(head: &Head, length: usize) -> bool {
    let line = head[..length.min(HEAD)].split(|&byte| byte == b'\n').next().unwrap_or_default();
    !line.contains(&0)
}

fn find(head: &Head, from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    (from..HEAD).find(|&at| wanted(head[at]))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_terminator(byte: u8) -> bool {
    is_blank(byte) || byte == 0
}

/// The bytes up to the first NUL.
fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &[u8]) -> Head {
        let mut head = [0; HEAD];
        let length = text.len().min(HEAD);
        head[..length].copy_from_slice(&text[..length]);
        head
    }

    fn parsed(text: &[u8]) -> Option<(String, Option<String>)> {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        parse(&head(text)).map(|line| (text_of(line.interpreter), line.argument.map(text_of)))
    }

    fn line(interpreter: &str, argument: Option<&str>) -> Option<(String, Option<String>)> {
        Some((interpreter.into(), argument.map(String::from)))
    }

    #[test]
    fn lines() {
        assert_eq!(parsed(b"#!/bin/sh\necho"), line("/bin/sh", None));
        assert_eq!(parsed(b"#! \t/bin/sh\t \necho"), line("/bin/sh", None));
        assert_eq!(parsed(b"#!/bin/sh -e  -x \necho"), line("/bin/sh", Some("-e  -x")));
        assert_eq!(parsed(b"#!/usr/bin/env -S a b\r\n"), line("/usr/bin/env", Some("-S a b\r")));
        assert_eq!(parsed(b"#!/bin/sh"), line("/bin/sh", None));
        assert_eq!(parsed(b"#!/bin/sh -x"), line("/bin/sh", Some("-x")));
        assert_eq!(parsed(b"#!/bin/sh\0 -x\n"), line("/bin/sh", None));
        assert_eq!(parsed(b"#!/bin/sh -x\0y\n"), line("/bin/sh", Some("-x")));
        assert_eq!(parsed(b"#!/bin/sh "), line("/bin/sh", Some("")));
    }

    #[test]
    fn no_lines() {
        for text in [&b""[..], b"#", b"echo", b"#!\n/bin/sh", b"#! \t \n", b"\n#!/bin/sh\n"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_in_the_argument_only() {
        let mut text = b"#!/bin/sh ".to_vec();
        text.resize(400, b'a');
        assert_eq!(parsed(&text), line("/bin/sh", Some(&"a".repeat(HEAD - 1 - 10))));
        let mut text = b"#!".to_vec();
        text.resize(400, b'a');
        assert_eq!(parsed(&text), None);
        text.resize(HEAD - 1, b'a');
        text.truncate(HEAD - 1);
        assert_eq!(parsed(&text), line(&"a".repeat(HEAD - 3), None));
        assert_eq!(parsed(&[&b"#!"[..], &[b' '; 400]].concat()), None);
    }

    #[test]
    fn texts() {
        assert!(is_text(&head(b""), 0));
        assert!(is_text(&head(b"echo\n\0"), 6));
        assert!(!is_text(&head(b"ec\0ho\n"), 6));
        assert!(!is_text(&head(b"\0"), 1));
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_survived(text in proptest::collection::vec(proptest::sample::select(b"#!/ab \t\n\0".to_vec()), 0..300)) {
            if let Some(line) = parse(&head(&text)) {
                assert!(text.starts_with(b"#!"));
                assert!(!line.interpreter.iter().any(|&byte| is_blank(byte) || byte == b'\n'));
            }
        }
    }
}
