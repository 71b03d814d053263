//! Dynamic string tokens: `$ORIGIN`, `$LIB` and `$PLATFORM`, also as `${NAME}`, in DT_RPATH, DT_RUNPATH, DT_NEEDED,
//! LD_LIBRARY_PATH, preload lists and the argument of dlopen (gABI, ld.so(8)).
#![deny(unsafe_code)]

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::path::Layout;

/// What the tokens stand for, in one object.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// The directory of the object, without a slash at its end; `None` if it is unknown.
    pub origin: Option<&'a [u8]>,
    /// glibc's `_dl_platform`; `None` if the CPU has no name there.
    pub platform: Option<&'a [u8]>,
    /// Gives `$LIB` and the trusted directories.
    pub layout: &'a Layout,
    /// In secure execution `$ORIGIN` counts only at the start of a path, in an element of its own.
    pub secure: bool,
    /// The object is the executable: in secure execution its `$ORIGIN` must lead into a trusted directory.
    pub executable: bool,
}

impl Tokens<'_> {
    /// More bytes than a path takes once its tokens are replaced.
    #[must_use]
    pub fn room_for(&self, path: &[u8]) -> usize {
        let values = [self.origin.unwrap_or_default(), self.platform.unwrap_or_default(), self.layout.lib];
        let longest = values.iter().map(|value| value.len()).max().unwrap_or(0);
        let dollars = path.iter().filter(|&&byte| byte == b'$').count();
        dollars.saturating_mul(longest).saturating_add(path.len())
    }
}

enum Token {
    Origin,
    Platform,
    Lib,
}

/// Replaces the tokens in one path (lists are split before). `None`: the path cannot be used, since a token has no value
/// here or secure execution forbids it. Anything else behind a `$` stays as it is.
#[must_use]
pub fn expand<'p>(path: &'p [u8], tokens: &Tokens<'_>) -> Option<Cow<'p, [u8]>> {
    if !path.contains(&b'$') {
        return Some(Cow::Borrowed(path));
    }
    let mut result = Vec::with_capacity(path.len());
    let mut must_be_trusted = false;
    let mut rest = path;
    while let Some(dollar) = rest.iter().position(|&byte| byte == b'$') {
        let (before, from_dollar) = rest.split_at(dollar);
        result.extend_from_slice(before);
        let Some((token, after)) = leading_token(from_dollar) else {
            result.push(b'$');
            rest = from_dollar.get(1..).unwrap_or_default();
            continue;
        };
        let value = match token {
            Token::Origin => {
                let at_start = from_dollar.len() == path.len();
                let alone = matches!(after.first(), None | Some(b'/'));
                if tokens.secure && !(at_start && alone) {
                    return None;
                }
                must_be_trusted = tokens.secure && tokens.executable;
                tokens.origin
            }
            Token::Platform => tokens.platform,
            Token::Lib => Some(tokens.layout.lib),
        };
        result.extend_from_slice(value?);
        rest = after;
    }
    result.extend_from_slice(rest);
    (!must_be_trusted || is_trusted(&result, tokens.layout)).then_some(Cow::Owned(result))
}

/// Whether there is a token in a path.
#[must_use]
pub fn has_token(path: &[u8]) -> bool {
    (0..path.len()).any(|at| path[at] == b'$' && leading_token(&path[at..]).is_some())
}

/// The token that `text` starts with (a `$` first), and what follows it. A name must not go on behind the token's.
fn leading_token(text: &[u8]) -> Option<(Token, &[u8])> {
    let name = text.get(1..)?;
    let (name, braced) = name.strip_prefix(b"{").map_or((name, false), |inner| (inner, true));
    let names: [(&[u8], Token); 3] = [(b"ORIGIN", Token::Origin), (b"PLATFORM", Token::Platform), (b"LIB", Token::Lib)];
    names.into_iter().find_map(|(known, token)| {
        let after = name.strip_prefix(known)?;
        let goes_on = after.first().is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match (braced, after.strip_prefix(b"}")) {
            (true, Some(after)) => Some((token, after)),
            (false, _) if !goes_on => Some((token, after)),
            _ => None,
        }
    })
}

