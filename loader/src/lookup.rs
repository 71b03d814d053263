//! Symbol lookup: which definition a reference binds to.
//!
//! gABI "Symbol Table" and "Shared Object Dependencies", LSB "Symbol Versioning", and where they are silent what glibc does: the first
//! acceptable definition in scope order wins, weak or not.

use crate::elf::symbols::{BloomFilter, HashedName, Sym, Symbols};
use crate::elf::version::{Versions, Wanted, VERSYM_HIDDEN, VERSYM_VERSION};
use crate::object::{Kind, Object, ObjectId, ObjectTable};
use crate::rule::{holds, Rule};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use goblin::elf::sym::{
    STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_COMMON, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS,
    STV_HIDDEN, STV_INTERNAL, STV_PROTECTED,
};

/// `SHN_ABS`: the value of the symbol is not relative to the object.
pub const SHN_ABS: u16 = 0xfff1;
/// `SHN_UNDEF`: the symbol is another object's.
pub const SHN_UNDEF: u16 = 0;

/// `LD_DYNAMIC_WEAK`: a weak definition gives way to a strong one further on, as before glibc 2.1.91.
pub static DYNAMIC_WEAK: AtomicBool = AtomicBool::new(false);

/// What the result of a lookup is used for, which decides whether the executable's symbols count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A call, or anything else for which the executable's PLT entry is not a definition.
    Plt,
    /// An address that must be the same everywhere.
    Data,
    /// The original of a copy relocation: anywhere but in the executable.
    Copy,
}

/// A question.
#[derive(Clone, Copy)]
pub struct Query<'q> {
    /// The symbol.
    pub name: HashedName<'q>,
    /// Its version, if the reference has one.
    pub version: Option<Wanted<'q>>,
    /// What for.
    pub class: Class,
    /// Whether a reference without version takes the newest version instead of the oldest (`dlsym`).
    pub newest: bool,
}

/// An answer.
#[derive(Clone, Copy)]
pub struct Definition {
    /// The object that defines it.
    pub object: ObjectId,
    /// The definition.
    pub symbol: &'static Sym,
}

/// What a lookup reads of one object, together in memory.
#[derive(Clone)]
pub struct ScopeEntry {
    id: ObjectId,
    is_executable: bool,
    symbols: Symbols<'static>,
    versions: Arc<Versions<'static>>,
}

/// An ordered list of objects to search.
#[derive(Clone, Default)]
pub struct Scope {
    /// By entry: what most entries are passed over by. Together in memory, since a lookup reads all up to the one that it finds.
    filters: Vec<BloomFilter<'static>>,
    entries: Vec<ScopeEntry>,
}

/// `STB_GNU_UNIQUE` definitions that somebody has bound to: there is one per name and namespace, whatever the scopes.
pub type UniqueSymbols = RefCell<BTreeMap<Vec<u8>, Definition>>;

impl Scope {
    /// A scope with these objects in this order; ids that appear twice count once.
    pub fn new(objects: &ObjectTable, ids: impl IntoIterator<Item = ObjectId>) -> Scope {
        let ids = ids.into_iter();
        let count = ids.size_hint().1.unwrap_or(0);
        let mut scope = Scope { filters: Vec::with_capacity(count), entries: Vec::with_capacity(count) };
        for id in ids {
            scope.push(id, &objects[id]);
        }
        scope
    }

    /// Adds an object at the end, unless it is in the scope.
    pub fn push(&mut self, id: ObjectId, object: &Object) {
        if self.entries.iter().any(|e| e.id == id) {
            return;
        }
        self.filters.push(object.symbols.filter());
        self.entries.push(ScopeEntry {
            id,
            is_executable: object.kind == Kind::Executable,
            symbols: object.symbols,
            versions: Arc::clone(&object.versions),
        });
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.entries.iter().map(|e| e.id)
    }

    /// The first acceptable definition.
    pub fn find(&self, query: &Query<'_>, unique: &UniqueSymbols) -> Option<Definition> {
        self.find_after(None, query, unique)
    }

    /// The first acceptable definition in an object that comes after `skip` (`RTLD_NEXT`).
    pub fn find_after(&self, skip: Option<ObjectId>, query: &Query<'_>, unique: &UniqueSymbols) -> Option<Definition> {
        let start = match skip {
            None => 0,
            Some(skip) => self.entries.iter().position(|e| e.id == skip)? + 1,
        };
        let mut first_weak = None;
        let found = self.search(start, query, &mut first_weak).or(first_weak)?;
        Some(if found.is_unique() { one_of_a_kind(unique, query.name.name, found) } else { found })
    }

