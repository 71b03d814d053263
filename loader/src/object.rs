//! One loaded ELF file, and the table of all of them.

use crate::addr::{Addr, VAddr};
use crate::elf::dynamic::{self, Dynamic};
use crate::elf::header::{self, ProgramHeader, PT_GNU_PROPERTY};
use crate::elf::property::{self, Properties};
use crate::elf::symbols::Symbols;
use crate::elf::version::Versions;
use crate::error::{LoadError, Reason};
use crate::image::Image;
use crate::memory;
use crate::relro::{self, RelroPages};
use crate::rule::{holds, Rule};
use crate::sys::FileId;
use crate::tls::{TlsSegment, TlsState};
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};
use goblin::elf64::dynamic::{
    DF_1_INITFIRST, DF_1_NODEFLIB, DF_1_NODELETE, DF_1_NOOPEN, DF_1_NOW, DF_1_ORIGIN, DF_1_PIE, DF_SYMBOLIC,
};
use goblin::elf64::program_header::{PT_DYNAMIC, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE, PT_PHDR};

/// A loaded object's place in the [`ObjectTable`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub u32);

/// A link-map namespace (`dlmopen(3)`); 0 is the program's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamespaceId(pub u8);

/// The namespace of the program.
pub const BASE_NAMESPACE: NamespaceId = NamespaceId(0);

/// What an object is to the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The program.
    Executable,
    /// A shared object, needed, preloaded or dlopened.
    Library,
    /// The kernel's own.
    Vdso,
    /// The dynamic loader itself.
    Interpreter,
}

/// Why an object is in the process: this decides whether it may ever be unloaded, and so whether it may be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stay {
    /// It is part of the start-up closure, or was made undeletable since.
    Forever,
    /// It was dlopened and may be closed.
    UntilClosed,
}

/// How far an object has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Mapped and parsed.
    Mapped,
    /// Its relocations are applied.
    Relocated,
    /// Its constructors have been started.
    Initialised,
    /// Its destructors have been started.
    Finished,
}

/// One loaded ELF file.
pub struct Object {
    /// The file name under which it was found (glibc's `l_name`); empty for the program.
    pub name: CString,
    /// All names by which others may ask for it: its `DT_SONAME`, and each name under which it was searched and found.
    pub aliases: Vec<Vec<u8>>,
    /// The name to print if it is not `name`: the program's is empty there, and messages call it by its `argv[0]`.
    pub label: Option<Vec<u8>>,
    /// The name under which it was first asked for; `None` for what nobody asked for.
    pub asked: Option<Vec<u8>>,
    /// What it is.
    pub kind: Kind,
    /// The namespace it lives in.
    pub namespace: NamespaceId,
    /// Which file it is; `None` for what the kernel mapped.
    pub file: Option<FileId>,
    /// The directory that `$ORIGIN` stands for.
    pub origin: OriginDirectory,
    /// Its program headers.
    pub headers: Vec<ProgramHeader>,
    /// Where its program headers lie in memory; 0 when no segment holds them.
    pub headers_at: Addr,
    /// `e_entry`
    pub entry: VAddr,
    /// Its memory.
    pub image: Image,
    /// Its dynamic section.
    pub dynamic: Dynamic,
    /// Where its dynamic section lies; 0 if there is none.
    pub dynamic_at: VAddr,
    /// Its dynamic symbols.
    pub symbols: Symbols<'static>,
    /// Its symbol versions, which scopes share.
    pub versions: Arc<Versions<'static>>,
    /// What RELRO protects.
    pub relro: Option<RelroPages>,
    /// Its thread-local storage.
    pub tls: Option<TlsSegment>,
    /// Where its thread-local storage lies in a thread.
    pub tls_state: Cell<TlsState>,
    /// The objects that its dynamic section asks for, in order.
    pub needed: Vec<ObjectId>,
    /// Those of them that are asked for symbols before it (`DT_AUXILIARY`, `DT_FILTER`).
    pub filtees: Vec<ObjectId>,
    /// Its closure in the order of initialisation, itself first and initialised last, once it has been dlopened; empty before that.
    pub initialisation_order: Vec<ObjectId>,
    /// Objects to which its references are bound and of which note is taken ([`Object::counts_references`]), in the order in which that
    /// came about, without those that it asks for itself; `None` as long as there has not been any.
    pub references: Option<Vec<ObjectId>>,
    /// The object whose `DT_NEEDED` or dlopen brought it in.
    pub loader: Option<ObjectId>,
    /// Whether it may be unloaded.
    pub stay: Stay,
    /// Whether it was itself made undeletable, and does not stay for the sake of something else.
    pub undeletable: bool,
    /// How far it has come.
    pub stage: Stage,
    /// Whether its symbols are visible to everybody (`RTLD_GLOBAL`, or the start-up closure).
    pub global: bool,
    /// Whether it asks for an executable stack.
    pub executable_stack: bool,
    /// How much of the local scope is searched before the global one: the closure that it was dlopened with, if with `RTLD_DEEPBIND`.
    pub deep: usize,
    /// The closure in which it looks up its symbols after the global scope, and behind it others that have come to need it; empty for the
    /// start-up closure, whose closure is the global scope.
    pub local_scope: Vec<ObjectId>,
    /// How many dlopens hold it directly.
    pub open_count: u32,
}

