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

/// The names in the content of `/etc/ld.so.preload`: split at blanks, line ends and colons; `#` starts a comment.
pub fn split_preload_file(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|&byte| byte == b'\n');
    let without_comment = lines.filter_map(|line| line.split(|&byte| byte == b'#').next());
    without_comment
        .flat_map(|line| line.split(|&byte| matches!(byte, b' ' | b'\t' | b':')))
        .filter(|name| !name.is_empty())
}

/// Whether `--inhibit-rpath LIST` names the object: its DT_RPATH and DT_RUNPATH are then not searched.
#[must_use]
pub fn inhibits_rpath(list: &[u8], object: &[u8]) -> bool {
    list.split(|&byte| byte == b':').any(|name| name == object)
}
