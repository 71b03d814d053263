//! libc's and the debugger's view of an object: `struct link_map`.
//!
//! The interpreter keeps its own [`Object`]s and gives each a link map beside it, with all that libc, libthread_db and debuggers read.

use super::debugger;
use super::globals::{Structure, RTLD_GLOBAL};
use super::layout::Layout;
use super::libc::SONAME;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec;
use alloc::vec::Vec;
use goblin::elf64::dynamic::{DT_GNU_HASH, DT_HASH, DT_JMPREL, DT_PLTGOT, DT_RELA, DT_STRTAB, DT_SYMTAB, DT_VERSYM};
use loader::addr::{Addr, VAddr};
use loader::elf::dynamic::DYN_SIZE;
use loader::elf::view::u32_at;
use loader::linker::Linker;
use loader::memory;
use loader::object::{Kind, NamespaceId, Object, ObjectId, Stage, BASE_NAMESPACE};
use loader::tls::TlsState;

const DT_RELR: u64 = 36;
/// Entries of the dynamic section to which glibc adds the load bias in place; other code in a process counts on it.
const RELOCATED_IN_PLACE: [u64; 9] =
    [DT_HASH, DT_PLTGOT, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_VERSYM, DT_GNU_HASH, DT_RELR];
/// `l_tls_offset` of a module that can't become static.
const FORCED_DYNAMIC: u64 = u64::MAX;
const LT_EXECUTABLE: u8 = 0;
const LT_LIBRARY: u8 = 1;
const LT_LOADED: u8 = 2;

struct Entry {
    id: ObjectId,
    map: Structure,
    /// What the map points to: names that live as long as it.
    _origin: Option<CString>,
    _names: Vec<CString>,
    memory: *mut [u8],
}

/// What stands for the interpreter in the list of a namespace other than the program's: a link map that refers to the one of the base
/// namespace, as there can be no second interpreter.
struct StandIn {
    namespace: NamespaceId,
    id: ObjectId,
    map: Structure,
    memory: *mut [u8],
}

/// The link maps of all objects.
#[derive(Default)]
pub struct LinkMaps {
    entries: Vec<Entry>,
    stand_ins: Vec<StandIn>,
    serial: u64,
    /// Whether link maps tell all names of a library: to audit modules.
    pub with_names: bool,
}

impl LinkMaps {
    /// The link map of an object; null if it has none.
    pub fn address(&self, id: ObjectId) -> *mut u8 {
        self.structure(id).map_or(core::ptr::null_mut(), |map| map.addr().as_mut_ptr())
    }

    /// The link map of an object.
    pub fn structure(&self, id: ObjectId) -> Option<Structure> {
        self.entries.iter().find(|e| e.id == id).map(|e| e.map)
    }

    /// Moves the tables, but not the link maps, out of the memory that a transaction which failed has taken.
    pub fn renew(&mut self) {
        memory::renew(&mut self.entries);
        memory::renew(&mut self.stand_ins);
    }

    /// The object whose link map this is.
    pub fn object(&self, map: *const u8) -> Option<ObjectId> {
        let own = self.entries.iter().map(|e| (e.map, e.id));
        let mut all = own.chain(self.stand_ins.iter().map(|s| (s.map, s.id)));
        all.find(|(known, _)| known.addr().0 == map as usize).map(|(_, id)| id)
    }

    /// Makes the link map of an object, unless it has one: where audit modules have been told of it.
    pub fn ensure(&mut self, layout: &Layout, linker: &Linker, id: ObjectId) {
        if !self.with_names || self.structure(id).is_none() {
            self.add(layout, linker, id);
        }
    }