/// Whether a path lies in or below a default directory once `.`, `..` and doubled slashes are resolved as text.
#[must_use]
pub fn is_trusted(path: &[u8], layout: &Layout) -> bool {
    let Some(absolute) = path.strip_prefix(b"/") else { return false };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in absolute.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    layout.directories.iter().any(|directory| {
        let mut wanted = directory.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        let mut found = parts.iter();
        wanted.all(|part| found.next() == Some(&part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::path::LAYOUTS;
    use proptest::prelude::*;

    const OPEN: Tokens<'static> = Tokens {
        origin: Some(b"/usr/lib/app"),
        platform: Some(b"haswell"),
        layout: &LAYOUTS[0],
        secure: false,
        executable: true,
    };
    const SECURE: Tokens<'static> = Tokens { secure: true, ..OPEN };

    fn expanded(path: &str, tokens: &Tokens<'_>) -> Option<std::string::String> {
        expand(path.as_bytes(), tokens).map(|path| std::string::String::from_utf8(path.into_owned()).unwrap())
    }

    #[test]
    fn tokens_are_replaced_and_other_dollars_kept() {
        let cases = [
            ("/x", "/x"),
            ("$ORIGIN", "/usr/lib/app"),
            ("${ORIGIN}x", "/usr/lib/appx"),
            ("$ORIGIN/../$LIB/$PLATFORM", "/usr/lib/app/../lib/x86_64-linux-gnu/haswell"),
            ("/q$$ORIGIN$", "/q$/usr/lib/app$"),
            ("$ORIGINx $ORIGIN_ $ORIGIN0 $ORIGIN-", "$ORIGINx $ORIGIN_ $ORIGIN0 /usr/lib/app-"),
            ("${LIB ${LIB}} ${} {LIB} $lib", "${LIB lib/x86_64-linux-gnu} ${} {LIB} $lib"),
        ];
        for (path, expected) in cases {
            assert_eq!(expanded(path, &OPEN).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_token_without_a_value_spoils_the_path() {
        let unknown = Tokens { origin: None, platform: None, ..OPEN };
        assert_eq!(expanded("a/$ORIGIN", &unknown), None);
        assert_eq!(expanded("a/${PLATFORM}/b", &unknown), None);
        assert_eq!(expanded("$LIB", &unknown).as_deref(), Some("lib/x86_64-linux-gnu"));
    }

    /// The outcomes of set-user-ID programs under glibc 2.36.
    #[test]
    fn secure_execution_wants_origin_first_and_trusted() {
        assert!(expand(b"$ORIGIN/sub", &SECURE).is_some());
        assert!(expand(b"${ORIGIN}", &SECURE).is_some());
        assert!(expand(b"$ORIGIN/../x/./sub", &SECURE).is_some());
        assert_eq!(expanded("/usr/lib/$ORIGIN/sub", &SECURE), None);
        assert_eq!(expanded("${ORIGIN}x", &SECURE), None);
        assert_eq!(expanded("$ORIGIN/$ORIGIN", &SECURE), None);
        assert_eq!(expanded("$ORIGIN/../../../tmp", &SECURE), None);
        let elsewhere = Tokens { origin: Some(b"/tmp"), ..SECURE };
        assert_eq!(expanded("$ORIGIN/sub", &elsewhere), None);
        assert!(expand(b"$ORIGIN/sub", &Tokens { executable: false, ..elsewhere }).is_some());
        assert!(expand(b"/tmp/$LIB", &elsewhere).is_some());
    }

    #[test]
    fn trust_is_judged_on_the_resolved_text() {
        let layout = &LAYOUTS[0];
        for path in ["/lib", "/lib/", "//usr/./lib/x", "/usr/lib/a/..", "/x/../lib", "/../lib"] {
            assert!(is_trusted(path.as_bytes(), layout), "{path}");
        }
        for path in ["", "lib", "/", "/libx", "/usr", "/usr/lib/..", "/usr/lib/../../tmp"] {
            assert!(!is_trusted(path.as_bytes(), layout), "{path}");
        }
    }

    #[test]
    fn tokens_are_told_from_other_dollars() {
        for path in ["$ORIGIN", "a/${LIB}/b", "$$PLATFORM", "$LIB.so"] {
            assert!(has_token(path.as_bytes()), "{path}");
        }
        for path in ["", "$", "lib$", "$LIBRARY", "${ORIGIN", "$FOO/$LIB_", "ORIGIN"] {
            assert!(!has_token(path.as_bytes()), "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_to_expand(path in r"[$A-Z{}/_a]{0,20}(\$\{?(ORIGIN|LIB|PLATFORM)\}?[/a]?){0,3}") {
            let once = expanded(&path, &OPEN).unwrap();
            prop_assert_eq!(expanded(&once, &OPEN).unwrap(), once);
        }

        #[test]
        fn secure_execution_only_takes_away(path in r"(\$\{?(ORIGIN|LIB)\}?|/|\.\.|lib){0,6}") {
            let open = expanded(&path, &OPEN);
            let secure = expanded(&path, &SECURE);
            prop_assert!(secure.is_none() || secure == open);
        }
    }
}