/// The directory that `$ORIGIN` stands for, of which the kernel may have to be asked: that is done when somebody wants to know.
#[derive(Default)]
pub struct OriginDirectory {
    known: OnceCell<Option<Vec<u8>>>,
    find: Option<fn() -> Option<Vec<u8>>>,
}

impl OriginDirectory {
    /// It is known, or known not to be there.
    pub fn known(directory: Option<Vec<u8>>) -> OriginDirectory {
        OriginDirectory { known: OnceCell::from(directory), find: None }
    }

    /// It is what `find` will say.
    pub fn found_by(find: fn() -> Option<Vec<u8>>) -> OriginDirectory {
        OriginDirectory { known: OnceCell::new(), find: Some(find) }
    }

    /// The directory, if there is one.
    pub fn get(&self) -> Option<&[u8]> {
        self.known.get_or_init(|| self.find.and_then(|find| find())).as_deref()
    }

    /// Moves what is known to newly allocated memory.
    fn renew(&mut self) {
        if let Some(Some(directory)) = self.known.get_mut() {
            memory::renew(directory);
        }
    }

    /// What is known without asking; `None` if nobody has asked yet.
    pub fn so_far(&self) -> Option<Option<&[u8]>> {
        self.known.get().map(Option::as_deref)
    }
}

/// Where an object comes from.
pub struct Origin {
    /// File name, as in [`Object::name`].
    pub name: CString,
    /// What it is.
    pub kind: Kind,
    /// Which file.
    pub file: Option<FileId>,
    /// `e_entry`
    pub entry: VAddr,
}

impl Object {
    /// Parses the object whose segments are mapped as `image`.
    ///
    /// # Errors
    /// Whatever is wrong with its dynamic section or the tables it names.
    pub fn parse(origin: Origin, headers: Vec<ProgramHeader>, image: Image) -> Result<Box<Object>, LoadError> {
        let complain = |reason| LoadError::new(origin.name.to_bytes(), reason);
        let view = image.view();
        let (dynamic, dynamic_at) = match header::find_last(&headers, PT_DYNAMIC) {
            None => (Dynamic::default(), VAddr(0)),
            Some(h) => {
                let outside = || complain(Reason::Malformed { what: "PT_DYNAMIC outside its segment", at: h.p_vaddr });
                let bytes = view.bytes(VAddr(h.p_vaddr), h.p_memsz).ok_or_else(outside)?;
                let dynamic = dynamic::parse(bytes, VAddr(h.p_vaddr)).map_err(complain)?;
                if h.p_vaddr % 8 != 0 || dynamic.strings.is_none() || dynamic.symbols.is_none() {
                    return Err(complain(Reason::Fault("object file has no dynamic section")));
                }
                (dynamic, VAddr(h.p_vaddr))
            }
        };
        let symbols = Symbols::parse(&view, &dynamic).map_err(complain)?;
        let versions = Arc::new(Versions::parse(&view, &dynamic, &symbols).map_err(complain)?);
        let tls = TlsSegment::find(&headers, &image).map_err(complain)?;
        let relro = relro::pages(&headers).map_err(complain)?;
        let soname = dynamic.soname.and_then(|at| symbols.string(at));
        memory::ensure_for_name(soname.unwrap_or_default()).map_err(complain)?;
        Ok(Box::new(Object {
            aliases: soname.map(<[u8]>::to_vec).into_iter().collect(),
            headers_at: headers_in_memory(&headers, &image),
            executable_stack: header::wants_executable_stack(&headers),
            name: origin.name,
            label: None,
            asked: None,
            kind: origin.kind,
            file: origin.file,
            entry: origin.entry,
            namespace: BASE_NAMESPACE,
            origin: OriginDirectory::default(),
            headers,
            image,
            dynamic,
            dynamic_at,
            symbols,
            versions,
            relro,
            tls,
            tls_state: Cell::new(TlsState::None),
            needed: Vec::new(),
            filtees: Vec::new(),
            initialisation_order: Vec::new(),
            references: None,
            loader: None,
            stay: Stay::Forever,
            undeletable: false,
            stage: Stage::Mapped,
            global: false,
            deep: 0,
            local_scope: Vec::new(),
            open_count: 0,
        }))
    }

