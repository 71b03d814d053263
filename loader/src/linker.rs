//! All that is loaded, and transactions on it.

use crate::addr::Addr;
use crate::elf::dynamic::{self, DependencyKind};
use crate::error::{LoadError, Lossy, Reason};
use crate::file::{self, Occasion, Opened};
use crate::lookup::UniqueSymbols;
use crate::memory;
use crate::object::{Kind, NamespaceId, Object, ObjectId, ObjectTable, OriginDirectory, BASE_NAMESPACE};
use crate::order::Algorithm;
use crate::seal::tunables::ImageMemory;
use crate::search::finder::{self, Finder};
use crate::sys;
use crate::tls::TlsState;
use alloc::boxed::Box;
use alloc::vec::Vec;
use rustix::io::Errno;

/// A namespace of `dlmopen`: a list of objects that do not see those of other namespaces.
#[derive(Default)]
pub struct Namespace {
    /// Its objects in the order of loading, as debuggers and `dl_iterate_phdr` see them.
    pub list: Vec<ObjectId>,
    /// Where everybody looks first.
    pub global_scope: Vec<ObjectId>,
    /// `STB_GNU_UNIQUE` symbols in use.
    pub unique: UniqueSymbols,
}

/// All objects of the process, by namespace.
pub struct Linker {
    /// The objects.
    pub objects: ObjectTable,
    /// The namespaces, by [`NamespaceId`].
    pub namespaces: Vec<Namespace>,
    /// By TLS module id less one: whose it is.
    pub tls_modules: Vec<Option<ObjectId>>,
    /// What a mere listing could not find, with the number of objects that precede it; `None` when that is an error.
    pub missing: Option<Vec<(usize, Vec<u8>)>>,
    /// What memory libraries are mapped in.
    pub memory: ImageMemory,
    /// How constructors and destructors are brought into order.
    pub algorithm: Algorithm,
}

/// What a transaction has added so far. It must be committed or rolled back.
pub struct Transaction {
    /// The namespace it works in.
    pub namespace: NamespaceId,
    /// The objects it has added, in order.
    pub added: Vec<ObjectId>,
    /// Whether it has let the interpreter into the namespace.
    pub stood_in: bool,
    /// What its files are loaded for.
    pub occasion: Occasion,
}

impl Default for Linker {
    fn default() -> Self {
        Self::new()
    }
}

impl Linker {
    /// Nothing loaded, one namespace.
    pub fn new() -> Linker {
        Linker {
            objects: ObjectTable::new(),
            namespaces: alloc::vec![Namespace::default()],
            tls_modules: Vec::new(),
            missing: None,
            memory: ImageMemory::File,
            algorithm: Algorithm::default(),
        }
    }

    /// A namespace.
    pub fn namespace(&self, id: NamespaceId) -> &Namespace {
        &self.namespaces[usize::from(id.0)]
    }

    /// A namespace, for changing.
    pub fn namespace_mut(&mut self, id: NamespaceId) -> &mut Namespace {
        &mut self.namespaces[usize::from(id.0)]
    }

    /// The object of a namespace that answers to a name.
    pub fn find_by_name(&self, namespace: NamespaceId, name: &[u8]) -> Option<ObjectId> {
        self.namespace(namespace).list.iter().copied().find(|&id| self.objects[id].answers_to(name))
    }

    /// The first namespace that nothing is loaded into, made if need be; `None` when there are `limit` of them and all are in use.
    pub fn free_namespace(&mut self, limit: usize) -> Option<NamespaceId> {
        let taken = |n: &&Namespace| !n.list.is_empty();
        let free = self.namespaces.iter().skip(1).take_while(taken).count() + 1;
        let id = u8::try_from(free).ok().filter(|_| free < limit).map(NamespaceId)?;
        if free == self.namespaces.len() {
            self.namespaces.push(Namespace::default());
        }
        Some(id)
    }

    /// Whether something is loaded into a namespace.
    pub fn is_in_use(&self, id: NamespaceId) -> bool {
        self.namespaces.get(usize::from(id.0)).is_some_and(|n| !n.list.is_empty())
    }