    /// The first acceptable definition from entry `start` on, not asking which one of a unique symbol is in use. Where a weak one gives
    /// way to a strong one, `first_weak` becomes the first weak one. Neither allocates nor locks.
    pub fn search(&self, start: usize, query: &Query<'_>, first_weak: &mut Option<Definition>) -> Option<Definition> {
        for (filter, entry) in self.filters[start..].iter().zip(&self.entries[start..]) {
            if !filter.may_hold(query.name.gnu) {
                continue;
            }
            if entry.is_executable && (query.class == Class::Copy || !holds(Rule::ProgramInterposes)) {
                continue;
            }
            if let Some(symbol) = entry.find(query) {
                let found = Definition { object: entry.id, symbol };
                if symbol.st_info >> 4 == STB_WEAK && DYNAMIC_WEAK.load(Ordering::Relaxed) && holds(Rule::DynamicWeak) {
                    *first_weak = first_weak.or(Some(found));
                    continue;
                }
                return Some(found);
            }
        }
        None
    }
}

impl Definition {
    /// Whether there is one of its name in a namespace, whatever the scopes (`STB_GNU_UNIQUE`).
    pub fn is_unique(&self) -> bool {
        self.symbol.st_info >> 4 == STB_GNU_UNIQUE && holds(Rule::UniqueIsUnique)
    }
}

/// Which definition of a unique symbol is in use: the first that anybody has bound to.
pub fn one_of_a_kind(unique: &UniqueSymbols, name: &[u8], found: Definition) -> Definition {
    let known = unique.borrow().get(name).copied();
    known.unwrap_or_else(|| *unique.borrow_mut().entry(name.to_vec()).or_insert(found))
}

impl ScopeEntry {
    fn find(&self, query: &Query<'_>) -> Option<&'static Sym> {
        let mut sole_versioned = None;
        let mut versioned_count = 0;
        let found = self.symbols.find(query.name, |index, symbol| {
            if !is_definition(symbol, query.class) {
                return None;
            }
            match self.judge_version(index, query) {
                Verdict::Accept => Some(symbol),
                Verdict::Refuse => None,
                Verdict::AcceptIfAlone => {
                    versioned_count += 1;
                    sole_versioned = sole_versioned.or(Some(symbol));
                    None
                }
            }
        });
        found.or(if versioned_count == 1 { sole_versioned } else { None })
    }

    fn judge_version(&self, index: u32, query: &Query<'_>) -> Verdict {
        let Some(versym) = self.symbols.version_index(index) else {
            // An object without versions satisfies any reference.
            return Verdict::Accept;
        };
        match &query.version {
            Some(wanted) => match self.versions.get(versym) {
                Some(v) if v.hash == wanted.version.hash && v.name == wanted.version.name => Verdict::Accept,
                Some(_) if holds(Rule::VersionsMatch) => Verdict::Refuse,
                Some(_) => Verdict::Accept,
                // The base definition does for a reference that does not insist.
                None if !wanted.exact && versym & VERSYM_HIDDEN == 0 => Verdict::Accept,
                None => Verdict::Refuse,
            },
            // No version asked for: the base definition, else the first ("oldest") version; for `dlsym` the default one.
            None => {
                let limit = if query.newest || !holds(Rule::OldestForUnversioned) { 2 } else { 3 };
                if versym & VERSYM_VERSION < limit {
                    Verdict::Accept
                } else if versym & VERSYM_HIDDEN == 0 || !holds(Rule::HiddenVersions) {
                    Verdict::AcceptIfAlone
                } else {
                    Verdict::Refuse
                }
            }
        }
    }
}

enum Verdict {
    Accept,
    Refuse,
    AcceptIfAlone,
}

/// Whether a symbol table entry defines something for a reference of this class.
fn is_definition(symbol: &Sym, class: Class) -> bool {
    let kind = symbol.st_info & 0xf;
    let binding = symbol.st_info >> 4;
    if !matches!(kind, STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC) {
        return false;
    }
    if symbol.st_value == 0 && symbol.st_shndx != SHN_ABS && kind != STT_TLS {
        return false;
    }
    // An undefined symbol with a value is the executable's PLT entry for a function: its address, but not its definition.
    if symbol.st_shndx == SHN_UNDEF && class == Class::Plt {
        return false;
    }
    if binds_locally(symbol) {
        return false;
    }
    matches!(binding, STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
}

/// Whether a symbol is hidden or internal, and so visible to its own object only.
pub fn binds_locally(symbol: &Sym) -> bool {
    matches!(symbol.st_other & 3, STV_HIDDEN | STV_INTERNAL)
}

/// Whether a symbol is protected: its own object's references bind to it.
pub fn is_protected(symbol: &Sym) -> bool {
    symbol.st_other & 3 == STV_PROTECTED
}