    /// Makes the link map of an object. The load bias is added to its dynamic section where glibc does so, so its RELRO must still be
    /// writable.
    pub fn add(&mut self, layout: &Layout, linker: &Linker, id: ObjectId) {
        let object = &linker.objects[id];
        let names = if self.with_names { other_names(object) } else { Vec::new() };
        let size = layout.link_map.size + (names.len() + 1) * LIBNAME_SIZE;
        let memory = Box::into_raw(vec![0u8; size].into_boxed_slice());
        // SAFETY: the memory was just made, zeroed, and lives until `remove`.
        let map = unsafe { Structure::at(memory.cast(), size) };
        let origin = object.origin.so_far().map(|known| known.and_then(|o| CString::new(o).ok()));
        let fields = &layout.link_map;
        map.put_u64(fields.l_addr, object.image.bias.0);
        map.put_addr(fields.l_name, Addr(object.name.as_ptr() as usize));
        map.put_addr(fields.l_real, map.addr());
        map.put_u64(fields.l_ns, u64::from(object.namespace.0));
        map.put_addr(fields.l_libname, map.field(layout.link_map.size));
        // As in glibc the name that was asked for comes first, if it is known here; the file's name need not be among them.
        let first = core::iter::once(object.name.as_c_str()).filter(|_| names.is_empty());
        let mut at = layout.link_map.size;
        for (index, name) in first.chain(names.iter().map(CString::as_c_str)).enumerate() {
            map.put_addr(at, Addr(name.as_ptr() as usize));
            if index + 1 < names.len() {
                map.put_addr(at + LIBNAME_NEXT, map.field(at + LIBNAME_SIZE));
            }
            at += LIBNAME_SIZE;
        }
        // As in glibc: null where nobody has asked for it, -1 where it is unknown.
        let address = |o: &Option<CString>| o.as_ref().map_or(usize::MAX, |o| o.as_ptr() as usize);
        map.put_addr(fields.l_origin, Addr(origin.as_ref().map_or(0, address)));
        let origin = origin.flatten();
        self.image(layout, &map, object);
        dynamic(layout, &map, object);
        hash_table(layout, &map, object);
        map.put_bits(fields.l_type, link_type(object));
        map.put_u64(fields.l_serial, self.serial);
        self.serial += 1;
        self.entries.push(Entry { id, map, _origin: origin, _names: names, memory });
        self.refresh(layout, linker, id);
    }

    fn image(&self, layout: &Layout, map: &Structure, object: &Object) {
        let fields = &layout.link_map;
        let image = &object.image;
        let end = image.segments.last().map_or(image.range.end, |s| image.bias.run_time(s.memory.end));
        map.put_addr(fields.l_map_start, image.range.start);
        map.put_addr(fields.l_map_end, end);
        if let (Some(at), Some(text)) = (fields.l_text_end, image.segments.iter().rev().find(|s| s.prot.exec)) {
            map.put_addr(at, image.bias.run_time(text.memory.end));
        }
        map.put_bits(fields.l_contiguous, u8::from(image.gaps().next().is_none() || object.kind == Kind::Library));
        map.put_addr(fields.l_phdr, object.readable_headers());
        map.put_u16(fields.l_phnum, object.headers.len() as u16);
        map.put_addr(fields.l_entry, image.bias.run_time(object.entry));
        if let Some(file) = object.file {
            map.put_u64(fields.l_file_id, file.dev);
            map.put_u64(fields.l_file_id + 8, file.ino);
        }
        if let Some(relro) = &object.relro {
            map.put_u64(fields.l_relro_addr, relro.start.0);
            map.put_u64(fields.l_relro_size, relro.end.0 - relro.start.0);
        }
        map.put_u32(fields.l_flags_1, object.dynamic.flags_1 as u32);
    }

    /// Brings the fields up to date that change while an object lives.
    pub fn refresh(&self, layout: &Layout, linker: &Linker, id: ObjectId) {
        let Some(map) = self.structure(id) else {
            return;
        };
        let (object, fields) = (&linker.objects[id], &layout.link_map);
        map.put_bits(fields.l_relocated, u8::from(object.stage >= Stage::Relocated));
        map.put_bits(fields.l_init_called, u8::from(object.stage == Stage::Initialised));
        map.put_bits(fields.l_global, u8::from(object.global));
        map.put_u32(fields.l_direct_opencount, object.open_count);
        map.put_addr(fields.l_loader, Addr(object.loader.map_or(0, |loader| self.address(loader) as usize)));
        if let Some(tls) = &object.tls {
            map.put_addr(fields.l_tls_initimage, tls.image);
            map.put_u64(fields.l_tls_initimage_size, tls.image_size);
            map.put_u64(fields.l_tls_blocksize, tls.block_size);
            map.put_u64(fields.l_tls_align, tls.align);
            map.put_u64(fields.l_tls_firstbyte_offset, tls.first_byte);
            map.put_u64(fields.l_tls_modid, object.tls_state.get().module() as u64);
            let offset = match object.tls_state.get() {
                TlsState::Static { offset, .. } => offset,
                TlsState::Dynamic { .. } => FORCED_DYNAMIC,
                TlsState::None | TlsState::Undecided { .. } => 0,
            };
            map.put_u64(fields.l_tls_offset, offset);
        }
    }

