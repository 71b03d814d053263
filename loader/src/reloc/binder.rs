//! From the symbol index of a relocation to the definition it binds to.

use super::protected;
use crate::addr::{Addr, VAddr};
use crate::elf::symbols::{HashedName, Sym};
use crate::elf::version::{Version, Wanted};
use crate::error::{LoadError, Lossy, Reason};
use crate::lookup::{self, Class, Definition, Query, Scope, UniqueSymbols, SHN_ABS};
use crate::memory;
use crate::object::{Kind, NamespaceId, Object, ObjectId, ObjectTable};
use crate::rule::{holds, Rule};
use crate::statistics::{LOOKUPS, REMEMBERED};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use goblin::elf::sym::{STB_LOCAL, STB_WEAK, STT_GNU_IFUNC};

/// Binds the references of the objects of one transaction.
pub struct Binder<'o> {
    /// All objects.
    pub objects: &'o ObjectTable,
    /// The scope that the objects of the transaction share.
    scope: Scope,
    unique: &'o UniqueSymbols,
    /// Whether any object can be unloaded at all.
    tracks_dependencies: bool,
    /// What follows from the references met so far for how long objects stay, in the order in which they were met.
    pub dependencies: RefCell<Vec<Dependency>>,
    /// The objects that an `STB_GNU_UNIQUE` definition makes stay.
    kept_as_unique: RefCell<Vec<ObjectId>>,
}

/// What a reference means for how long an object that may be unloaded stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dependency {
    /// The second stays at least as long as the first, which refers to it.
    Reference(ObjectId, ObjectId),
    /// It stays for ever: its definition of an `STB_GNU_UNIQUE` symbol is in use.
    Unique(ObjectId),
}

/// How one object's references are bound: its own scope if that differs from the shared one.
pub struct Binding<'b, 'o> {
    binder: &'b Binder<'o>,
    /// The referring object.
    pub id: ObjectId,
    /// The same.
    pub object: &'o Object,
    /// For `DT_SYMBOLIC` and for objects with a closure of their own.
    own_scope: Option<Scope>,
    /// The last outcome: linkers sort relocations by symbol, so the next is often for the same one.
    last: Cell<(u32, Class, Resolved)>,
    /// Whether what is looked up has been told of before.
    is_told: Cell<bool>,
}

/// What a symbol index stands for.
#[derive(Clone, Copy)]
pub enum Resolved {
    /// Nothing: index 0, or a symbol of the referring object that is not to be looked up, with its value.
    Own(Option<&'static Sym>),
    /// A definition found in scope.
    Defined(Definition),
    /// A weak reference without a definition.
    UndefinedWeak,
}

impl<'o> Binder<'o> {
    /// A binder for objects whose shared scope is `scope`.
    pub fn new(
        objects: &'o ObjectTable,
        scope: impl IntoIterator<Item = ObjectId>,
        unique: &'o UniqueSymbols,
    ) -> Binder<'o> {
        Binder {
            objects,
            scope: Scope::new(objects, scope),
            unique,
            tracks_dependencies: objects.iter().any(|(_, o)| o.counts_references()),
            dependencies: RefCell::default(),
            kept_as_unique: RefCell::default(),
        }
    }

    /// The binding of one object.
    pub fn object<'b>(&'b self, id: ObjectId) -> Binding<'b, 'o> {
        let object = &self.objects[id];
        let symbolic = object.looks_into_itself_first();
        let own_scope = (symbolic || !object.local_scope.is_empty()).then(|| {
            let mut ids = Vec::new();
            if symbolic {
                ids.push(id);
            }
            let (before, behind) = object.local_scopes();
            ids.extend(before);
            ids.extend(self.scope.ids());
            ids.extend(behind);
            Scope::new(self.objects, ids)
        });
        let last = Cell::new((0, Class::Data, Resolved::Own(None)));
        Binding { binder: self, id, object, own_scope, last, is_told: Cell::new(false) }
    }
}

