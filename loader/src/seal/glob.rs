//! Shell patterns for `ldseal.exclude`, as fnmatch(3) without flags reads them: `*` and `?` match slashes too.

#![deny(unsafe_code)]

/// Whether a pattern matches an object: its full path, or the name after the last slash.
#[must_use]
pub fn matches_object(pattern: &[u8], path: &[u8]) -> bool {
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    matches(pattern, path) || matches(pattern, base)
}

/// Whether `pattern` matches all of `text`.
///
/// `*` is any run of bytes, `?` one byte, `[a-z]` one byte of a set, `[!a-z]` or `[^a-z]` one outside it, `\` takes the meaning
/// from the byte behind it. A `]` or `-` at the start or end of a set stands for itself; a `[` without its `]` does too.
///
/// The time is at most proportional to the product of both lengths: only the last `*` met is ever widened.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after widening the last `*` by one byte: the pattern behind it, and the text it began with.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', behind)) = pattern.split_first().map(|(first, behind)| (*first, behind)) {
            retry = Some((behind, text));
            pattern = behind;
            continue;
        }
        let step = match text.split_first() {
            Some((&byte, rest)) => match_one(pattern, byte).map(|behind| (behind, rest)),
            None if pattern.is_empty() => return true,
            None => return false,
        };
        if let Some(next) = step {
            (pattern, text) = next;
            continue;
        }
        let Some((behind, from)) = retry else { return false };
        let Some((_, shorter)) = from.split_first() else { return false };
        retry = Some((behind, shorter));
        (pattern, text) = (behind, shorter);
    }
}

/// Matches one byte against the first element of the pattern, not a `*`. Gives the pattern behind the element.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&first, behind) = pattern.split_first()?;
    match first {
        b'?' => Some(behind),
        b'[' => match parse_set(behind) {
            Some(set) => set.contains(byte).then_some(set.behind),
            None => (byte == b'[').then_some(behind),
        },
        b'\\' => {
            let (&literal, behind) = behind.split_first().unwrap_or((&b'\\', behind));
            (byte == literal).then_some(behind)
        }
        _ => (byte == first).then_some(behind),
    }
}

/// The inside of a bracket expression.
struct Set<'p> {
    members: &'p [u8],
    negated: bool,
    behind: &'p [u8],
}

/// Reads a set from the byte behind its `[`.
fn parse_set(pattern: &[u8]) -> Option<Set<'_>> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let inside = pattern.get(usize::from(negated)..)?;
    let mut end = 0;
    loop {
        match inside.get(end)? {
            b']' if end > 0 => break,
            b'\\' => end = end.checked_add(2)?,
            _ => end = end.checked_add(1)?,
        }
    }
    Some(Set { members: inside.get(..end)?, negated, behind: inside.get(end.checked_add(1)?..)? })
}

impl Set<'_> {
    fn contains(&self, byte: u8) -> bool {
        let mut rest = self.members;
        let mut found = false;
        while let Some((low, behind)) = take_member(rest) {
            let range = behind.strip_prefix(b"-").and_then(take_member);
            let (high, behind) = range.unwrap_or((low, behind));
            found |= (low..=high).contains(&byte);
            rest = behind;
        }
        found != self.negated
    }
}

fn take_member(members: &[u8]) -> Option<(u8, &[u8])> {
    match members {
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => Some((*literal, rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn elements_match_as_fnmatch_says() {
        let yes: [(&[u8], &[u8]); 16] = [
            (b"", b""),
            (b"*", b""),
            (b"*", b"/usr/lib/libc.so.6"),
            (b"lib?.so*", b"libc.so.6"),
            (b"lib[a-d]*", b"libc.so.6"),
            (b"lib[!xyz]*", b"libc.so.6"),
            (b"lib[^xyz]*", b"libc.so.6"),
            (b"*/libc.*", b"/usr/lib/libc.so.6"),
            (b"a*b*c", b"aXbbXc"),
            (b"[]]", b"]"),
            (b"[a-]", b"-"),
            (b"[-a]", b"-"),
            (b"[", b"["),
            (b"[ab", b"[ab"),
            (b"\\*", b"*"),
            (b"[\\]a]", b"]"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{:?} {:?}", pattern.escape_ascii(), text.escape_ascii());
        }
        let no: [(&[u8], &[u8]); 9] = [
            (b"", b"x"),
            (b"?", b""),
            (b"libc", b"libc.so.6"),
            (b"lib[!c]*", b"libc.so.6"),
            (b"a*b*c", b"aXbbX"),
            (b"[a-c]", b"d"),
            (b"[c-a]", b"b"),
            (b"[", b"x"),
            (b"\\*", b"x"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern, text), "{:?} {:?}", pattern.escape_ascii(), text.escape_ascii());
        }
    }

    #[test]
    fn an_object_matches_by_path_or_by_base_name() {
        assert!(matches_object(b"libc.so.*", b"/lib/libc.so.6"));
        assert!(matches_object(b"/lib/*", b"/lib/libc.so.6"));
        assert!(!matches_object(b"lib/*", b"/lib/libc.so.6"));
        assert!(!matches_object(b"libm*", b"/lib/libc.so.6"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern: Vec<u8> = b"a*".repeat(500);
        let text = [b'a'; 2000];
        assert!(matches(&pattern, &text));
        assert!(!matches(&[&pattern[..], b"b"].concat(), &text));
    }

    /// The definition, without the economy.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some(b'*'), _) => (0..=text.len()).any(|skip| by_definition(&pattern[1..], &text[skip..])),
            (Some(_), None) => false,
            (Some(_), Some((&byte, rest))) => {
                match_one(pattern, byte).is_some_and(|behind| by_definition(behind, rest))
            }
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*?\\[\\]!\\\\-]{0,9}", text in "[ab\\]-]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), by_definition(pattern, text));
        }

        #[test]
        fn escaped_text_matches_itself(text: Vec<u8>) {
            let pattern: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
            prop_assert!(matches(&pattern, &text));
        }
    }
}
