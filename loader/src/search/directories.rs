//! The directories that search paths name, and what is known of them, so that none is asked for twice.
#![deny(unsafe_code)]

use alloc::vec::Vec;

use super::dst::{expand, Tokens};
use super::hwcaps::Hwcaps;
use super::path::{split_library_path, split_rpath};

/// A directory known to [`Directories`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryId(usize);

/// An ordered list of directories, each once. Made by [`Directories::list`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchList(pub(super) Vec<DirectoryId>);

impl SearchList {
    /// Whether there is nothing to search.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The directories in search order.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryId> + '_ {
        self.0.iter().copied()
    }
}

/// What is known of a (sub)directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Unknown,
    Present,
    Missing,
}

/// Every directory that a search path has named, and which of its capability subdirectories exist. Each absolute directory is
/// asked for once; below one that is missing nothing is asked. Relative ones are never remembered, as the working directory
/// may change.
#[derive(Debug, Clone)]
pub struct Directories {
    pub(super) tree: Vec<Subdirectory>,
    /// The nodes that are searched, as `LD_DEBUG=libs` lists them: one whose path comes about in several ways so often.
    listed: Vec<usize>,
    known: Vec<Directory>,
    /// What has named them first; only kept for `LD_DEBUG`.
    mentions: Vec<(DirectoryId, Mention)>,
}

#[derive(Debug, Clone)]
struct Directory {
    /// With a slash at its end, or empty: the working directory.
    path: Vec<u8>,
    presence: Vec<Presence>,
}

/// Where a directory was named: which kind of search path, and the object whose it is, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) what: &'static str,
    pub(super) object: Option<Vec<u8>>,
}

/// A node of the tree of capability subdirectories. Nodes stand in search order, those that are not searched at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subdirectory {
    /// Below the search directory, with a slash at its end; empty for the search directory itself.
    pub(super) path: Vec<u8>,
    /// Nodes above it, the root first.
    pub(super) ancestors: Vec<usize>,
    /// Whether libraries are looked for in it (not in `glibc-hwcaps/` itself).
    pub(super) searched: bool,
}

impl Directories {
    /// No directory known yet; `hwcaps` decides the subdirectories.
    #[must_use]
    pub fn new(hwcaps: &Hwcaps<'_>) -> Self {
        let (tree, listed) = subdirectories(hwcaps);
        Directories { tree, listed, known: Vec::new(), mentions: Vec::new() }
    }

    /// The searched subdirectories in search order, each with a slash at its end; the last is empty, the directory itself.
    pub fn subdirectories(&self) -> impl Iterator<Item = &[u8]> {
        self.tree.iter().filter(|node| node.searched).map(|node| node.path.as_slice())
    }

    /// The directory's path with a slash at its end; empty for the working directory.
    #[must_use]
    pub fn path(&self, directory: DirectoryId) -> &[u8] {
        self.known.get(directory.0).map_or(&[], |known| known.path.as_slice())
    }

    /// The list that DT_RPATH or DT_RUNPATH gives. Elements whose tokens have no value are left out; an empty path is no list.
    pub fn rpath(&mut self, path: &[u8], tokens: &Tokens<'_>) -> SearchList {
        self.expanded(path, split_rpath(path), tokens)
    }

    /// Memory for what [`Directories::rpath`] keeps of a path and needs meanwhile.
    pub fn room_for_rpath(&self, path: &[u8], tokens: &Tokens<'_>) -> usize {
        let colons = path.iter().filter(|&&byte| byte == b':').count();
        let each = size_of::<Directory>().saturating_add(self.tree.len()).saturating_add(64).saturating_mul(4);
        // The text itself, its copy in the table, both in the sizes that the heap has.
        let text = tokens.room_for(path).saturating_mul(4);
        colons.saturating_add(1).saturating_mul(each).saturating_add(text)
    }

    /// The list that LD_LIBRARY_PATH or `--library-path` gives; the tokens are the executable's.
    pub fn library_path(&mut self, path: &[u8], tokens: &Tokens<'_>) -> SearchList {
        self.expanded(path, split_library_path(path), tokens)
    }