    /// Says that an object is an audit module.
    pub fn mark_auditing(&self, layout: &Layout, id: ObjectId) {
        if let Some(map) = self.structure(id) {
            map.put_bits(layout.link_map.l_auditing, 1);
        }
    }

    /// How many live thread-local destructors an object has (`l_tls_dtor_count`, which libc counts).
    pub fn tls_destructors(&self, layout: &Layout, id: ObjectId) -> u64 {
        self.structure(id).map_or(0, |map| map.get_u64(layout.link_map.l_tls_dtor_count))
    }

    /// Frees the link map of an object that is gone from all lists.
    pub fn remove(&mut self, id: ObjectId) {
        if let Some(at) = self.entries.iter().position(|e| e.id == id) {
            let entry = self.entries.swap_remove(at);
            // SAFETY: the memory came from `Box::into_raw` in `add`, and nothing refers to it any more.
            drop(unsafe { Box::from_raw(entry.memory) });
        }
    }

    /// The link map that stands for an object in a namespace which is not its own.
    fn stand_in(&mut self, layout: &Layout, object: &Object, id: ObjectId, namespace: NamespaceId) -> Structure {
        if let Some(known) = self.stand_ins.iter().find(|s| (s.namespace, s.id) == (namespace, id)) {
            return known.map;
        }
        let memory = Box::into_raw(vec![0u8; layout.link_map.size + LIBNAME_SIZE].into_boxed_slice());
        // SAFETY: the memory was just made, zeroed, and lives until nothing refers to it.
        let map = unsafe { Structure::at(memory.cast(), layout.link_map.size + LIBNAME_SIZE) };
        let fields = &layout.link_map;
        // As in glibc: place and dynamic section are the interpreter's, the rest is found through `l_real`.
        map.put_u64(fields.l_addr, object.image.bias.0);
        map.put_addr(fields.l_ld, object.image.bias.run_time(object.dynamic_at));
        map.put_addr(fields.l_name, Addr(object.name.as_ptr() as usize));
        map.put_addr(fields.l_real, Addr(self.address(id) as usize));
        map.put_u64(fields.l_ns, u64::from(namespace.0));
        map.put_addr(fields.l_libname, map.field(fields.size));
        map.put_u64(fields.size, object.name.as_ptr() as u64);
        map.put_bits(fields.l_type, LT_LOADED);
        map.put_u64(fields.l_serial, self.serial);
        self.serial += 1;
        self.stand_ins.push(StandIn { namespace, id, map, memory });
        map
    }

    /// Where the link map lies that stands for the interpreter in a namespace which is not the program's.
    pub fn stand_in_address(&self, namespace: NamespaceId) -> Option<Addr> {
        self.stand_ins.iter().find(|s| s.namespace == namespace).map(|s| s.map.addr())
    }

    /// Frees what stands for objects in a namespace that no longer lists them. Its new list must have been published.
    fn remove_stand_ins(&mut self, linker: &Linker, namespace: NamespaceId) {
        let list = linker.namespaces.get(usize::from(namespace.0)).map_or(&[][..], |n| &n.list);
        self.stand_ins.retain(|s| {
            let stays = s.namespace != namespace || list.contains(&s.id);
            if !stays {
                // SAFETY: the memory came from `Box::into_raw` in `stand_in`, and nothing refers to it any more.
                drop(unsafe { Box::from_raw(s.memory) });
            }
            stays
        });
    }

    /// Chains the link maps of a namespace in list order and says so to libc; also of one that is empty now or gone.
    pub fn publish_list(&mut self, layout: &Layout, linker: &Linker, namespace: NamespaceId) {
        let list = linker.namespaces.get(usize::from(namespace.0)).map_or(&[][..], |n| &n.list);
        let fields = &layout.link_map;
        let mut maps: Vec<Structure> = Vec::with_capacity(list.len());
        for &id in list {
            match &linker.objects[id] {
                object if object.namespace != namespace => maps.push(self.stand_in(layout, object, id, namespace)),
                _ => maps.extend(self.structure(id)),
            }
        }
        let addr = |at: Option<&Structure>| at.map_or(Addr(0), Structure::addr);
        for (index, map) in maps.iter().enumerate() {
            map.put_addr(fields.l_next, addr(maps.get(index + 1)));
            map.put_addr(fields.l_prev, addr(index.checked_sub(1).and_then(|i| maps.get(i))));
        }
        let global = RTLD_GLOBAL.structure();
        let at = layout.rtld_global.dl_ns + usize::from(namespace.0) * layout.link_namespaces.size;
        global.put_addr(at + layout.link_namespaces.ns_loaded, addr(maps.first()));
        global.put_u32(at + layout.link_namespaces.ns_nloaded, maps.len() as u32);
        if namespace != BASE_NAMESPACE {
            let libc = list.iter().find(|id| linker.objects[**id].answers_to(SONAME));
            let libc = libc.and_then(|id| self.structure(*id));
            global.put_addr(at + layout.link_namespaces.libc_map, addr(libc.as_ref()));
            debugger::publish_list(namespace, addr(maps.first()));
            self.remove_stand_ins(linker, namespace);
        }
        global.put_u64(layout.rtld_global.dl_nns, linker.namespaces.len() as u64);
    }
}