    /// Takes the interpreter out of the namespaces where nobody needs it any more, and forgets the last namespaces as long as they are
    /// empty; those that are not as they were.
    pub fn tidy_namespaces(&mut self) -> Vec<NamespaceId> {
        let mut changed = Vec::new();
        for (index, namespace) in self.namespaces.iter_mut().enumerate().skip(1) {
            let objects = &self.objects;
            let stands_in = |id: ObjectId| objects[id].kind == Kind::Interpreter;
            let needed = |id: &ObjectId| objects[*id].needed.iter().any(|n| stands_in(*n));
            if namespace.list.iter().any(|id| stands_in(*id)) && !namespace.list.iter().any(needed) {
                namespace.list.retain(|id| !stands_in(*id));
                namespace.global_scope.retain(|id| !stands_in(*id));
                changed.push(NamespaceId(index as u8));
            }
        }
        while self.namespaces.len() > 1 && self.namespaces.last().is_some_and(|n| n.list.is_empty()) {
            self.namespaces.pop();
        }
        changed
    }

    /// The interpreter, if `name` means it and the namespace is not the program's: there can be one only, so the others have it from there.
    fn stand_in(&self, namespace: NamespaceId, name: &[u8]) -> Option<ObjectId> {
        if namespace == BASE_NAMESPACE {
            return None;
        }
        let is_meant = |o: &Object| o.kind == Kind::Interpreter && o.answers_to(name);
        self.objects.iter().find(|(_, o)| is_meant(o)).map(|(id, _)| id)
    }

    /// The object in whose segments an address lies.
    pub fn find_by_address(&self, addr: Addr) -> Option<ObjectId> {
        self.objects.iter().find(|(_, o)| o.image.contains(addr)).map(|(id, _)| id)
    }

    /// Adds an object to the namespace of a transaction, and gives it a TLS module id if it has TLS.
    pub fn add(&mut self, transaction: &mut Transaction, mut object: Box<Object>) -> ObjectId {
        object.namespace = transaction.namespace;
        let has_tls = object.tls.is_some();
        let id = self.objects.add(object);
        if has_tls {
            let module = self.claim_tls_module(id);
            self.objects[id].tls_state.set(TlsState::Undecided { module });
        }
        self.namespace_mut(transaction.namespace).list.push(id);
        transaction.added.push(id);
        id
    }

    fn claim_tls_module(&mut self, id: ObjectId) -> usize {
        match self.tls_modules.iter().position(Option::is_none) {
            Some(free) => {
                self.tls_modules[free] = Some(id);
                free + 1
            }
            None => {
                self.tls_modules.push(Some(id));
                self.tls_modules.len()
            }
        }
    }

    /// The object that `name` means for `asker`, loading its file if it is not loaded yet.
    pub fn require(
        &mut self,
        transaction: &mut Transaction,
        finder: &mut Finder,
        name: &[u8],
        asker: Option<ObjectId>,
    ) -> Result<ObjectId, LoadError> {
        if let Some(id) = self.find_by_name(transaction.namespace, name) {
            return Ok(id);
        }
        if let Some(id) = self.stand_in(transaction.namespace, name) {
            if finder.is_watched() {
                // It need not be found; but who watches is to see that it is looked for.
                let _ = finder.open(name, asker, &self.objects);
            }
            self.namespace_mut(transaction.namespace).list.push(id);
            transaction.stood_in = true;
            return Ok(id);
        }
        let opened = finder.open(name, asker, &self.objects)?;
        self.adopt(transaction, opened, name, asker)
    }

    /// Loads an opened file, unless the same file is loaded in the namespace under another name.
    pub fn adopt(
        &mut self,
        transaction: &mut Transaction,
        opened: Opened,
        name: &[u8],
        asker: Option<ObjectId>,
    ) -> Result<ObjectId, LoadError> {
        let same = |id: &ObjectId| self.objects[*id].file == Some(opened.status.id);
        if let Some(id) = self.namespace(transaction.namespace).list.iter().copied().find(same) {
            self.objects[id].add_alias(name);
            return Ok(id);
        }
        let at = transaction.namespace.0;
        // Each header becomes a segment, and that up to three regions of the plan.
        let headers = opened.headers.len().saturating_mul(HEADER_ROOM);
        memory::ensure(headers.saturating_add(memory::STEP)).map_err(|_| no_memory(name))?;
        log::debug!(target: "files", "file={} [{at}];  generating link map", Lossy(name));
        let mut object = file::load(opened, Kind::Library, name, self.memory, transaction.occasion)?;
        object.log_place();
        object.origin = OriginDirectory::known(finder::origin_of(object.name.to_bytes()));
        object.loader = asker;
        object.add_alias(name);
        object.asked = Some(name.to_vec());
        Ok(self.add(transaction, object))
    }