    fn expanded<'e>(
        &mut self,
        path: &[u8],
        elements: impl Iterator<Item = &'e [u8]>,
        tokens: &Tokens<'_>,
    ) -> SearchList {
        if path.is_empty() {
            return SearchList::default();
        }
        let usable = |element: &'e [u8]| {
            let expanded = expand(element, tokens)?;
            (element.is_empty() || !expanded.is_empty()).then_some(expanded)
        };
        self.list(elements.filter_map(usable))
    }

    /// A search list from the elements of a search path whose tokens have been expanded ([`super::dst`]). An empty element
    /// is the working directory, and slashes at the end do not count. An element whose expansion failed is to be left out.
    pub fn list<P: AsRef<[u8]>>(&mut self, elements: impl IntoIterator<Item = P>) -> SearchList {
        let mut list = Vec::new();
        for element in elements {
            let id = self.intern(element.as_ref());
            if !list.contains(&id) {
                list.push(id);
            }
        }
        SearchList(list)
    }

    fn intern(&mut self, element: &[u8]) -> DirectoryId {
        let bare = element.iter().rposition(|&b| b != b'/').map_or(0, |last| last.saturating_add(1));
        let mut path = element.get(..bare).unwrap_or_default().to_vec();
        if !element.is_empty() {
            path.push(b'/');
        }
        if let Some(index) = self.known.iter().position(|known| known.path == path) {
            return DirectoryId(index);
        }
        let presence = alloc::vec![Presence::Unknown; self.tree.len()];
        self.known.push(Directory { path, presence });
        DirectoryId(self.known.len().saturating_sub(1))
    }

    /// Writes the path of a subdirectory (with a slash at its end) into `buffer`.
    pub(super) fn write(&self, directory: DirectoryId, node: usize, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(self.path(directory));
        buffer.extend_from_slice(self.tree.get(node).map_or(&[], |sub| sub.path.as_slice()));
    }

    pub(super) fn presence(&self, directory: DirectoryId, node: usize) -> Presence {
        let (Some(known), Some(subdirectory)) = (self.known.get(directory.0), self.tree.get(node)) else {
            return Presence::Missing;
        };
        if known.path.is_empty() && subdirectory.path.is_empty() {
            return Presence::Present; // The working directory: it has no name to ask for.
        }
        known.presence.get(node).copied().unwrap_or(Presence::Missing)
    }

    /// Whether a directory is relative. As in glibc one counts as present everywhere but in the search itself, with all its subdirectories.
    #[must_use]
    pub(super) fn is_relative(&self, directory: DirectoryId) -> bool {
        !self.path(directory).starts_with(b"/")
    }

    /// Whether a directory was asked for and is not there.
    #[must_use]
    pub fn is_missing(&self, directory: DirectoryId) -> bool {
        if self.is_relative(directory) {
            return false;
        }
        let itself = self.tree.iter().position(|node| node.path.is_empty());
        itself.is_some_and(|node| self.presence(directory, node) == Presence::Missing)
    }

    /// What of a list may be searched, subdirectories and all, as `LD_DEBUG=libs` shows it: separated by colons, and as far as the
    /// directories were first named in the same kind of path.
    pub(super) fn shown(&self, list: &[DirectoryId]) -> Vec<u8> {
        let mut shown: Vec<u8> = Vec::new();
        let mut path = Vec::new();
        let mut separator = false;
        let what = |id: DirectoryId| self.named_by(id).map(|mention| mention.what);
        let first = list.first().copied().and_then(what);
        for directory in list.iter().copied().take_while(|id| what(*id) == first) {
            let is_missing = |node: usize| self.presence(directory, node) == Presence::Missing;
            let below_missing = |node: &Subdirectory| node.ancestors.iter().any(|&above| is_missing(above));
            let is_known = !self.is_relative(directory);
            let is_left_out =
                |node: usize| is_known && (is_missing(node) || self.tree.get(node).is_some_and(below_missing));
            for node in self.listed.iter().copied().filter(|node| !is_left_out(*node)) {
                self.write(directory, node, &mut path);
                if core::mem::replace(&mut separator, true) {
                    shown.push(b':');
                }
                let bare = if path.len() > 1 { path.strip_suffix(b"/").unwrap_or(&path) } else { &path };
                shown.extend_from_slice(bare);
            }
        }
        shown
    }

    /// Notes what has named the directories of a list, of those that nothing has named before.
    pub(super) fn mention(&mut self, list: &SearchList, what: &'static str, object: Option<&[u8]>) {
        for directory in list.directories() {
            if self.named_by(directory).is_none() {
                self.mentions.push((directory, Mention { what, object: object.map(<[u8]>::to_vec) }));
            }
        }
    }

    /// What has named a directory first.
    pub(super) fn named_by(&self, directory: DirectoryId) -> Option<&Mention> {
        self.mentions.iter().find(|(id, _)| *id == directory).map(|(_, mention)| mention)
    }

    pub(super) fn learn(&mut self, directory: DirectoryId, node: usize, presence: Presence) {
        if let Some(slot) = self.known.get_mut(directory.0).and_then(|known| known.presence.get_mut(node)) {
            *slot = presence;
        }
    }

    /// Forgets what an earlier lookup learnt of a relative directory.
    pub(super) fn forget_if_relative(&mut self, directory: DirectoryId) {
        let is_relative = self.is_relative(directory);
        if let Some(known) = self.known.get_mut(directory.0).filter(|_| is_relative) {
            known.presence.fill(Presence::Unknown);
        }
    }
}