/// `struct libname_list {name, next, dont_free}`, kept behind the link map.
const LIBNAME_SIZE: usize = 24;
const LIBNAME_NEXT: usize = 8;

/// The names by which a library was asked for and found.
fn other_names(object: &Object) -> Vec<CString> {
    if object.kind != Kind::Library {
        return Vec::new();
    }
    let asked = object.asked_as();
    let others = object.aliases.iter().map(Vec::as_slice).filter(|name| Some(*name) != asked);
    asked.into_iter().chain(others).filter_map(|name| CString::new(name).ok()).collect()
}

fn link_type(object: &Object) -> u8 {
    match (object.kind, object.stay) {
        (Kind::Executable, _) => LT_EXECUTABLE,
        (_, loader::object::Stay::UntilClosed) => LT_LOADED,
        _ => LT_LIBRARY,
    }
}

/// Points `l_info` at the entries of the dynamic section.
fn dynamic(layout: &Layout, map: &Structure, object: &Object) {
    let fields = &layout.link_map;
    if object.dynamic_at == VAddr(0) {
        return;
    }
    let at = object.image.bias.run_time(object.dynamic_at);
    map.put_addr(fields.l_ld, at);
    map.put_u16(fields.l_ldnum, object.dynamic.entries.len() as u16 + 1);
    let writable = object.image.writable(object.dynamic_at, DYN_SIZE as u64).is_some() && object.kind != Kind::Vdso;
    if let (Some(bit), false) = (fields.l_ld_readonly, writable) {
        map.put_bits(bit, 1);
    }
    for &(tag, index) in &object.dynamic.entries {
        let entry = VAddr(object.dynamic_at.0 + (index * DYN_SIZE) as u64);
        if let Some(slot) = fields.slot(tag as u64).filter(|slot| *slot < fields.l_info_len) {
            map.put_addr(fields.l_info + slot * 8, object.image.bias.run_time(entry));
        }
        let value = VAddr(entry.0 + 8);
        if writable && object.kind != Kind::Interpreter && RELOCATED_IN_PLACE.contains(&(tag as u64)) {
            if let Some(old) = object.image.read_u64(value) {
                // The entry lies in the object's writable segment, as was checked.
                object.image.write_u64(value, old.wrapping_add(object.image.bias.0));
            }
        }
    }
    if let Some(versym) = object.dynamic.versym {
        map.put_addr(fields.l_versyms, object.image.bias.run_time(versym));
    }
}

/// The GNU hash table in the form in which `_dl_addr` walks it.
fn hash_table(layout: &Layout, map: &Structure, object: &Object) {
    let Some(at) = object.dynamic.gnu_hash else {
        return;
    };
    let view = object.image.view();
    let word = |index: usize| view.bytes(at, 16).and_then(|b| u32_at(b, index * 4)).unwrap_or(0);
    let (buckets, base, bloom_words, shift) = (word(0), word(1), word(2), word(3));
    let fields = &layout.link_map;
    let bloom = object.image.bias.run_time(VAddr(at.0 + 16));
    let bucket_table = bloom.0 + bloom_words as usize * 8;
    let chain = (bucket_table + buckets as usize * 4).wrapping_sub(base as usize * 4);
    map.put_u32(fields.l_nbuckets, buckets);
    map.put_u32(fields.l_gnu_bitmask_idxbits, bloom_words.wrapping_sub(1));
    map.put_u32(fields.l_gnu_shift, shift);
    map.put_addr(fields.l_gnu_bitmask, bloom);
    map.put_addr(fields.l_gnu_buckets, Addr(bucket_table));
    map.put_addr(fields.l_gnu_chain_zero, Addr(chain));
}
