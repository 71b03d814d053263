//! What the first call through a PLT slot reads: an immutable copy of the linker's state, made whenever that changes.
//!
//! A call is bound in any thread at any time, in a signal handler too, perhaps over code that is changing the linker's state. So a search
//! reads a [`Snapshot`] only, takes no lock and allocates nothing. What it finds may have to be noted before it is used, which does take
//! a lock: [`Target::tie`] says so. Who publishes snapshots sees to it that one is freed, and an object unmapped, when nobody reads it.

use super::binder::{is_ifunc, log_binding, log_search};
use super::protected;
use crate::addr::{Addr, Bias, VAddr};
use crate::elf::symbols::{Sym, Symbols};
use crate::elf::version::{Version, Versions, Wanted};
use crate::error::{Lossy, Undefined};
use crate::got;
use crate::linker::Linker;
use crate::lookup::{self, Class, Definition, Query, Scope, UniqueSymbols, SHN_ABS};
use crate::object::{Kind, NamespaceId, Object, ObjectId};
use crate::statistics::LOOKUPS;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use goblin::elf::sym::{STB_LOCAL, STB_WEAK};
use goblin::elf64::reloc::Rela;

/// The state of the linker as lazy binding needs it.
pub struct Snapshot {
    /// By [`ObjectId`].
    objects: Vec<Option<Linked>>,
    /// The global scope of each namespace, then the others.
    scopes: Vec<Scope>,
    /// The names to print, one after the other.
    names: Vec<u8>,
}

/// One object.
struct Linked {
    /// Its name in [`Snapshot::names`].
    name: Range<usize>,
    kind: Kind,
    namespace: NamespaceId,
    bias: Bias,
    symbols: Symbols<'static>,
    versions: Arc<Versions<'static>>,
    /// `DT_JMPREL`
    records: &'static [Rela],
    /// Slots lie here, if they may be written.
    writable: Range<VAddr>,
    /// What was made read-only of that: RELRO, and pages of slots that were bound before.
    read_only: [Option<Range<VAddr>>; 2],
    /// Whether references to it are taken note of.
    is_noted: bool,
    /// Which of [`Snapshot::scopes`] its references are looked up in, in order.
    order: ScopeOrder,
    /// Of an object that was dlopened: the others that stay at least as long as it, sorted.
    held: Vec<ObjectId>,
}

/// Up to four scopes: the object itself (`DT_SYMBOLIC`), the global scope, and the closures it was opened with, before that and behind.
type ScopeOrder = [Option<usize>; 4];

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The function's address, or that of the resolver that tells it; 0 for a weak reference without definition.
    pub address: Addr,
    /// Whether it is a resolver's.
    pub is_resolver: bool,
    /// The slot to store the function's address in; `None` if it is not to be written.
    pub slot: Option<Addr>,
    /// What is to be done before the address is used.
    pub tie: Option<Tie>,
    /// The function is a protected one and called through the entry that stands for it in the program: there is something to be said
    /// ([`protected::warn_of_direct`]).
    pub direct: Option<Direct>,
}

impl Target {
    /// Whether the address is all that there is to it.
    pub fn is_plain(&self) -> bool {
        !self.is_resolver && self.tie.is_none() && self.direct.is_none()
    }
}

/// A protected function that the program refers to directly.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// The library.
    pub definer: ObjectId,
    /// The function's name.
    pub name: &'static [u8],
}

/// Something to be noted under the linker's lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tie {
    /// The object that was found must stay as long as the one that calls.
    Dependency(ObjectId),
    /// The definition is an `STB_GNU_UNIQUE` one of this object: there is a table of those that are in use.
    Unique(ObjectId),
}

/// Why a call goes nowhere. Borrows from the snapshot, since there may be no way to allocate.
#[derive(Clone, Copy, Debug)]
pub enum Unbound<'s> {
    /// No object has the number.
    NoObject,
    /// The index lies outside the relocations of the PLT, or one names a symbol that does not exist.
    Malformed {
        /// The object that calls.
        object: &'s [u8],
        /// What is wrong.
        what: &'static str,
        /// The number that is.
        at: u64,
    },
    /// No definition.
    Undefined {
        /// The object that calls.
        object: &'s [u8],
        /// What it calls.
        what: Undefined<'static>,
    },
}