/// `glibc-hwcaps/NAME/` for every name, then every selection of the legacy components, fuller ones first, then nothing. Each is a node
/// once; the second list has its place in the first as often as it comes.
fn subdirectories(hwcaps: &Hwcaps<'_>) -> (Vec<Subdirectory>, Vec<usize>) {
    let mut paths: Vec<(Vec<u8>, bool)> = Vec::new();
    for name in hwcaps.names() {
        let mut path = b"glibc-hwcaps/".to_vec();
        path.extend_from_slice(name);
        path.push(b'/');
        paths.push((path, true));
    }
    let mut listed: Vec<usize> = (0..paths.len()).collect();
    let components = hwcaps.legacy_components();
    let count = components.len().min(8);
    for selection in (0..1usize << count).rev() {
        let chosen = components.iter().take(count).rev().enumerate().rev().filter(|(bit, _)| selection >> bit & 1 != 0);
        let mut path = Vec::new();
        for (_, name) in chosen {
            path.extend_from_slice(name);
            path.push(b'/');
        }
        // The platform may have the name of a capability.
        let known = paths.iter().position(|(known, _)| *known == path);
        listed.push(known.unwrap_or(paths.len()));
        if known.is_none() {
            paths.push((path, true));
        }
    }
    if !hwcaps.names().is_empty() {
        paths.push((b"glibc-hwcaps/".to_vec(), false));
    }
    let above = |path: &[u8]| {
        let mut nodes: Vec<usize> = (0..paths.len())
            .filter(|&n| paths.get(n).is_some_and(|(p, _)| p.len() < path.len() && path.starts_with(p)))
            .collect();
        nodes.sort_by_key(|&n| paths.get(n).map_or(0, |(p, _)| p.len()));
        nodes
    };
    let nodes = paths.iter().map(|(path, searched)| (above(path), path.clone(), *searched));
    (nodes.map(|(ancestors, path, searched)| Subdirectory { path, ancestors, searched }).collect(), listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::hwcaps::Machine;
    use crate::search::path::LAYOUTS;

    const TOKENS: Tokens<'static> =
        Tokens { origin: None, platform: None, layout: &LAYOUTS[0], secure: false, executable: true };

    fn paths(directories: &Directories, list: &SearchList) -> Vec<std::string::String> {
        let text = |path: &[u8]| std::string::String::from_utf8(path.to_vec()).unwrap();
        list.directories().map(|id| text(directories.path(id))).collect()
    }

    #[test]
    fn elements_lose_their_slashes_and_come_once() {
        let mut directories = Directories::new(&Hwcaps::new(Machine::default(), None, None));
        let list = directories.library_path(b"/a//:/b;:a/;/a:///", &TOKENS);
        assert_eq!(paths(&directories, &list), ["/a/", "/b/", "", "a/", "/"]);
        let list = directories.rpath(b"/b;/c:$ORIGIN:$LIB", &TOKENS);
        assert_eq!(paths(&directories, &list), ["/b;/c/", "lib/x86_64-linux-gnu/"]);
        assert!(directories.rpath(b"", &TOKENS).is_empty() && directories.rpath(b"$ORIGIN", &TOKENS).is_empty());
        assert_eq!(paths(&directories, &SearchList::default()).len(), 0);
    }

    #[test]
    fn subdirectories_count_down_from_the_fullest() {
        let machine = Machine { isa_1: 3, platform: None, hwcap: 2, legacy_subdirectories: true, ..Machine::default() };
        let directories = Directories::new(&Hwcaps::new(machine, None, None));
        let all: Vec<&[u8]> = directories.subdirectories().collect();
        assert_eq!(all, [&b"glibc-hwcaps/x86-64-v2/"[..], b"tls/x86_64/", b"tls/", b"x86_64/", b""]);
    }

    #[test]
    fn a_platform_named_as_a_capability_is_shown_twice_and_searched_once() {
        let machine =
            Machine { platform: Some(b"x86_64"), hwcap: 2, legacy_subdirectories: true, ..Machine::default() };
        let mut directories = Directories::new(&Hwcaps::new(machine, None, None));
        assert_eq!(directories.subdirectories().count(), 6);
        let list = directories.list([b"/a"]);
        let text = directories.shown(&list.0);
        let text = core::str::from_utf8(&text).unwrap();
        let legacy = "/a/tls/x86_64/x86_64:/a/tls/x86_64:/a/tls/x86_64:/a/tls:/a/x86_64/x86_64:/a/x86_64:/a/x86_64:/a";
        assert_eq!(text, legacy);
    }
}
