//! The order in which directories are searched for a library named without a slash (ld.so(8), as glibc 2.36 does it):
//!
//! 1. DT_RPATH of the object that asks, of the object that loaded it, and so on up, then of the executable; all of it only
//!    if the asking object has no DT_RUNPATH;
//! 2. LD_LIBRARY_PATH (or `--library-path`), never in secure execution;
//! 3. DT_RUNPATH of the object that asks;
//! 4. `/etc/ld.so.cache`;
//! 5. the default directories, unless the object that asks has DF_1_NODEFLIB.
//!
//! [`Lookup`] walks through this as a plan: it names the next thing to try, the caller does the opening.
#![deny(unsafe_code)]

use crate::rule::{holds, Rule};
use alloc::vec::Vec;
use rustix::io::Errno;

use super::directories::{Directories, DirectoryId, Presence, SearchList};

/// The search paths that one object brings along.
#[derive(Debug, Clone, Default)]
pub struct ObjectPaths {
    /// DT_RPATH; empty where the object has DT_RUNPATH, which cancels it.
    pub rpath: SearchList,
    /// DT_RUNPATH.
    pub runpath: SearchList,
    /// Whether the object has a DT_RUNPATH, even an empty or inhibited one: no DT_RPATH is then used for its dependencies.
    pub has_runpath: bool,
    /// DF_1_NODEFLIB.
    pub no_default: bool,
}

/// The search paths that all lookups share.
#[derive(Debug, Clone, Default)]
pub struct CommonPaths {
    /// LD_LIBRARY_PATH or `--library-path`; empty in secure execution.
    pub library_path: SearchList,
    /// The default directories ([`Layout::directories`](crate::search::path::Layout::directories)).
    pub default: SearchList,
    /// `--inhibit-cache`.
    pub inhibit_cache: bool,
}

/// Which part of the search order a candidate comes from. Displayed as LD_DEBUG=libs names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// DT_RPATH of the object at this position of the chain of loaders; the executable comes after the chain.
    Rpath(usize),
    /// LD_LIBRARY_PATH or `--library-path`.
    LibraryPath,
    /// DT_RUNPATH of the object that asks.
    Runpath,
    /// The default directories.
    Default,
}

/// The next thing to do in a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// Ask whether the directory in the buffer exists (stat(2), following symbolic links, and it must be a directory), and tell
    /// [`Lookup::answer`].
    Probe,
    /// The search comes to this directory, missing or not. Only who asks to be told of it is ([`Lookup::telling`]).
    Directory(DirectoryId),
    /// Try to open the file in the buffer.
    File {
        /// Where it comes from.
        source: Source,
        /// The directory of the search list.
        directory: DirectoryId,
    },
    /// Look the name up in `/etc/ld.so.cache`. If `no_default` an entry in a default directory does not count
    /// ([`Layout::covers`](crate::search::path::Layout::covers)).
    Cache {
        /// The asking object has DF_1_NODEFLIB.
        no_default: bool,
    },
}

/// The plan of one lookup. `chain` gives the asking object, the object that loaded it, and so on; it is empty when nobody
/// asks.
#[derive(Debug)]
pub struct Lookup<'p, C> {
    name: &'p [u8],
    asker: Option<&'p ObjectPaths>,
    executable: Option<&'p ObjectPaths>,
    executable_seen: bool,
    chain: C,
    common: &'p CommonPaths,
    stage: Stage,
    list: Listed<'p>,
    /// Position in the current list, and in the tree of subdirectories.
    position: usize,
    node: usize,
    /// Whether a candidate in the directory at that position has been considered.
    begun: bool,
    probe: Option<(DirectoryId, usize)>,
    uses_cache: bool,
    files_first: bool,
    tells: bool,
    /// A directory in which a file was tried without knowing whether there is such a directory.
    tried: Option<(DirectoryId, usize)>,
    /// Whether that ends the list if there is one.
    stuck: bool,
}

/// A list of directories, and where it is from.
type Listed<'p> = Option<(Source, &'p SearchList)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Rpath(usize),
    LibraryPath,
    Runpath,
    Cache,
    Default,
    Done,
}

