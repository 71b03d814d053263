//! Finds and opens the file that a name means, for the object that asks.

use crate::error::{LoadError, Lossy, Reason};
use crate::file::{self, OpenError, Opened};
use crate::memory;
use crate::object::{Kind, Object, ObjectId, ObjectTable};
use crate::rule::{holds, Rule};
use crate::search::cache_file::{MappedCache, CACHE_PATH};
use crate::search::directories::{Directories, DirectoryId, Mention, SearchList};
use crate::search::dst::{self, Tokens};
use crate::search::hwcaps::Hwcaps;
use crate::search::lookup::{Candidate, CommonPaths, Lookup, ObjectPaths, Source};
use crate::search::path::{self, Layout};
use crate::sys;
use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::CStr;
use goblin::elf64::dynamic::DF_1_NODEFLIB;
use rustix::io::Errno;

/// What is wrong with a file for 32-bit programs.
const WRONG_CLASS: &str = "wrong ELF class: ELFCLASS32";

/// What the user and the machine say about searching.
#[derive(Clone)]
pub struct SearchOptions {
    /// `LD_LIBRARY_PATH` or `--library-path`; `None` in secure execution.
    pub library_path: Option<Vec<u8>>,
    /// Which of the two it is, for messages.
    pub library_path_from: &'static str,
    /// `--inhibit-cache`
    pub inhibit_cache: bool,
    /// `--inhibit-rpath`
    pub inhibit_rpath: Option<Vec<u8>>,
    /// `AT_SECURE`
    pub secure: bool,
    /// The CPU's capabilities.
    pub hwcaps: Hwcaps<'static>,
    /// glibc's `_dl_platform`
    pub platform: Option<&'static [u8]>,
}

/// Where a name comes from that a [`Watcher`] is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is the name that was asked for.
    Asked,
    /// It is a path that is about to be tried, from that part of the search order.
    Path(Source),
    /// It is a path from the cache.
    Cache,
}

/// Is told of every name that is looked for, for which object, and of every path that is about to be tried for it. It answers with the
/// name to go on with, or `None` for one that is to count as missing.
pub type Watcher = fn(&[u8], ObjectId, Step) -> Option<Vec<u8>>;

/// Finds files; remembers what it learned about directories.
pub struct Finder {
    options: SearchOptions,
    watcher: Option<Watcher>,
    lends_runpath: bool,
    /// Whether the last file that was tried is not there; only kept when somebody watches.
    missed: Cell<bool>,
    directories: Directories,
    common: CommonPaths,
    layout: &'static Layout,
    cache: Option<MappedCache>,
    cache_asked: bool,
    paths: BTreeMap<ObjectId, ObjectPaths>,
    executable: Option<ObjectId>,
    library_path_ready: bool,
    /// Only the cache is asked, and nothing of it that is for some processors only.
    only_cache: bool,
    /// The error number that the last file left, `None` if it could be opened. As in glibc it is that of a search in which there is no file
    /// to be tried.
    left: Option<Errno>,
}

/// Why a search has found nothing.
struct Missed {
    /// A file for the other word size was met.
    wrong_class: bool,
    /// The error number of the last file that could not be opened; `None` if none was tried.
    errno: Option<Errno>,
}

/// A search path by its parts, in search order; the cache comes before the last. Paths are as in [`Finder::search_list`].
pub struct SearchParts {
    /// DT_RPATH.
    pub rpath: Vec<Vec<u8>>,
    /// LD_LIBRARY_PATH or `--library-path`.
    pub library_path: Vec<Vec<u8>>,
    /// DT_RUNPATH.
    pub runpath: Vec<Vec<u8>>,
    /// The default directories.
    pub default: Vec<Vec<u8>>,
}

/// Memory for the text of a name with its tokens replaced, and for some copies.
fn room_for_name(name: &[u8], tokens: &Tokens<'_>) -> usize {
    tokens.room_for(name).saturating_mul(8).saturating_add(memory::STEP)
}