impl Snapshot {
    /// The state of the linker without some objects that are about to go. `slots_are_bound` says that pages of slots are read-only;
    /// `held` tells of an object that was dlopened what stays at least as long.
    pub fn new(
        linker: &Linker,
        without: &[ObjectId],
        slots_are_bound: bool,
        held: impl Fn(ObjectId) -> Vec<ObjectId>,
    ) -> Snapshot {
        let wanted = |id: &ObjectId| !without.contains(id);
        let scope = |ids: &[ObjectId]| Scope::new(&linker.objects, ids.iter().copied().filter(wanted));
        let mut snapshot = Snapshot {
            objects: Vec::with_capacity(linker.objects.iter().count()),
            scopes: linker.namespaces.iter().map(|n| scope(&n.global_scope)).collect(),
            names: Vec::with_capacity(linker.objects.iter().map(|(_, o)| o.display_name().len()).sum()),
        };
        // The objects of one dlopen share a closure.
        let mut closures: Vec<(&[ObjectId], usize)> = Vec::new();
        for (id, object) in linker.objects.iter().filter(|(id, _)| wanted(id)) {
            let (before, behind) = object.local_scopes();
            let [before, behind] = [before, behind].map(|closure| {
                let known = closures.iter().find(|(ids, _)| *ids == closure).map(|(_, index)| *index);
                let index = || {
                    closures.push((closure, snapshot.scopes.len()));
                    snapshot.scopes.push(scope(closure));
                    snapshot.scopes.len() - 1
                };
                (!closure.is_empty()).then(|| known.unwrap_or_else(index))
            });
            let own = object.looks_into_itself_first().then(|| {
                snapshot.scopes.push(scope(&[id]));
                snapshot.scopes.len() - 1
            });
            let everybody = Some(usize::from(object.namespace.0));
            let order = [own, before, everybody, behind];
            let held = if object.is_of_the_start() { Vec::new() } else { held(id) };
            let bound_slots = if slots_are_bound { got::pages(object).map(|pages| pages.own) } else { None };
            snapshot.add(id, object, order, held, bound_slots);
        }
        snapshot
    }

    fn add(
        &mut self,
        id: ObjectId,
        object: &Object,
        order: ScopeOrder,
        mut held: Vec<ObjectId>,
        bound_slots: Option<Range<VAddr>>,
    ) {
        held.sort_unstable();
        let start = self.names.len();
        self.names.extend_from_slice(object.display_name());
        let index = id.0 as usize;
        if self.objects.len() <= index {
            self.objects.resize_with(index + 1, || None);
        }
        self.objects[index] = Some(Linked {
            name: start..self.names.len(),
            kind: object.kind,
            namespace: object.namespace,
            bias: object.image.bias,
            symbols: object.symbols,
            versions: Arc::clone(&object.versions),
            records: got::records(object),
            writable: written_segments(object),
            read_only: [object.relro.clone(), bound_slots],
            is_noted: object.counts_references(),
            order,
            held,
        });
    }

    fn object(&self, id: ObjectId) -> Option<&Linked> {
        self.objects.get(id.0 as usize)?.as_ref()
    }

    fn name(&self, object: &Linked) -> &[u8] {
        self.names.get(object.name.clone()).unwrap_or_default()
    }

