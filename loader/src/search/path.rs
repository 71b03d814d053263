//! Search paths as text: how RPATH, LD_LIBRARY_PATH and the preload lists split, and the default directories.
#![deny(unsafe_code)]

/// Where a distribution keeps its libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What `$LIB` stands for.
    pub lib: &'static [u8],
    /// The default directories in search order, each with a slash at its end. They are also the trusted ones.
    pub directories: &'static [&'static [u8]],
}

/// The layouts of the distributions: Debian's multiarch directories, then `lib64` of most others.
pub const LAYOUTS: [Layout; 2] = [
    Layout {
        lib: b"lib/x86_64-linux-gnu",
        directories: &[b"/lib/x86_64-linux-gnu/", b"/usr/lib/x86_64-linux-gnu/", b"/lib/", b"/usr/lib/"],
    },
    Layout { lib: b"lib64", directories: &[b"/lib64/", b"/usr/lib64/"] },
];

impl Layout {
    /// The layout of the system whose libc is the file `libc_path`: the one that names its directory, else the first.
    #[must_use]
    pub fn of_libc(libc_path: &[u8]) -> &'static Layout {
        let directory = libc_path.iter().rposition(|&b| b == b'/').and_then(|slash| libc_path.get(..=slash));
        let named = |layout: &&Layout| directory.is_some_and(|found| layout.directories.contains(&found));
        LAYOUTS.iter().find(named).unwrap_or(&LAYOUTS[0])
    }

    /// Whether a cache entry lies in (or below) a default directory. An object with DF_1_NODEFLIB must not use such an entry.
    #[must_use]
    pub fn covers(&self, path: &[u8]) -> bool {
        self.directories.iter().any(|directory| path.starts_with(directory))
    }
}

/// The elements of a search path, empty ones included: DT_RPATH and DT_RUNPATH split at `:` only.
pub fn split_rpath(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b':')
}

/// The elements of LD_LIBRARY_PATH, which splits at `;` as well, empty ones included.
pub fn split_library_path(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| matches!(byte, b':' | b';'))
}

/// The names in LD_PRELOAD or `--preload`: split at spaces and colons. Names of 4096 bytes and more are dropped, and in
/// secure execution also those with a slash and those of 255 bytes and more.
pub fn split_preload(list: &[u8], secure: bool) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| matches!(byte, b' ' | b':')).filter(move |name| {
        let fits = !name.is_empty() && name.len() < 4096;
        fits && !(secure && (name.contains(&b'/') || name.len() >= 255))
    })
}

/// The names in the content of `/etc/ld.so.preload`: split at blanks, line ends and colons; `#` starts a comment. (glibc
/// overlooks comments behind the first one where the file is short after it, and tries to load their words. Not so here.)
pub fn split_preload_file(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|&byte| byte == b'\n');
    let without_comment = lines.filter_map(|line| line.split(|&byte| byte == b'#').next());
    without_comment
        .flat_map(|line| line.split(|&byte| matches!(byte, b' ' | b'\t' | b':')))
        .filter(|name| !name.is_empty())
}

/// Whether `--inhibit-rpath LIST` names the object: its DT_RPATH and DT_RUNPATH are then not searched. An empty element is the
/// executable, whose name is empty; a colon at the end adds none.
#[must_use]
pub fn inhibits_rpath(list: &[u8], object: &[u8]) -> bool {
    let list = list.strip_suffix(b":").unwrap_or(list);
    list.split(|&byte| byte == b':').any(|name| name == object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn texts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<&'a str> {
        parts.map(|part| std::str::from_utf8(part).unwrap()).collect()
    }

    #[test]
    fn only_the_library_path_splits_at_semicolons() {
        assert_eq!(texts(split_rpath(b"/a:/b;/c:")), ["/a", "/b;/c", ""]);
        assert_eq!(texts(split_library_path(b"/a:/b;/c:")), ["/a", "/b", "/c", ""]);
    }

    #[test]
    fn preload_lists_split_at_blanks_and_colons() {
        assert_eq!(texts(split_preload(b" liba.so: /x/libb.so  libc.so", false)), ["liba.so", "/x/libb.so", "libc.so"]);
        assert_eq!(texts(split_preload(b"liba.so:/x/libb.so", true)), ["liba.so"]);
        assert_eq!(split_preload(&[b'a'; 255], true).count(), 0);
        assert_eq!(split_preload(&[b'a'; 254], true).count(), 1);
        assert_eq!(split_preload(&[b'a'; 4095], false).count(), 1);
        assert_eq!(split_preload(&[b'a'; 4096], false).count(), 0);
        let file = b"# all of it\n/lib/a.so b.so:c.so # the rest\n\td.so";
        assert_eq!(texts(split_preload_file(file)), ["/lib/a.so", "b.so", "c.so", "d.so"]);
    }

    #[test]
    fn inhibiting_names_whole_objects() {
        assert!(inhibits_rpath(b"/a/b:/c", b"/c"));
        assert!(!inhibits_rpath(b"/a/b:/c", b"/a"));
        assert!(inhibits_rpath(b"", b"") && inhibits_rpath(b"::/a", b"") && !inhibits_rpath(b"/a:", b""));
    }

    #[test]
    fn the_layout_follows_the_directory_of_libc() {
        assert_eq!(Layout::of_libc(b"/lib64/libc.so.6"), &LAYOUTS[1]);
        assert_eq!(Layout::of_libc(b"/usr/lib64/libc.so.6").lib, b"lib64");
        assert_eq!(Layout::of_libc(b"/lib/x86_64-linux-gnu/libc.so.6"), &LAYOUTS[0]);
        assert_eq!(Layout::of_libc(b"libc.so.6"), &LAYOUTS[0]);
        assert!(LAYOUTS[1].covers(b"/usr/lib64/libx.so") && !LAYOUTS[1].covers(b"/usr/lib/libx.so"));
    }
}