    /// Loads what `roots` need, breadth first: the roots themselves, then their closure, each object once.
    pub fn closure(
        &mut self,
        transaction: &mut Transaction,
        finder: &mut Finder,
        roots: &[ObjectId],
    ) -> Result<Vec<ObjectId>, LoadError> {
        let mut walk = Walk::new(roots, finder);
        while walk.next(self, transaction, finder)?.is_some() {}
        Ok(walk.closure())
    }

    /// An object and all that it needs, breadth first: the order in which they are searched.
    pub fn closure_of(&self, root: ObjectId) -> Vec<ObjectId> {
        let mut walk = BreadthFirst::new(&[root]);
        while let Some(id) = walk.next() {
            walk.expand(&self.objects[id]);
        }
        walk.list
    }

    /// Moves a filtee in the list of its namespace before the filter, as glibc does.
    ///
    /// What is missing keeps its neighbours, but for the filter's own filtees (`own`, by their places in [`Linker::missing`]), which stand
    /// right already.
    fn list_before(&mut self, namespace: NamespaceId, filtee: ObjectId, filter: ObjectId, own: &[usize]) {
        let list = &mut self.namespace_mut(namespace).list;
        // The head of the list is the program.
        if list.first() == Some(&filter) {
            return;
        }
        let from = list.iter().position(|&id| id == filtee);
        list.retain(|&id| id != filtee);
        let at = list.iter().position(|&id| id == filter).unwrap_or(list.len());
        list.insert(at, filtee);
        let missing = self.missing.iter_mut().flatten().enumerate();
        for (_, (place, _)) in missing.filter(|(index, _)| !own.contains(index)) {
            *place -= usize::from(from.is_some_and(|from| from < *place));
            *place += usize::from(*place > at);
        }
    }

    /// Loads what an object needs by the entry at a place of its list.
    fn load_needed(
        &mut self,
        transaction: &mut Transaction,
        finder: &mut Finder,
        id: ObjectId,
        at: usize,
        so_far: &mut Dependencies,
    ) -> Result<(), LoadError> {
        let object = &self.objects[id];
        let Some(&dynamic::Dependency { name, kind }) = object.dynamic.needed.get(at) else {
            return Ok(());
        };
        let name = object.symbols.string(name).ok_or_else(|| {
            let what = "DT_NEEDED outside the string table";
            LoadError::new(object.display_name(), Reason::Malformed { what, at: name })
        })?;
        if finder.refuses(name) {
            return Err(LoadError::fault(name, "DST not allowed in SUID/SGID programs"));
        }
        finder.make_room(name, object).map_err(|_| no_memory(name))?;
        let Some(expanded) = finder.expand(name, object) else {
            if kind == DependencyKind::Auxiliary {
                let name = Lossy(name);
                log::debug!(target: "libs", "cannot load auxiliary `{name}' because of empty dynamic string token substitution\n");
                return Ok(());
            }
            return Err(LoadError::fault(name, "empty dynamic string token substitution"));
        };
        memory::ensure_for_name(&expanded).map_err(|_| no_memory(&expanded))?;
        let is_new = self.find_by_name(transaction.namespace, &expanded).is_none();
        log_dependency(object, kind, &expanded, is_new);
        match self.require(transaction, finder, &expanded, Some(id)) {
            Ok(dependency) => {
                memory::push(&mut so_far.needed, dependency).map_err(|_| no_memory(&expanded))?;
                if kind != DependencyKind::Needed {
                    memory::push(&mut so_far.filtees, dependency).map_err(|_| no_memory(&expanded))?;
                }
            }
            Err(error) => {
                let list = &self.namespace(transaction.namespace).list;
                // Filtees will stand before their filter.
                let filter = list.iter().position(|&known| known == id).filter(|_| kind != DependencyKind::Needed);
                let place = filter.map_or(list.len(), |at| at + so_far.filtees.len());
                let outcome = self.tolerate(place, &expanded, error);
                if let (Some(_), Some(missing), true) = (filter, &self.missing, outcome.is_ok()) {
                    so_far.missing.push(missing.len() - 1);
                }
                if kind != DependencyKind::Auxiliary {
                    outcome?;
                }
            }
        }
        Ok(())
    }