    /// Finds the function that the relocation with an index in an object's `DT_JMPREL` stands for. Without the table of unique symbols,
    /// which is under the linker's lock, a unique definition that is found may not be the one that is in use.
    ///
    /// # Errors
    /// There is none, or no such relocation.
    pub fn find(&self, id: ObjectId, index: u64, unique: Option<&UniqueSymbols>) -> Result<Target, Unbound<'_>> {
        let from = self.object(id).ok_or(Unbound::NoObject)?;
        let malformed = |what, at| Unbound::Malformed { object: self.name(from), what, at };
        let record = usize::try_from(index).ok().and_then(|i| from.records.get(i));
        let record = record.ok_or_else(|| malformed("PLT relocation index outside the table", index))?;
        let symbol = (record.r_info >> 32) as u32;
        if symbol == 0 {
            return Ok(from.nowhere(record));
        }
        let reference = from.symbols.get(symbol);
        let reference = reference.ok_or_else(|| malformed("symbol index outside the symbol table", symbol.into()))?;
        let own = Definition { object: id, symbol: reference };
        if reference.st_info >> 4 == STB_LOCAL || lookup::binds_locally(reference) {
            return Ok(self.target(from, own, record));
        }
        let version = from.symbols.version_index(symbol).and_then(|v| from.versions.get(v));
        let query = Query {
            name: from.symbols.hashed_name(reference),
            version: version.map(|version| Wanted { version, exact: false }),
            class: Class::Plt,
            newest: false,
        };
        let mut found = self.search(from, &query);
        if lookup::is_protected(reference) && reference.st_shndx != 0 {
            found = Some(own);
        }
        match found {
            Some(found) => Ok(self.bound((id, from), (reference, record), (&query, found), unique)),
            None if reference.st_info >> 4 == STB_WEAK => Ok(from.nowhere(record)),
            None => {
                let version = query.version.map(|wanted| wanted.version.name);
                let what = Undefined { symbol: query.name.name, version };
                Err(Unbound::Undefined { object: self.name(from), what })
            }
        }
    }

    /// What there is to say of a definition that was found for a reference. On its own, so that the search has its part of the stack.
    #[inline(never)]
    fn bound(
        &self,
        (id, from): (ObjectId, &Linked),
        (reference, record): (&Sym, &Rela),
        (query, mut found): (&Query<'static>, Definition),
        unique: Option<&UniqueSymbols>,
    ) -> Target {
        let name = query.name.name;
        if let (Some(unique), true) = (unique, found.is_unique()) {
            found = lookup::one_of_a_kind(unique, name, found);
        }
        let mut target = self.target(from, found, record);
        target.tie = self.tie(id, from, found, unique.is_none());
        if protected::is_direct(from.kind, reference, found.symbol, Class::Plt) {
            target.direct = Some(Direct { definer: found.object, name });
        }
        if log::log_enabled!(target: "bindings", log::Level::Trace) && (target.tie.is_none() || unique.is_some()) {
            self.log_binding(from, found, name, query.version.map(|wanted| wanted.version));
        }
        target
    }

    fn search(&self, from: &Linked, query: &Query<'_>) -> Option<Definition> {
        LOOKUPS.add(1);
        let mut first_weak = None;
        let mut scopes = from.order.iter().flatten().filter_map(|index| self.scopes.get(*index));
        let found = scopes.find_map(|scope| scope.search(0, query, &mut first_weak)).or(first_weak);
        if log::log_enabled!(target: "symbols", log::Level::Trace) {
            self.log_search(from, query, found);
        }
        found
    }

    // On its own, as what follows: a call may be bound on a small stack, and few do log.
    #[cold]
    #[inline(never)]
    fn log_search(&self, from: &Linked, query: &Query<'_>, found: Option<Definition>) {
        let scopes = from.order.iter().flatten().filter_map(|index| self.scopes.get(*index));
        let ids = scopes.flat_map(Scope::ids);
        log_search(ids.filter_map(|id| Some((id, self.name(self.object(id)?)))), query.name, found, from.namespace);
    }

    fn target(&self, from: &Linked, found: Definition, record: &Rela) -> Target {
        let definer = self.object(found.object).unwrap_or(from);
        let address = if found.symbol.st_shndx == SHN_ABS {
            Addr(found.symbol.st_value as usize)
        } else {
            definer.bias.run_time(VAddr(found.symbol.st_value))
        };
        Target { address, is_resolver: is_ifunc(found.symbol), ..from.nowhere(record) }
    }

    fn tie(&self, id: ObjectId, from: &Linked, found: Definition, ask_unique: bool) -> Option<Tie> {
        if found.is_unique() && ask_unique {
            return Some(Tie::Unique(found.object));
        }
        let is_noted = self.object(found.object).is_some_and(|definer| definer.is_noted);
        if !is_noted || (found.object == id && !found.is_unique()) {
            return None;
        }
        if found.is_unique() {
            return Some(Tie::Unique(found.object));
        }
        from.held.binary_search(&found.object).is_err().then_some(Tie::Dependency(found.object))
    }

    #[cold]
    #[inline(never)]
    fn log_binding(&self, from: &Linked, found: Definition, name: &[u8], version: Option<Version<'_>>) {
        let definer = self.object(found.object).unwrap_or(from);
        log_binding((self.name(from), from.namespace), (self.name(definer), definer.namespace), name, version);
    }
}

impl Linked {
    /// A call without a definition.
    fn nowhere(&self, record: &Rela) -> Target {
        let slot = self.slot(VAddr(record.r_offset));
        Target { address: Addr(0), is_resolver: false, slot, tie: None, direct: None }
    }

    /// Where a slot is, if it may be written.
    fn slot(&self, at: VAddr) -> Option<Addr> {
        let end = at.checked_add(8)?;
        let inside = self.writable.start <= at && end <= self.writable.end;
        let read_only = self.read_only.iter().flatten().any(|r| at < r.end && r.start < end);
        (inside && !read_only).then(|| self.bias.run_time(at))
    }
}

/// From the first to the last byte of an object's writable segments. That a slot lies in one was checked when the object was relocated.
fn written_segments(object: &Object) -> Range<VAddr> {
    let mut writable = object.image.segments.iter().filter(|s| s.prot.write);
    match writable.next() {
        None => VAddr(0)..VAddr(0),
        Some(first) => first.memory.start..writable.next_back().unwrap_or(first).memory.end,
    }
}

impl fmt::Display for Unbound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unbound::NoObject => f.write_str("call from an object that is not loaded"),
            Unbound::Malformed { object, what, at } => write!(f, "{}: {what} (at {at:#x})", Lossy(object)),
            Unbound::Undefined { object, what } => write!(f, "{}: {what}", Lossy(object)),
        }
    }
}