/// Notes what names the directories of a list, for `LD_DEBUG=libs`.
fn mention(directories: &mut Directories, list: &SearchList, what: &'static str, object: Option<&[u8]>) {
    if log::log_enabled!(target: "libs", log::Level::Debug) {
        directories.mention(list, what, object);
    }
}

/// Names a file after `library`.
fn c_string(bytes: &[u8]) -> Result<CString, LoadError> {
    CString::new(bytes).map_err(|_| LoadError::system(bytes, "cannot open shared object file", Errno::NOENT))
}

impl Finder {
    /// A finder with nothing asked yet.
    pub fn new(options: SearchOptions) -> Finder {
        let layout = Layout::of_libc(b"");
        let mut directories = Directories::new(&options.hwcaps);
        let common = CommonPaths {
            library_path: Default::default(),
            default: directories.list(layout.directories),
            inhibit_cache: options.inhibit_cache,
        };
        Finder {
            options,
            watcher: None,
            lends_runpath: false,
            missed: Cell::new(false),
            directories,
            common,
            layout,
            cache: None,
            cache_asked: false,
            paths: BTreeMap::new(),
            executable: None,
            library_path_ready: false,
            only_cache: false,
            left: None,
        }
    }

    /// A finder that knows no directories, only the cache, and of that no glibc-hwcaps: as glibc looks for a program.
    pub fn of_cache(options: SearchOptions) -> Finder {
        let mut finder = Finder::new(SearchOptions { library_path: None, ..options });
        finder.common.default = SearchList::default();
        finder.only_cache = true;
        finder
    }

    /// The directories in which a library that `id` needs is searched, in order; the cache, which is asked before the default directories,
    /// is none. Paths end with a slash, but for the empty one of the working directory. As in glibc, an object's own list is left
    /// out once it is known that none of its directories exists.
    pub fn search_list(&mut self, id: ObjectId, objects: &ObjectTable) -> Vec<Vec<u8>> {
        let executable = objects.iter().find(|(_, o)| o.kind == Kind::Executable).map(|(id, _)| id);
        self.prepare(Some(id), executable, objects);
        let mut lists: Vec<&SearchList> = Vec::new();
        let exists = |list: &&SearchList| list.directories().any(|directory| !self.directories.is_missing(directory));
        let own = self.paths.get(&id);
        if !own.is_some_and(|paths| paths.has_runpath) {
            let chain: Vec<ObjectId> = core::iter::successors(Some(id), |id| objects[*id].loader).collect();
            let last = executable.filter(|id| !chain.contains(id));
            let paths = chain.iter().chain(&last).filter_map(|id| self.paths.get(id));
            lists.extend(paths.map(|paths| &paths.rpath).filter(exists));
        }
        lists.push(&self.common.library_path);
        lists.extend(own.map(|paths| &paths.runpath).filter(exists));
        if !own.is_some_and(|paths| paths.no_default) {
            lists.push(&self.common.default);
        }
        lists.into_iter().flat_map(SearchList::directories).map(|d| self.directories.path(d).to_vec()).collect()
    }

    /// The search path of a program by its parts, for those who want to show it: as [`Finder::search_list`], but with what is known to be
    /// missing. Without a program there are no paths of its own.
    pub fn search_parts(&mut self, program: Option<ObjectId>, objects: &ObjectTable) -> SearchParts {
        self.prepare(program, program, objects);
        let own = program.and_then(|id| self.paths.get(&id));
        let paths = |list: &SearchList| list.directories().map(|d| self.directories.path(d).to_vec()).collect();
        SearchParts {
            rpath: own.filter(|own| !own.has_runpath).map_or_else(Vec::new, |own| paths(&own.rpath)),
            library_path: paths(&self.common.library_path),
            runpath: own.map_or_else(Vec::new, |own| paths(&own.runpath)),
            default: paths(&self.common.default),
        }
    }