    /// Tells `LD_DEBUG=files` which flags of it glibc does not know.
    pub fn log_flags(&self) {
        /// What glibc knows of `DT_FLAGS_1`.
        const KNOWN_FLAGS: u64 =
            DF_1_NOW | DF_1_NODELETE | DF_1_INITFIRST | DF_1_NOOPEN | DF_1_ORIGIN | DF_1_NODEFLIB | DF_1_PIE;
        let unknown = self.dynamic.flags_1 as u32 & !(KNOWN_FLAGS as u32);
        if unknown != 0 {
            log::debug!(target: "files", "\nWARNING: Unsupported flag value(s) of {unknown:#x} in DT_FLAGS_1.");
        }
    }

    /// Tells `LD_DEBUG=files` where it lies.
    pub fn log_place(&self) {
        self.log_flags();
        let bias = self.image.bias;
        let mut loads = self.headers.iter().filter(|h| h.p_type == PT_LOAD);
        let start = loads.next().map_or(0, |first| VAddr(first.p_vaddr).page_floor().0);
        let end = self.headers.iter().rfind(|h| h.p_type == PT_LOAD).map_or(0, |h| h.p_vaddr.wrapping_add(h.p_memsz));
        log::debug!(
            target: "files",
            "  dynamic: {:#018x}  base: {:#018x}   size: {:#018x}\n    entry: {:#018x}  phdr: {:#018x}  phnum:   {:16}\n",
            if self.dynamic_at.0 == 0 { 0 } else { bias.run_time(self.dynamic_at).0 },
            bias.0,
            end.wrapping_sub(start),
            bias.run_time(self.entry).0,
            self.headers_at.0,
            self.headers.len(),
        );
    }

    /// The name to print in messages.
    pub fn display_name(&self) -> &[u8] {
        self.label.as_deref().unwrap_or(self.name.to_bytes())
    }

    /// Where its program headers can be read: in its image, or the loader's copy where no segment holds them.
    pub fn readable_headers(&self) -> Addr {
        match self.headers_at {
            Addr(0) => Addr(self.headers.as_ptr() as usize),
            at => at,
        }
    }

    /// The name under which it was first asked for.
    pub fn asked_as(&self) -> Option<&[u8]> {
        self.asked.as_deref()
    }

    /// What is initialised before it and finalised after it, as far as the order goes: what its dynamic section asks for; as with glibc
    /// its whole closure, in order, once it has been dlopened.
    pub fn initialised_before(&self) -> &[ObjectId] {
        if self.initialisation_order.is_empty() {
            &self.needed
        } else {
            &self.initialisation_order
        }
    }

    /// The objects to which its references are bound, as far as note was taken.
    pub fn references(&self) -> &[ObjectId] {
        self.references.as_deref().unwrap_or_default()
    }

    /// Whether it is part of the start-up closure: it looks its symbols up where the program does.
    pub fn is_of_the_start(&self) -> bool {
        self.local_scope.is_empty()
    }

