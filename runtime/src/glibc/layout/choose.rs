//! Which layout a mapped libc.so.6 has.

use core::fmt;

use super::Layout;
use crate::glibc::tables::LAYOUTS;

/// What libc.so.6 says about its own structures: for the name of a `_thread_db_*` symbol that it exports, the words of
/// that object (size in bits, number of elements, offset in bytes). A `_thread_db_sizeof_*` object is one word; the other
/// two are 0 then. `None` when there is no such symbol.
pub type Fingerprint<'a> = dyn Fn(&str) -> Option<[u32; 3]> + 'a;

/// Why no layout fits a libc.so.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChooseError {
    /// No table for this release.
    UnknownVersion {
        /// The release found.
        found: (u32, u32),
    },
    /// There are tables for this release, but libc's descriptors contradict each of them.
    UnknownSnapshot {
        /// The release found.
        found: (u32, u32),
        /// The first descriptor that differs from the table that fits best.
        symbol: &'static str,
        /// What the table expects.
        expected: [u32; 3],
        /// What libc says; `None` when it has no such descriptor.
        actual: Option<[u32; 3]>,
    },
}

impl fmt::Display for ChooseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChooseError::UnknownVersion { found: (major, minor) } => {
                write!(f, "glibc {major}.{minor} is not supported (supported:")?;
                let mut previous = None;
                for layout in LAYOUTS {
                    if previous != Some(layout.version) {
                        write!(f, " {}.{}", layout.version.0, layout.version.1)?;
                        previous = Some(layout.version);
                    }
                }
                f.write_str(")")
            }
            ChooseError::UnknownSnapshot { found: (major, minor), symbol, expected, actual } => {
                write!(f, "this build of glibc {major}.{minor} is not supported: {symbol} is ")?;
                match actual {
                    Some(words) => write!(f, "{words:?}")?,
                    None => f.write_str("missing")?,
                }
                write!(f, ", not {expected:?}")
            }
        }
    }
}

/// The layout of the libc.so.6 that has this release as its highest version definition and says `fingerprint` about
/// itself. Every descriptor that a table knows must be there and agree.
///
/// # Errors
/// [`ChooseError`], whose text is one line for the user.
pub fn choose(version: (u32, u32), fingerprint: &Fingerprint<'_>) -> Result<&'static Layout, ChooseError> {
    choose_from(LAYOUTS, version, fingerprint)
}

fn choose_from(
    layouts: &[&'static Layout],
    version: (u32, u32),
    fingerprint: &Fingerprint<'_>,
) -> Result<&'static Layout, ChooseError> {
    let mut nearest: Option<(usize, ChooseError)> = None;
    for layout in layouts.iter().filter(|layout| layout.version == version) {
        let mut differences =
            layout.thread_db.iter().filter(|(symbol, expected)| fingerprint(symbol).as_ref() != Some(expected));
        let Some(&(symbol, expected)) = differences.next() else { return Ok(layout) };
        let count = 1 + differences.count();
        if nearest.is_none_or(|(fewest, _)| count < fewest) {
            let actual = fingerprint(symbol);
            nearest = Some((count, ChooseError::UnknownSnapshot { found: version, symbol, expected, actual }));
        }
    }
    Err(nearest.map_or(ChooseError::UnknownVersion { found: version }, |(_, error)| error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn says(layout: &'static Layout) -> impl Fn(&str) -> Option<[u32; 3]> {
        move |name| layout.thread_db.iter().find(|(symbol, _)| *symbol == name).map(|(_, words)| *words)
    }

    #[test]
    fn every_table_is_chosen_by_its_own_descriptors() {
        for layout in LAYOUTS {
            assert_eq!(choose(layout.version, &says(layout)), Ok(*layout));
        }
    }

    #[test]
    fn an_unknown_release_is_refused_by_name() {
        let error = choose((2, 17), &|_| None).unwrap_err();
        assert_eq!(error, ChooseError::UnknownVersion { found: (2, 17) });
        assert_eq!(error.to_string(), "glibc 2.17 is not supported (supported: 2.36)");
    }

    #[test]
    fn a_descriptor_that_differs_refuses_the_table() {
        let symbol = "_thread_db_link_map_l_tls_modid";
        let genuine = says(&crate::glibc::tables::layout_v2_36::LAYOUT);
        let forged = |name: &str| if name == symbol { Some([64, 1, 1160]) } else { genuine(name) };
        let error = choose((2, 36), &forged).unwrap_err();
        let expected = [64, 1, 1152];
        let found = (2, 36);
        assert_eq!(error, ChooseError::UnknownSnapshot { found, symbol, expected, actual: Some([64, 1, 1160]) });
        assert!(error.to_string().starts_with("this build of glibc 2.36 is not supported: "));
    }

    #[test]
    fn a_missing_descriptor_refuses_the_table() {
        let error = choose((2, 36), &|_| None).unwrap_err();
        assert!(matches!(error, ChooseError::UnknownSnapshot { actual: None, .. }), "{error}");
        assert!(error.to_string().contains("missing"));
    }
}