impl<'p, C: Iterator<Item = &'p ObjectPaths> + Clone> Lookup<'p, C> {
    /// The plan for `name`, which has no slash. `executable` is the object whose DT_RPATH counts for everybody.
    pub fn new(name: &'p [u8], chain: C, executable: Option<&'p ObjectPaths>, common: &'p CommonPaths) -> Self {
        let asker = chain.clone().next();
        let uses_rpath = !asker.is_some_and(|asker| asker.has_runpath) || !holds(Rule::RunpathEndsRpath);
        Lookup {
            name,
            asker,
            executable,
            executable_seen: false,
            chain,
            common,
            stage: if uses_rpath { Stage::Rpath(0) } else { Stage::LibraryPath },
            list: None,
            position: 0,
            node: 0,
            begun: false,
            probe: None,
            uses_cache: !common.inhibit_cache,
            files_first: false,
            tells: false,
            tried: None,
            stuck: false,
        }
    }

    /// The plan as somebody sees it who is told of every file that is tried: in a directory that is not known yet the file comes first,
    /// and the question whether there is such a directory afterwards.
    #[must_use]
    pub fn files_first(mut self, yes: bool) -> Self {
        self.files_first = yes;
        self
    }

    /// The plan with a [`Candidate::Directory`] for each directory.
    #[must_use]
    pub fn telling(mut self, yes: bool) -> Self {
        self.tells = yes;
        self
    }

    /// The plan for a preloaded library in secure execution: no cache. (The caller opens only files with the set-user-ID bit.)
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.uses_cache = false;
        self
    }

    /// The next candidate, its path (no NUL) written to `buffer`. `None`: the library is not found.
    pub fn next(&mut self, directories: &mut Directories, buffer: &mut Vec<u8>) -> Option<Candidate> {
        loop {
            if let Some((source, list)) = self.list {
                match self.next_in(source, list, directories, buffer) {
                    Some(candidate) => return Some(candidate),
                    None => self.list = None,
                }
            }
            if self.stage == Stage::Done {
                return None;
            }
            if let Some(cache) = self.next_stage() {
                return Some(cache);
            }
        }
    }

    /// The answer to the [`Candidate::Probe`] that came last: the directory exists, or why not. As in glibc, a relative one that is anything
    /// but missing or inaccessible ends its list, as a file in it would that can't be opened for such a reason.
    pub fn answer(&mut self, directories: &mut Directories, answer: Result<(), Errno>) {
        if let Some((directory, node)) = self.probe.take() {
            directories.learn(directory, node, if answer.is_ok() { Presence::Present } else { Presence::Missing });
            let is_itself = directories.tree.get(node).is_some_and(|node| node.path.is_empty());
            let ends_list = match answer {
                Ok(()) => core::mem::take(&mut self.stuck),
                Err(Errno::NOENT | Errno::ACCESS) => false,
                Err(_) => is_itself && directories.is_relative(directory),
            };
            if ends_list {
                self.skip_list();
            }
        }
        self.stuck = false;
    }

    /// The answer to a [`Candidate::File`] that could not be opened for another reason than that there is none or that it may not be read:
    /// as in glibc, the rest of the list is left out if the directory is there, once its subdirectories have been searched too.
    pub fn unreachable(&mut self, directories: &Directories) {
        let is_last = !directories.tree.iter().skip(self.node).any(|node| node.searched);
        if is_last && self.tried.is_some() {
            self.stuck = true;
        } else if is_last {
            self.skip_list();
        }
    }

    /// The list that is being walked, from the directory on at which it has come, and where it comes from.
    pub fn list(&self) -> Option<(Source, &'p [DirectoryId])> {
        self.list.map(|(source, list)| (source, list.0.get(self.position..).unwrap_or_default()))
    }

    /// Leaves out the rest of the current list.
    fn skip_list(&mut self) {
        self.list = None;
        self.tried = None;
    }

    fn next_in(
        &mut self,
        source: Source,
        list: &SearchList,
        directories: &mut Directories,
        buffer: &mut Vec<u8>,
    ) -> Option<Candidate> {
        if let Some((directory, node)) = self.tried.take() {
            self.probe = Some((directory, node));
            directories.write(directory, node, buffer);
            return Some(Candidate::Probe);
        }
        while let Some(&directory) = list.0.get(self.position) {
            if !self.begun {
                directories.forget_if_relative(directory);
                self.begun = true;
                if self.tells {
                    return Some(Candidate::Directory(directory));
                }
            }
            while let Some(node) = directories.tree.get(self.node) {
                let searched = node.searched;
                if self.files_first {
                    let is_gone = |n: &usize| directories.presence(directory, *n) == Presence::Missing;
                    let presence = if node.ancestors.iter().any(is_gone) {
                        Presence::Missing
                    } else {
                        directories.presence(directory, self.node)
                    };
                    let tried = self.node;
                    self.node = self.node.saturating_add(1);
                    if !searched || presence == Presence::Missing {
                        continue;
                    }
                    directories.write(directory, tried, buffer);
                    buffer.extend_from_slice(self.name);
                    self.tried = (presence == Presence::Unknown).then_some((directory, tried));
                    return Some(Candidate::File { source, directory });
                }
                // The deepest directory is opened by trying the file in it, but asked for first: a miss in it must not be
                // tried again, and one that is missing spares all below it.
                let path = node.ancestors.iter().copied().chain(core::iter::once(self.node));
                let mut known = path.map(|n| (n, directories.presence(directory, n)));
                let obstacle = known.find(|&(_, presence)| presence != Presence::Present);
                match obstacle {
                    Some((unknown, Presence::Unknown)) if searched => {
                        self.probe = Some((directory, unknown));
                        directories.write(directory, unknown, buffer);
                        return Some(Candidate::Probe);
                    }
                    None if searched => {
                        directories.write(directory, self.node, buffer);
                        buffer.extend_from_slice(self.name);
                        self.node = self.node.saturating_add(1);
                        return Some(Candidate::File { source, directory });
                    }
                    _ => self.node = self.node.saturating_add(1),
                }
            }
            self.node = 0;
            self.begun = false;
            self.position = self.position.saturating_add(1);
        }
        None
    }

    /// Enters the next stage: gives it a list to walk, or the candidate that it consists of.
    fn next_stage(&mut self) -> Option<Candidate> {
        let list = match self.stage {
            Stage::Rpath(index) => return self.next_rpath(index),
            Stage::LibraryPath => {
                self.stage = Stage::Runpath;
                self.path_lists().0
            }
            Stage::Runpath => {
                self.stage = Stage::Cache;
                self.path_lists().1
            }
            Stage::Cache => {
                self.stage = Stage::Default;
                if self.uses_cache {
                    return Some(Candidate::Cache { no_default: self.no_default() });
                }
                None
            }
            Stage::Default => {
                self.stage = Stage::Done;
                (!self.no_default()).then_some((Source::Default, &self.common.default))
            }
            Stage::Done => None,
        };
        self.enter(list);
        None
    }

    /// `LD_LIBRARY_PATH` and `DT_RUNPATH`, in order.
    fn path_lists(&self) -> (Listed<'p>, Listed<'p>) {
        let library_path = Some((Source::LibraryPath, &self.common.library_path));
        let runpath = self.asker.map(|asker| (Source::Runpath, &asker.runpath));
        if holds(Rule::LibraryPathFirst) {
            (library_path, runpath)
        } else {
            (runpath, library_path)
        }
    }

    fn next_rpath(&mut self, index: usize) -> Option<Candidate> {
        let list = if let Some(object) = self.chain.next() {
            self.stage = Stage::Rpath(index.saturating_add(1));
            self.executable_seen |= self.executable.is_some_and(|executable| core::ptr::eq(executable, object));
            Some((Source::Rpath(index), &object.rpath))
        } else {
            self.stage = Stage::LibraryPath;
            let executable = self.executable.filter(|_| !self.executable_seen);
            executable.map(|executable| (Source::Rpath(index), &executable.rpath))
        };
        self.enter(list);
        None
    }

    fn enter(&mut self, list: Option<(Source, &'p SearchList)>) {
        self.list = list;
        self.position = 0;
        self.node = 0;
        self.begun = false;
    }

    fn no_default(&self) -> bool {
        self.asker.or(self.executable).is_some_and(|object| object.no_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::hwcaps::{Hwcaps, Machine};
    use std::string::{String, ToString};

    fn directories() -> Directories {
        let machine = Machine { isa_1: 3, platform: None, hwcap: 2, legacy_subdirectories: true, ..Machine::default() };
        Directories::new(&Hwcaps::new(machine, None, None))
    }

    /// Every step of the lookup of `x` in the library path: a probe ends with a slash.
    fn steps(directories: &mut Directories, common: &CommonPaths, exists: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lookup = Lookup::new(b"x", core::iter::empty(), None, common).without_cache();
        let mut buffer = Vec::new();
        let mut steps = Vec::new();
        while let Some(candidate) = lookup.next(directories, &mut buffer) {
            let path = String::from_utf8(buffer.clone()).unwrap();
            if candidate == Candidate::Probe {
                lookup.answer(directories, exists(&path).then_some(()).ok_or(Errno::NOENT));
            }
            steps.push(path);
        }
        steps
    }

    #[test]
    fn a_missing_directory_spares_all_below_it() {
        let mut directories = directories();
        let common =
            CommonPaths { library_path: directories.list([&b"/none"[..], b"/some"]), ..CommonPaths::default() };
        let exists = |path: &str| matches!(path, "/some/" | "/some/tls/");
        let first = steps(&mut directories, &common, exists);
        let expected = [
            "/none/",
            "/some/",
            "/some/glibc-hwcaps/",
            "/some/tls/",
            "/some/tls/x86_64/",
            "/some/tls/x",
            "/some/x86_64/",
            "/some/x",
        ];
        assert_eq!(first, expected);
        assert_eq!(steps(&mut directories, &common, exists), ["/some/tls/x", "/some/x"]);
    }

    #[test]
    fn who_watches_sees_a_file_in_every_directory_that_may_exist() {
        let mut directories = directories();
        let common = CommonPaths { library_path: directories.list([b"/a"]), ..CommonPaths::default() };
        let mut steps = || {
            let mut lookup = Lookup::new(b"x", core::iter::empty(), None, &common).without_cache().files_first(true);
            let (mut buffer, mut steps) = (Vec::new(), Vec::new());
            while let Some(candidate) = lookup.next(&mut directories, &mut buffer) {
                let path = String::from_utf8(buffer.clone()).unwrap();
                if candidate == Candidate::Probe {
                    let exists = path == "/a/" || path == "/a/tls/";
                    lookup.answer(&mut directories, exists.then_some(()).ok_or(Errno::NOENT));
                }
                steps.push(path);
            }
            steps
        };
        let all = steps();
        assert_eq!(all[..2], ["/a/glibc-hwcaps/x86-64-v2/x", "/a/glibc-hwcaps/x86-64-v2/"]);
        assert_eq!(all.iter().filter(|p| p.ends_with('x')).count(), 5);
        assert_eq!(steps(), ["/a/tls/x", "/a/x"]);
    }

    #[test]
    fn relative_directories_are_asked_for_anew() {
        let mut directories = directories();
        let common = CommonPaths { library_path: directories.list([&b""[..], b"a"]), ..CommonPaths::default() };
        let here = ["glibc-hwcaps/", "tls/", "x86_64/", "x", "a/"];
        assert_eq!(steps(&mut directories, &common, |_| false), here);
        let all = steps(&mut directories, &common, |_| true);
        assert!(all.contains(&"a/x".to_string()) && all.contains(&"tls/x86_64/x".to_string()));
        assert_eq!(steps(&mut directories, &common, |_| false), here);
    }

    #[test]
    fn a_skipped_list_is_left_at_once() {
        let mut directories = directories();
        let list = directories.list([&b"/a"[..], b"/b"]);
        let common = CommonPaths { library_path: list.clone(), default: list, ..CommonPaths::default() };
        let mut lookup = Lookup::new(b"x", core::iter::empty(), None, &common);
        let mut buffer = Vec::new();
        let mut sources = Vec::new();
        while let Some(candidate) = lookup.next(&mut directories, &mut buffer) {
            match candidate {
                Candidate::Probe => lookup.answer(&mut directories, Ok(())),
                Candidate::File { source, .. } => {
                    sources.push(source);
                    lookup.skip_list();
                }
                Candidate::Cache { no_default } => assert!(!no_default),
                Candidate::Directory(_) => unreachable!(),
            }
        }
        assert_eq!(sources, [Source::LibraryPath, Source::Default]);
    }

    #[test]
    fn runpath_of_the_asking_object_cancels_every_rpath() {
        let mut directories = directories();
        let executable = ObjectPaths { rpath: directories.list([b"/e"]), ..ObjectPaths::default() };
        let runpath = ObjectPaths { runpath: directories.list([b"/r"]), has_runpath: true, ..ObjectPaths::default() };
        let rpath = ObjectPaths { rpath: directories.list([b"/p"]), ..ObjectPaths::default() };
        let common = CommonPaths::default();
        let mut sources = |chain: &[&ObjectPaths]| {
            let mut lookup = Lookup::new(b"x", chain.iter().copied(), Some(&executable), &common);
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            while let Some(candidate) = lookup.next(&mut directories, &mut buffer) {
                match candidate {
                    Candidate::Probe => {
                        let exists = !buffer.ends_with(b"s/");
                        lookup.answer(&mut directories, exists.then_some(()).ok_or(Errno::NOENT));
                    }
                    Candidate::File { source, directory } if buffer.len() == 4 => {
                        found.push((source, directories.path(directory).to_vec()));
                    }
                    _ => {}
                }
            }
            found
        };
        assert_eq!(sources(&[&runpath, &executable]), [(Source::Runpath, b"/r/".to_vec())]);
        let through = [(Source::Rpath(0), b"/p/".to_vec()), (Source::Rpath(2), b"/e/".to_vec())];
        assert_eq!(sources(&[&rpath, &runpath, &executable]), through);
        assert_eq!(sources(&[&rpath, &runpath]), through, "the executable counts for everybody, once");
    }
}