    /// Whether it looks its symbols up in itself before all others: `DT_SYMBOLIC`, which `RTLD_DEEPBIND` overrides.
    pub fn looks_into_itself_first(&self) -> bool {
        self.kind == Kind::Library && self.dynamic.has_flag(DF_SYMBOLIC) && self.deep == 0 && holds(Rule::SymbolicFirst)
    }

    /// The part of its local scope that is searched before the global one, and the part behind.
    pub fn local_scopes(&self) -> (&[ObjectId], &[ObjectId]) {
        self.local_scope.split_at(self.deep.min(self.local_scope.len()))
    }

    /// Whether references to it are taken note of: it was dlopened, and stays only for as long as something else does, be that for ever.
    pub fn counts_references(&self) -> bool {
        !self.undeletable && !self.is_of_the_start()
    }

    /// `DT_SONAME`
    pub fn soname(&self) -> Option<&'static [u8]> {
        self.dynamic.soname.and_then(|at| self.symbols.string(at))
    }

    /// The string that the last entry of the dynamic section with this tag names.
    pub fn dynamic_string(&self, tag: u64) -> Option<&'static [u8]> {
        let &(_, index) = self.dynamic.entries.iter().rev().find(|(t, _)| *t as u64 == tag)?;
        let entry = self.dynamic_at.checked_add((index * dynamic::DYN_SIZE) as u64)?;
        self.symbols.string(self.image.read_u64(entry.checked_add(8)?)?)
    }

    /// Whether somebody who asks for `name` means this object.
    pub fn answers_to(&self, name: &[u8]) -> bool {
        self.name.to_bytes() == name || self.aliases.iter().any(|a| a == name)
    }

    /// Remembers that `name` means this object.
    pub fn add_alias(&mut self, name: &[u8]) {
        if !self.answers_to(name) {
            self.aliases.push(name.to_vec());
        }
    }

    /// Run-time address of `.eh_frame_hdr`.
    pub fn eh_frame_header(&self) -> Option<Addr> {
        let h = header::find(&self.headers, PT_GNU_EH_FRAME)?;
        Some(self.image.bias.run_time(VAddr(h.p_vaddr)))
    }

    /// Checks that the constructors and destructors lie where they may.
    pub fn check_functions(&self) -> Result<(), LoadError> {
        for array in [self.dynamic.preinit_array, self.dynamic.init_array, self.dynamic.fini_array] {
            self.functions(array).try_for_each(|function| function.map(drop))?;
        }
        for at in [self.dynamic.init, self.dynamic.fini].into_iter().flatten() {
            if self.image.segment(at, 1).is_none_or(|s| !s.prot.exec) {
                let what = "DT_INIT or DT_FINI outside the code of the object";
                return Err(LoadError::new(self.display_name(), Reason::Malformed { what, at: at.0 }));
            }
        }
        Ok(())
    }

    /// The run-time addresses of the functions in an array of the dynamic section (`DT_INIT_ARRAY` and its kin), or an error for an entry
    /// that lies outside the image; they are read after relocation.
    pub fn functions(
        &self,
        table: Option<dynamic::Table>,
    ) -> impl DoubleEndedIterator<Item = Result<Addr, LoadError>> + '_ {
        let (start, size) = table.map_or((VAddr(0), 0), |table| (table.at, table.size));
        (0..size / 8).map(move |index| {
            let at = start.checked_add(index * 8).unwrap_or(VAddr(u64::MAX));
            let outside = || Reason::Malformed { what: "function array outside the object", at: at.0 };
            let value = self.image.read_u64(at).ok_or_else(|| LoadError::new(self.display_name(), outside()))?;
            Ok(Addr(value as usize))
        })
    }
}

/// Where the program headers lie in memory; 0 when no segment holds them.
pub(crate) fn headers_in_memory(headers: &[ProgramHeader], image: &Image) -> Addr {
    let size = (headers.len() * header::PHDR_SIZE) as u64;
    if let Some(h) = header::find(headers, PT_PHDR) {
        if image.segment(VAddr(h.p_vaddr), size).is_some() {
            return image.bias.run_time(VAddr(h.p_vaddr));
        }
    }
    // Without PT_PHDR: the ELF header, at the start of the first segment if that one maps file offset 0, tells their offset in the file.
    let loads = || headers.iter().filter(|h| h.p_type == PT_LOAD);
    let Some(first) = loads().next().filter(|h| h.p_offset == 0) else { return Addr(0) };
    let offset = image.read_u64(VAddr(first.p_vaddr.wrapping_add(32))).unwrap_or(64);
    let holder = loads().find(|h| h.p_offset <= offset && offset - h.p_offset < h.p_filesz);
    let at = holder.map_or(VAddr(0), |h| VAddr(h.p_vaddr.wrapping_add(offset - h.p_offset)));
    image.segment(at, size).map_or(Addr(0), |_| image.bias.run_time(at))
}