    /// Lets a listing go on without an object that is not there, which `place` others precede.
    fn tolerate(&mut self, place: usize, name: &[u8], error: LoadError) -> Result<(), LoadError> {
        match &mut self.missing {
            Some(missing) if error.is_absence() => missing.push((place, name.to_vec())),
            _ => return Err(error),
        }
        Ok(())
    }

    /// Moves what stays of a transaction that failed out of the memory that this one took ([`memory::renew`]).
    pub fn renew(&mut self) {
        self.objects.renew();
        memory::renew(&mut self.namespaces);
        memory::renew(&mut self.tls_modules);
        for namespace in &mut self.namespaces {
            memory::renew(&mut namespace.list);
            memory::renew(&mut namespace.global_scope);
            let unique = core::mem::take(namespace.unique.get_mut());
            *namespace.unique.get_mut() = unique.into_iter().map(|(name, at)| (name.as_slice().to_vec(), at)).collect();
        }
    }

    /// Takes an object out of all lists and unmaps it.
    pub fn unload(&mut self, id: ObjectId) {
        if let Some(object) = self.forget(id) {
            let range = object.image.range.clone();
            drop(object);
            // SAFETY: the object is gone from every list, so nothing refers to its image any more.
            if let Err(errno) = unsafe { sys::unmap(range) } {
                log::warn!("cannot unmap an object: {}", crate::errno::text(errno));
            }
        }
    }

    /// Takes an object out of all lists.
    pub fn forget(&mut self, id: ObjectId) -> Option<Box<Object>> {
        let namespace = self.objects[id].namespace;
        let namespace = self.namespace_mut(namespace);
        namespace.list.retain(|&o| o != id);
        namespace.global_scope.retain(|&o| o != id);
        namespace.unique.borrow_mut().retain(|_, definition| definition.object != id);
        for module in self.tls_modules.iter_mut().filter(|m| **m == Some(id)) {
            *module = None;
        }
        while self.tls_modules.last() == Some(&None) {
            self.tls_modules.pop();
        }
        for survivor in self.objects.iter_mut().filter(|o| o.loader == Some(id)) {
            survivor.loader = None;
        }
        self.objects.remove(id)
    }
}

/// Memory for what is made of one program header.
const HEADER_ROOM: usize = 1024;

/// Memory for linking objects among so many: scopes, which every object may have one of, and what calls are looked up in, which is
/// made anew while the old one is there.
pub fn room_to_link(objects: usize) -> usize {
    const OF_EACH: usize = 1024;
    const OF_PAIR: usize = 16;
    let pairs = objects.saturating_mul(objects).saturating_mul(OF_PAIR);
    objects.saturating_mul(OF_EACH).saturating_add(pairs).saturating_add(memory::STEP)
}

/// What glibc says where it has no memory for an object.
fn no_memory(name: &[u8]) -> LoadError {
    LoadError::system(name, "cannot create shared object descriptor", Errno::NOMEM)
}

/// What an object needs, as far as it is loaded.
#[derive(Default)]
struct Dependencies {
    needed: Vec<ObjectId>,
    /// Those of them that are filtees.
    filtees: Vec<ObjectId>,
    /// Where in [`Linker::missing`] the filtees are that a listing has not found.
    missing: Vec<usize>,
}

fn log_dependency(object: &Object, kind: DependencyKind, name: &[u8], is_new: bool) {
    let (shown, by, at) = (Lossy(name), Lossy(object.display_name()), object.namespace.0);
    match kind {
        DependencyKind::Needed => {}
        DependencyKind::Auxiliary => {
            log::debug!(target: "libs", "load auxiliary object={shown} requested by file={by}");
        }
        DependencyKind::Filter => {
            log::debug!(target: "libs", "load filtered object={shown} requested by file={by}");
        }
    }
    if is_new {
        log::debug!(target: "files", "\nfile={shown} [{at}];  needed by {by} [{at}]");
    }
}