    /// Gives back what only a transaction needs: the mapped cache. The next one looks at the file anew, which may have changed.
    pub fn rest(&mut self) {
        self.lends_runpath = false;
        self.cache = None;
        self.cache_asked = false;
    }

    /// The levels of the CPU, as the bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`.
    pub fn isa_1(&self) -> u32 {
        self.options.hwcaps.isa_1()
    }

    /// From now on `watcher` is told of every name.
    pub fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Whether somebody is told of every name.
    pub fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// Forgets which error number the last file has left behind: as in glibc when a closure begins.
    pub fn forget_errno(&mut self) {
        self.left = None;
    }

    /// Whether the executable's DT_RUNPATH is searched for everybody, as its DT_RPATH is: until the finder rests.
    pub fn lend_runpath(&mut self, yes: bool) {
        self.lends_runpath = yes;
    }

    /// The text of a name with its tokens replaced, for `object`; `None` if they have no value or may not be used.
    pub fn expand<'n>(&self, name: &'n [u8], object: &Object) -> Option<Cow<'n, [u8]>> {
        dst::expand(name, &self.tokens(Some(object), [name]))
    }

    /// Makes sure of the memory for that text, and for some copies.
    ///
    /// # Errors
    /// There is none.
    pub fn make_room(&self, name: &[u8], object: &Object) -> Result<(), Reason> {
        memory::ensure_with(|| room_for_name(name, &self.tokens(Some(object), [name])))
    }

    /// Whether secure execution refuses a name that an object asks for: one with a token.
    pub fn refuses(&self, name: &[u8]) -> bool {
        self.options.secure && dst::has_token(name)
    }

    /// Moves what has been learned in a transaction which failed out of the memory that this one took.
    pub fn renew(&mut self) {
        self.directories = self.directories.clone();
        self.common = self.common.clone();
        self.paths = self.paths.iter().map(|(id, paths)| (*id, paths.clone())).collect();
    }

    /// Drops what is remembered of an object that is unloaded.
    pub fn forget(&mut self, id: ObjectId) {
        self.paths.remove(&id);
    }

    /// Opens the file that `name` means for `asker` (for nobody: a preload or a program named on the command line).
    ///
    /// # Errors
    /// No such file, or the first one found is broken.
    pub fn open(&mut self, name: &[u8], asker: Option<ObjectId>, objects: &ObjectTable) -> Result<Opened, LoadError> {
        let found = self.find(name, asker, objects);
        self.left = found.as_ref().err().and_then(|error| error.errno);
        found
    }

    fn find(&mut self, name: &[u8], asker: Option<ObjectId>, objects: &ObjectTable) -> Result<Opened, LoadError> {
        let executable = objects.iter().find(|(_, o)| o.kind == Kind::Executable).map(|(id, _)| id);
        self.executable = executable;
        // As in glibc the message has no name: there is none any more.
        let missing = || LoadError::fault(b"", "cannot open shared object file");
        let renamed = match (self.watcher, asker) {
            (Some(watcher), Some(id)) => Some(watcher(name, id, Step::Asked).ok_or_else(missing)?),
            _ => None,
        };
        let name = renamed.as_deref().unwrap_or(name);
        if name.contains(&b'/') {
            let tokens = self.tokens(asker.or(executable).map(|id| &objects[id]), [name]);
            memory::ensure_with(|| room_for_name(name, &tokens))
                .map_err(|_| LoadError::system(name, "cannot open shared object file", Errno::NOMEM))?;
            let Some(path) = dst::expand(name, &tokens) else {
                // As glibc, which opens a file with an empty name.
                return Err(LoadError::system(name, "cannot open shared object file", Errno::NOENT));
            };
            return file::open(c_string(&path)?).map_err(|error| match error {
                OpenError::Broken(error) => error,
                // As in glibc under the name that was asked for, with its tokens.
                OpenError::Unsuitable(error) | OpenError::Unreachable(error) => {
                    LoadError { object: memory::copy_of(name), ..error }
                }
            });
        }
        log::debug!(target: "libs", "find library={} [{}]; searching", Lossy(name), asker.map_or(0, |id| objects[id].namespace.0));
        self.search(name, asker, objects, false)
    }

    /// Opens the preload `name`, which has no slash, in secure execution: the cache is not asked, and only files with the set-user-ID bit
    /// count.
    ///
    /// # Errors
    /// No such file, or the first one found is broken.
    pub fn open_privileged(&mut self, name: &[u8], main: ObjectId, objects: &ObjectTable) -> Result<Opened, LoadError> {
        self.executable = Some(main);
        self.search(name, Some(main), objects, true)
    }

    fn search(
        &mut self,
        name: &[u8],
        asker: Option<ObjectId>,
        objects: &ObjectTable,
        privileged: bool,
    ) -> Result<Opened, LoadError> {
        self.make_room_for_paths(asker, objects)?;
        self.prepare(asker, self.executable, objects);
        let found = self.walk(name, asker, objects, privileged)?;
        log::debug!(target: "libs", "");
        match found {
            Ok(opened) => Ok(opened),
            Err(Missed { wrong_class: true, .. }) => Err(LoadError::fault(name, WRONG_CLASS)),
            Err(Missed { errno, .. }) => {
                let errno = errno.or(self.left);
                Err(LoadError { errno, ..LoadError::fault(name, "cannot open shared object file") })
            }
        }
    }

    /// What the tokens in these texts stand for. Where there are none, nobody asks what `$ORIGIN` is.
    fn tokens<'t, 's>(&self, object: Option<&'t Object>, texts: impl IntoIterator<Item = &'s [u8]>) -> Tokens<'t> {
        let wanted = texts.into_iter().any(|text| text.contains(&b'$'));
        Tokens {
            origin: object.filter(|_| wanted && holds(Rule::OriginExpanded)).and_then(|o| o.origin.get()),
            platform: self.options.platform,
            layout: self.layout,
            secure: self.options.secure,
            executable: object.is_some_and(|o| o.kind == Kind::Executable),
        }
    }

    /// Makes the search paths of the asking object and of everybody who led to it.
    fn prepare(&mut self, asker: Option<ObjectId>, executable: Option<ObjectId>, objects: &ObjectTable) {
        let is_first = !core::mem::replace(&mut self.library_path_ready, true);
        if is_first {
            mention(&mut self.directories, &self.common.default, "system search path", None);
        }
        if let Some(id) = executable {
            self.prepare_object(id, &objects[id]);
        }
        let list = if is_first { self.options.library_path.clone() } else { None };
        if let Some(list) = list.filter(|list| !list.is_empty()) {
            let tokens = self.tokens(executable.map(|id| &objects[id]), [list.as_slice()]);
            self.common.library_path = self.directories.library_path(&list, &tokens);
            let from = self.options.library_path_from;
            mention(&mut self.directories, &self.common.library_path, from, None);
        }
        let mut next = asker;
        while let Some(id) = next {
            self.prepare_object(id, &objects[id]);
            next = objects[id].loader;
        }
    }

    /// Makes sure of the memory for the search paths that are not made yet.
    fn make_room_for_paths(&self, asker: Option<ObjectId>, objects: &ObjectTable) -> Result<(), LoadError> {
        for id in core::iter::successors(asker, |id| objects[*id].loader).filter(|id| !self.paths.contains_key(id)) {
            let object = &objects[id];
            let lists = [object.dynamic.rpath, object.dynamic.runpath];
            let paths = lists.into_iter().flatten().filter_map(|at| object.symbols.string(at));
            let tokens = self.tokens(Some(object), paths.clone());
            let room = || {
                paths
                    .map(|path| self.directories.room_for_rpath(path, &tokens))
                    .fold(memory::STEP, usize::saturating_add)
            };
            let what = "cannot create RUNPATH/RPATH copy";
            memory::ensure_with(room).map_err(|_| LoadError::system(object.display_name(), what, Errno::NOMEM))?;
        }
        Ok(())
    }

    fn prepare_object(&mut self, id: ObjectId, object: &Object) {
        if self.paths.contains_key(&id) {
            return;
        }
        let dynamic = &object.dynamic;
        let inhibited = self
            .options
            .inhibit_rpath
            .as_deref()
            .is_some_and(|list| path::inhibits_rpath(list, object.name.to_bytes()));
        let texts = [dynamic.rpath, dynamic.runpath].into_iter().flatten().filter_map(|at| object.symbols.string(at));
        let tokens = self.tokens(Some(object), texts);
        let mut list = |at: Option<u64>| {
            let string = at.and_then(|at| object.symbols.string(at)).filter(|_| !inhibited);
            string.map_or_else(SearchList::default, |path| self.directories.rpath(path, &tokens))
        };
        let rpath = if dynamic.runpath.is_none() || !holds(Rule::RunpathEndsRpath) {
            list(dynamic.rpath)
        } else {
            Default::default()
        };
        let runpath = list(dynamic.runpath);
        mention(&mut self.directories, &rpath, "RPATH", Some(object.display_name()));
        mention(&mut self.directories, &runpath, "RUNPATH", Some(object.display_name()));
        let paths = ObjectPaths {
            rpath,
            runpath,
            has_runpath: dynamic.runpath.is_some(),
            no_default: dynamic.has_flag_1(DF_1_NODEFLIB) && holds(Rule::NoDefaultDirectories),
        };
        self.paths.insert(id, paths);
    }

    /// Tells `LD_DEBUG=libs` which directories come next, the first of which is `directory`, and what has named that: as in glibc where
    /// it was first named.
    fn log_list(&self, list: &[DirectoryId], directory: DirectoryId) {
        let directories = self.directories.shown(list);
        let directories = Lossy(&directories);
        let Some(Mention { what, object }) = self.directories.named_by(directory) else { return };
        match object {
            Some(object) => {
                log::debug!(target: "libs", " search path={directories}\t\t({what} from file {})", Lossy(object));
            }
            None => log::debug!(target: "libs", " search path={directories}\t\t({what})"),
        }
    }

    /// Walks the search order.
    fn walk(
        &mut self,
        name: &[u8],
        asker: Option<ObjectId>,
        objects: &ObjectTable,
        privileged: bool,
    ) -> Result<Result<Opened, Missed>, LoadError> {
        let mut missed = Missed { wrong_class: false, errno: None };
        let chain = core::iter::successors(asker, |id| objects[*id].loader.filter(|_| holds(Rule::RpathInherited)));
        let chain = chain.filter_map(|id| self.paths.get(&id));
        let executable = self.executable.and_then(|id| self.paths.get(&id));
        let lent = executable
            .filter(|paths| self.lends_runpath && paths.has_runpath)
            .map(|paths| ObjectPaths { rpath: paths.runpath.clone(), ..paths.clone() });
        let mut lookup =
            Lookup::new(name, chain, lent.as_ref().or(executable), &self.common).files_first(self.watcher.is_some());
        lookup = lookup.telling(log::log_enabled!(target: "libs", log::Level::Debug));
        if privileged {
            lookup = lookup.without_cache();
        }
        let mut buffer = Vec::with_capacity(128);
        let mut shown = None;
        while let Some(candidate) = lookup.next(&mut self.directories, &mut buffer) {
            let path = match candidate {
                Candidate::Directory(directory) => {
                    let Some((source, list)) = lookup.list() else { continue };
                    let what = self.directories.named_by(directory).map(|mention| mention.what);
                    // As glibc, which forgets a list of nothing but missing directories, unless it is this one.
                    let counts =
                        source == Source::LibraryPath || !list.iter().all(|id| self.directories.is_missing(*id));
                    if shown.replace((source, what)) != Some((source, what)) && counts {
                        self.log_list(list, directory);
                    }
                    continue;
                }
                Candidate::Probe => {
                    let answer = check_directory(&c_string(&buffer)?);
                    missed.errno = answer.err().or(missed.errno);
                    lookup.answer(&mut self.directories, answer);
                    continue;
                }
                Candidate::Cache { no_default } => {
                    log::debug!(target: "libs", " search cache={}", Lossy(CACHE_PATH.to_bytes()));
                    if !core::mem::replace(&mut self.cache_asked, true) {
                        let hwcaps = (!self.only_cache).then_some(&self.options.hwcaps);
                        self.cache = MappedCache::open(hwcaps).unwrap_or_else(|errno| {
                            missed.errno = Some(errno);
                            None
                        });
                    }
                    let found = self.cache.as_ref().and_then(|cache| cache.look_up(name, &self.options.hwcaps));
                    let Some(path) = found else { continue };
                    if no_default && self.layout.covers(&path) {
                        log::debug!(target: "libs", "  trying file={}", Lossy(&path));
                        continue;
                    }
                    (c_string(&path)?, Step::Cache)
                }
                Candidate::File { source, .. } => (c_string(&buffer)?, Step::Path(source)),
            };
            let (path, step) = path;
            log::debug!(target: "libs", "  trying file={}", Lossy(path.to_bytes()));
            match self.try_file(path, asker.or(self.executable), step)? {
                Ok(opened) if privileged && !opened.status.set_user_id => {}
                Ok(opened) => return Ok(Ok(opened)),
                Err(OpenError::Unsuitable(error)) => {
                    missed.wrong_class |= error.reason == Reason::Fault(WRONG_CLASS);
                    missed.errno = error.errno;
                }
                Err(OpenError::Unreachable(error)) => {
                    missed.errno = error.errno;
                    lookup.unreachable(&self.directories);
                }
                Err(OpenError::Broken(error)) => return Err(error),
            }
        }
        Ok(Err(missed))
    }

    /// Opens a file of the search order, or the one that the watcher puts in its place, which then goes by the name of the first.
    fn try_file(
        &self,
        path: CString,
        asker: Option<ObjectId>,
        step: Step,
    ) -> Result<Result<Opened, OpenError>, LoadError> {
        let (Some(watcher), Some(asker)) = (self.watcher, asker) else {
            return Ok(file::open(path));
        };
        let Some(chosen) = watcher(path.to_bytes(), asker, step) else {
            let missing = LoadError::system(path.to_bytes(), "cannot open shared object file", Errno::NOENT);
            // In glibc what decides is the error number that the last file has left behind: none if it was opened.
            let error =
                if self.missed.get() { OpenError::Unsuitable(missing) } else { OpenError::Unreachable(missing) };
            return Ok(Err(error));
        };
        let opened = file::open(c_string(&chosen)?);
        self.missed.set(opened.is_err());
        Ok(opened.map(|opened| Opened { path, ..opened }))
    }
}

/// Whether there is a directory, and if not, why.
fn check_directory(path: &CStr) -> Result<(), Errno> {
    match sys::is_directory(path)? {
        true => Ok(()),
        false => Err(Errno::NOTDIR),
    }
}

/// The directory of an object's file, as `$ORIGIN` means it: absolute, without resolving links.
pub fn origin_of(path: &[u8]) -> Option<Vec<u8>> {
    let directory = match path.iter().rposition(|&b| b == b'/') {
        Some(0) => &path[..1],
        Some(slash) => &path[..slash],
        None => &[][..],
    };
    if directory.first() == Some(&b'/') {
        return Some(directory.to_vec());
    }
    in_current_directory(directory)
}

/// A relative directory as an absolute one. Its buffer is a page, which those who need none do not touch.
#[cold]
#[inline(never)]
fn in_current_directory(directory: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    let mut origin = sys::current_directory(&mut buffer).ok()?.to_vec();
    if !directory.is_empty() {
        if origin.last() != Some(&b'/') {
            origin.push(b'/');
        }
        origin.extend_from_slice(directory);
    }
    Some(origin)
}