impl<'o> Binding<'_, 'o> {
    /// All objects.
    pub fn objects(&self) -> &'o ObjectTable {
        self.binder.objects
    }

    /// What [`Binding::resolve`] has said before, without another word in `LD_DEBUG`.
    ///
    /// # Errors
    /// As there.
    pub fn resolve_again(&self, index: u32, class: Class) -> Result<Resolved, LoadError> {
        self.is_told.set(true);
        let resolved = self.resolve(index, class);
        self.is_told.set(false);
        resolved
    }

    /// What the symbol with an index in the referring object's table stands for.
    ///
    /// # Errors
    /// A symbol that must be defined and is not, or an index outside the table.
    pub fn resolve(&self, index: u32, class: Class) -> Result<Resolved, LoadError> {
        let last = self.last.get();
        if index == 0 {
            return Ok(Resolved::Own(None));
        }
        if (last.0, last.1) == (index, class) {
            if !matches!(last.2, Resolved::Own(_)) {
                REMEMBERED.add(1);
            }
            return Ok(last.2);
        }
        let resolved = self.resolve_anew(index, class)?;
        self.last.set((index, class, resolved));
        Ok(resolved)
    }

    fn resolve_anew(&self, index: u32, class: Class) -> Result<Resolved, LoadError> {
        let symbols = &self.object.symbols;
        let Some(reference) = symbols.get(index) else {
            return Err(self.outside_the_table(index));
        };
        let binding = reference.st_info >> 4;
        if binding == STB_LOCAL || lookup::binds_locally(reference) {
            return Ok(Resolved::Own(Some(reference)));
        }
        let name = symbols.hashed_name(reference);
        let version = symbols.version_index(index).and_then(|v| self.object.versions.get(v));
        match self.find(reference, name, version, class) {
            Some(found) => {
                if found.is_unique() {
                    // It has an entry of its own in a table now; so may the next have.
                    self.make_room_for_unique(name)?;
                }
                if protected::is_direct(self.object.kind, reference, found.symbol, class) {
                    protected::warn_of_direct(name.name, class, &self.binder.objects[found.object])?;
                }
                Ok(Resolved::Defined(found))
            }
            None if binding == STB_WEAK && holds(Rule::WeakUndefinedIsNull) => Ok(Resolved::UndefinedWeak),
            // As in glibc, for which nothing is an error then: it is known in the end who defines what.
            None if log::log_enabled!(target: "unused", log::Level::Debug) => Ok(Resolved::UndefinedWeak),
            None => Err(self.undefined(name, version)),
        }
    }

    #[cold]
    #[inline(never)]
    fn outside_the_table(&self, index: u32) -> LoadError {
        let what = "symbol index outside the symbol table";
        LoadError::new(self.object.display_name(), Reason::Malformed { what, at: index.into() })
    }

    #[cold]
    #[inline(never)]
    fn make_room_for_unique(&self, name: HashedName<'_>) -> Result<(), LoadError> {
        memory::ensure_for_name(name.name).map_err(|reason| LoadError::new(self.object.display_name(), reason))
    }

    #[cold]
    #[inline(never)]
    fn undefined(&self, name: HashedName<'_>, version: Option<Version<'_>>) -> LoadError {
        let version = version.map(|v| memory::copy_of(v.name));
        let reason = Reason::UndefinedSymbol { symbol: memory::copy_of(name.name), version };
        LoadError::new(self.object.display_name(), reason)
    }

    /// Whether the function with this index is a protected one of another object, to which the program refers directly: binding it
    /// gives a warning or an error.
    pub fn is_direct_to_protected(&self, index: u32) -> bool {
        let symbols = &self.object.symbols;
        let Some(reference) = symbols.get(index).filter(|s| protected::takes_address(self.object.kind, s)) else {
            return false;
        };
        let version = symbols.version_index(index).and_then(|v| self.object.versions.get(v));
        let wanted = version.map(|version| Wanted { version, exact: false });
        let found = self.look_up(symbols.hashed_name(reference), wanted, Class::Plt);
        found.is_some_and(|found| lookup::is_protected(found.symbol))
    }

    fn find(
        &self,
        reference: &'static Sym,
        name: HashedName<'static>,
        version: Option<Version<'static>>,
        class: Class,
    ) -> Option<Definition> {
        let version = version.map(|version| Wanted { version, exact: false });
        let mut found = self.look_up(name, version, class);
        if lookup::is_protected(reference)
            && holds(Rule::ProtectedBindsLocally)
            && reference.st_shndx != 0
            && found.is_none_or(|f| f.object != self.id)
        {
            // A protected definition is preferred to anybody else's, but an address that the executable has made canonical
            // (its PLT entry) must be kept where addresses are compared.
            let definer = if class == Class::Plt { found } else { self.look_up(name, version, Class::Plt) };
            if class == Class::Plt || definer.is_some_and(|d| d.object != self.id) {
                found = Some(Definition { object: self.id, symbol: reference });
            }
        }
        if let Some(found) = found {
            self.note(name, version, found);
        }
        found
    }

    fn look_up(&self, name: HashedName<'static>, version: Option<Wanted<'static>>, class: Class) -> Option<Definition> {
        LOOKUPS.add(1);
        let query = Query { name, version, class, newest: false };
        let scope = self.own_scope.as_ref().unwrap_or(&self.binder.scope);
        let found = scope.find(&query, self.binder.unique);
        if log::log_enabled!(target: "symbols", log::Level::Trace) && !self.is_told.get() {
            // A copy is not looked for in the program, which is to have it.
            let is_searched = |id: &ObjectId| class != Class::Copy || self.binder.objects[*id].kind != Kind::Executable;
            log_search(
                scope.ids().filter(is_searched).map(|id| (id, self.binder.objects[id].display_name())),
                name,
                found,
                self.object.namespace,
            );
        }
        found
    }

    fn note(&self, name: HashedName<'_>, version: Option<Wanted<'_>>, found: Definition) {
        let definer = &self.binder.objects[found.object];
        if self.binder.tracks_dependencies && definer.counts_references() {
            self.note_dependency(found, definer);
        }
        if log::log_enabled!(target: "bindings", log::Level::Trace) && !self.is_told.get() {
            let (from, to) =
                ((self.object.display_name(), self.object.namespace), (definer.display_name(), definer.namespace));
            log_binding(from, to, name.name, version.map(|v| v.version));
        }
    }

    fn note_dependency(&self, found: Definition, definer: &Object) {
        let mut met = self.binder.dependencies.borrow_mut();
        let mut kept = self.binder.kept_as_unique.borrow_mut();
        if found.is_unique() && !kept.contains(&found.object) {
            kept.push(found.object);
            met.push(Dependency::Unique(found.object));
            let (name, NamespaceId(at)) = (Lossy(definer.display_name()), definer.namespace);
            log::trace!(target: "bindings", "marking {name} [{at}] as NODELETE due to unique symbol");
        }
        let new = Dependency::Reference(self.id, found.object);
        // An object's own come one after the other.
        let is_own = |known: &&Dependency| {
            matches!(known, Dependency::Unique(_))
                || matches!(known, Dependency::Reference(from, _) if *from == self.id)
        };
        if found.object != self.id && !met.iter().rev().take_while(is_own).any(|known| *known == new) {
            met.push(new);
        }
    }

    /// Run-time address of a definition, before any IFUNC resolver is asked.
    pub fn address(&self, resolved: &Resolved) -> u64 {
        match resolved {
            Resolved::UndefinedWeak => 0,
            Resolved::Own(None) => self.object.image.bias.run_time(VAddr(0)).0 as u64,
            Resolved::Own(Some(symbol)) => value_of(self.object, symbol),
            Resolved::Defined(found) => value_of(&self.binder.objects[found.object], found.symbol),
        }
    }

    /// The object and symbol behind an outcome.
    pub fn definer(&self, resolved: &Resolved) -> Option<(ObjectId, &'o Object, Option<&'static Sym>)> {
        match resolved {
            Resolved::Own(symbol) => Some((self.id, self.object, *symbol)),
            Resolved::Defined(found) => Some((found.object, &self.binder.objects[found.object], Some(found.symbol))),
            Resolved::UndefinedWeak => None,
        }
    }
}