/// The way through a closure, one new object at a time, for who has something to do whenever one is there.
pub struct Walk {
    order: BreadthFirst,
    /// What the object that the walk has come to needs, and how many entries of its list that are.
    so_far: Dependencies,
    index: usize,
}

impl Walk {
    /// The way through the closure of `roots`.
    pub fn new(roots: &[ObjectId], finder: &mut Finder) -> Walk {
        finder.forget_errno();
        Walk { order: BreadthFirst::new(roots), so_far: Dependencies::default(), index: 0 }
    }

    /// Loads on until there is a new object; `None` at the end.
    ///
    /// # Errors
    /// An object that is missing or broken.
    pub fn next(
        &mut self,
        linker: &mut Linker,
        transaction: &mut Transaction,
        finder: &mut Finder,
    ) -> Result<Option<ObjectId>, LoadError> {
        while let Some(id) = self.order.next() {
            let mut missing_filtees = Vec::new();
            let object = &linker.objects[id];
            if object.kind != Kind::Interpreter && object.needed.is_empty() && !object.dynamic.needed.is_empty() {
                while self.index < linker.objects[id].dynamic.needed.len() {
                    let before = transaction.added.len();
                    linker.load_needed(transaction, finder, id, self.index, &mut self.so_far)?;
                    self.index += 1;
                    if let Some(&new) = transaction.added.get(before) {
                        return Ok(Some(new));
                    }
                }
                let Dependencies { needed, filtees, missing } = core::mem::take(&mut self.so_far);
                missing_filtees = missing;
                let object = &mut linker.objects[id];
                object.needed = needed;
                object.filtees = filtees;
            }
            self.index = 0;
            let object = &linker.objects[id];
            let namespace = transaction.namespace;
            for filtee in self.order.expand(object) {
                linker.list_before(namespace, filtee, id, &missing_filtees);
            }
        }
        Ok(None)
    }

    /// The closure, as far as the way has been gone.
    pub fn closure(self) -> Vec<ObjectId> {
        self.order.list
    }
}

/// A walk through a closure, breadth first, with filtees before their filters.
struct BreadthFirst {
    list: Vec<ObjectId>,
    at: usize,
    done: Vec<ObjectId>,
}

impl BreadthFirst {
    fn new(roots: &[ObjectId]) -> BreadthFirst {
        let mut list: Vec<ObjectId> = Vec::with_capacity(32);
        for &root in roots {
            if !list.contains(&root) {
                list.push(root);
            }
        }
        BreadthFirst { list, at: 0, done: Vec::new() }
    }

    /// The next object to be expanded.
    fn next(&mut self) -> Option<ObjectId> {
        loop {
            let id = *self.list.get(self.at)?;
            if !self.done.contains(&id) {
                return Some(id);
            }
            self.at += 1;
        }
    }

    /// Takes in what the object needs that the walk has come to. The filtees that stand before it now and did not before.
    fn expand(&mut self, object: &Object) -> Vec<ObjectId> {
        let mut moved = Vec::new();
        let Some(&id) = self.list.get(self.at) else {
            return moved;
        };
        self.done.push(id);
        for &needed in object.needed.iter().filter(|id| !object.filtees.contains(id)) {
            if !self.list.contains(&needed) {
                self.list.push(needed);
            }
        }
        let mut filter_at = self.at;
        for &filtee in &object.filtees {
            match self.list.iter().position(|&known| known == filtee) {
                Some(place) if place <= filter_at => continue,
                Some(place) => drop(self.list.remove(place)),
                None => {}
            }
            self.list.insert(filter_at, filtee);
            filter_at += 1;
            moved.push(filtee);
        }
        moved
    }
}

impl Transaction {
    /// Begins a transaction of the start in a namespace.
    pub fn new(namespace: NamespaceId) -> Transaction {
        Transaction { namespace, added: Vec::new(), stood_in: false, occasion: Occasion::Start }
    }

    /// Begins one of a dlopen.
    pub fn of_dlopen(namespace: NamespaceId) -> Transaction {
        Transaction { occasion: Occasion::Dlopen, ..Transaction::new(namespace) }
    }

    /// Takes back all that it has added, the latest first.
    pub fn roll_back(self, linker: &mut Linker, finder: &mut Finder) {
        for &id in self.added.iter().rev() {
            finder.forget(id);
            linker.unload(id);
        }
    }
}