/// All loaded objects.
#[derive(Default)]
pub struct ObjectTable {
    slots: Vec<Option<Box<Object>>>,
}

impl Object {
    /// What it asks of the machine and of its loader: the last program header that holds properties says so, `PT_GNU_PROPERTY` or, by older
    /// linkers, `PT_NOTE`. They are read anew each time.
    pub fn properties(&self) -> Option<Properties> {
        let view = self.image.view();
        let mut holders = self.headers.iter().rev().filter(|h| matches!(h.p_type, PT_GNU_PROPERTY | PT_NOTE));
        holders.find_map(|h| property::properties(view.bytes(VAddr(h.p_vaddr), h.p_memsz)?, h.p_align))
    }
}

impl ObjectTable {
    /// An empty table.
    pub const fn new() -> ObjectTable {
        ObjectTable { slots: Vec::new() }
    }

    /// Adds an object. Ids of removed objects are used again.
    pub fn add(&mut self, object: Box<Object>) -> ObjectId {
        let object = Some(object);
        if let Some(free) = self.slots.iter().position(Option::is_none) {
            self.slots[free] = object;
            return ObjectId(free as u32);
        }
        self.slots.push(object);
        ObjectId(self.slots.len() as u32 - 1)
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: ObjectId) -> Option<Box<Object>> {
        self.slots.get_mut(id.0 as usize)?.take()
    }

    /// An object, if the id is in use.
    pub fn get(&self, id: ObjectId) -> Option<&Object> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    /// An object for changing, if the id is in use.
    pub fn get_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// All objects with their ids, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.slots.iter().enumerate().filter_map(|(i, o)| Some((ObjectId(i as u32), o.as_deref()?)))
    }
}

impl ObjectTable {
    /// Moves the table, and the names that objects may have got in a transaction which failed ([`memory::renew`]).
    pub fn renew(&mut self) {
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        memory::renew(&mut self.slots);
        for object in self.iter_mut() {
            object.aliases.iter_mut().for_each(memory::renew);
            memory::renew(&mut object.aliases);
            object.origin.renew();
        }
    }
}

impl ObjectTable {
    /// All objects, for changing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.slots.iter_mut().filter_map(|o| o.as_deref_mut())
    }
}

impl core::ops::Index<ObjectId> for ObjectTable {
    type Output = Object;

    /// # Panics
    /// When no object has the id, which means that somebody kept the id of a removed object: a defect of the loader.
    fn index(&self, id: ObjectId) -> &Object {
        match self.get(id) {
            Some(object) => object,
            None => missing(id),
        }
    }
}

impl core::ops::IndexMut<ObjectId> for ObjectTable {
    fn index_mut(&mut self, id: ObjectId) -> &mut Object {
        match self.get_mut(id) {
            Some(object) => object,
            None => missing(id),
        }
    }
}

#[cold]
fn missing(id: ObjectId) -> ! {
    log::error!("inconsistency: no object with id {}", id.0);
    crate::sys::exit(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn an_origin_is_looked_for_once_and_not_before_somebody_asks() {
        let origin = OriginDirectory::found_by(|| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Some(b"/here".to_vec())
        });
        assert_eq!((origin.so_far(), ASKED.load(Ordering::Relaxed)), (None, 0));
        assert_eq!([origin.get(), origin.get()], [Some(&b"/here"[..]); 2]);
        assert_eq!((origin.so_far(), ASKED.load(Ordering::Relaxed)), (Some(Some(&b"/here"[..])), 1));
        assert_eq!(OriginDirectory::known(None).so_far(), Some(None));
        assert_eq!(OriginDirectory::default().get(), None);
    }
}