/// Tells which objects were searched (`LD_DEBUG=symbols`).
#[cold]
pub fn log_search<'n>(
    searched: impl Iterator<Item = (ObjectId, &'n [u8])>,
    name: HashedName<'_>,
    found: Option<Definition>,
    NamespaceId(at): NamespaceId,
) {
    for (id, object) in searched {
        log::trace!(target: "symbols", "symbol={};  lookup in file={} [{at}]", Lossy(name.name), Lossy(object));
        if found.is_some_and(|f| f.object == id) {
            return;
        }
    }
}

/// Tells what a reference was bound to (`LD_DEBUG=bindings`): the objects with their namespaces.
#[cold]
pub fn log_binding(
    (from, NamespaceId(from_at)): (&[u8], NamespaceId),
    (to, NamespaceId(to_at)): (&[u8], NamespaceId),
    name: &[u8],
    version: Option<Version<'_>>,
) {
    log::trace!(
        target: "bindings",
        "binding file {} [{from_at}] to {} [{to_at}]: normal symbol `{}'{}{}{}",
        Lossy(from),
        Lossy(to),
        Lossy(name),
        if version.is_some() { " [" } else { "" },
        Lossy(version.map_or(&[], |v| v.name)),
        if version.is_some() { "]" } else { "" },
    );
}

impl Resolved {
    /// Whether the value is what an IFUNC resolver answers.
    pub fn is_ifunc(&self) -> bool {
        match self {
            Resolved::Own(Some(symbol)) | Resolved::Defined(Definition { symbol, .. }) => is_ifunc(symbol),
            _ => false,
        }
    }
}

/// Whether a definition's value is what its resolver answers.
pub fn is_ifunc(symbol: &Sym) -> bool {
    symbol.st_info & 0xf == STT_GNU_IFUNC && symbol.st_shndx != 0 && holds(Rule::IfuncCalled)
}

/// A symbol's value in the process.
pub fn value_of(object: &Object, symbol: &Sym) -> u64 {
    if symbol.st_shndx == SHN_ABS {
        symbol.st_value
    } else {
        let Addr(address) = object.image.bias.run_time(VAddr(symbol.st_value));
        address as u64
    }
}
