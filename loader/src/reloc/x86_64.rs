//! The relocation types of x86-64 (psABI table "Relocation Types").

use super::binder::{Binding, Resolved};
use super::Services;
use crate::addr::{VAddr, PAGE_SIZE};
use crate::elf::dynamic::Table;
use crate::elf::symbols::Sym;
use crate::elf::view::u64_at;
use crate::error::{LoadError, Lossy, Reason};
use crate::image::Image;
use crate::lookup::Class;
use crate::memory;
use crate::object::{Object, ObjectId};
use crate::rule::{holds, Rule};
use crate::statistics::RELATIVE;
use crate::sys;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use goblin::elf64::reloc::{self, Rela};

/// A relocation that waits for the second pass.
#[derive(Clone, Copy)]
pub struct Deferred {
    object: ObjectId,
    rela: Rela,
}

/// What happens to the PLT slots of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PltMode {
    /// Each is bound at its first call.
    Lazy,
    /// All are bound now; those that can't be are left to their first call, which reports it.
    Eager,
    /// All are bound now, and a missing definition is an error (`LD_BIND_NOW`, `DF_BIND_NOW`).
    Now,
}

/// `LD_WARN`: a variable is also warned of that is smaller in its library than the copy in the program.
pub static WARNS_OF_SMALLER: AtomicBool = AtomicBool::new(false);

/// From how many bytes on a run of pages is worth a system call.
const LONG_RUN: u64 = 8 * PAGE_SIZE;

pub(super) fn kind(rela: &Rela) -> u32 {
    (rela.r_info & 0xffff_ffff) as u32
}

pub(super) fn symbol_index(rela: &Rela) -> u32 {
    (rela.r_info >> 32) as u32
}

/// What is added to a symbol's address: nothing in the GOT, whose entries are the bare address (psABI: "S").
fn addend_of_address(rela: &Rela) -> u64 {
    match kind(rela) {
        reloc::R_X86_64_GLOB_DAT | reloc::R_X86_64_JUMP_SLOT => 0,
        _ => rela.r_addend as u64,
    }
}

/// Applies the relocations of one object; what must wait is appended to `deferred`.
///
/// # Errors
/// The first relocation that can't be applied.
pub fn relocate(
    binding: &Binding<'_, '_>,
    plt: PltMode,
    services: &dyn Services,
    deferred: &mut Vec<Deferred>,
) -> Result<(), LoadError> {
    let object = binding.object;
    tell_begin(object, plt == PltMode::Lazy);
    let pass = Pass {
        binding,
        object,
        image: &object.image,
        services,
        name: object.display_name(),
        window: Cell::new((1, 0)),
    };
    if let Some(table) = object.dynamic.relr {
        pass.relr(table)?;
    }
    let (rela, plt_rela) = tables(object);
    if let Some(table) = rela {
        let relocations = pass.records(table)?;
        let relative = (object.dynamic.relative_count as usize).min(relocations.len());
        pass.relative(&relocations[..relative])?;
        for rela in &relocations[relative..] {
            pass.apply(rela, deferred)?;
        }
    }
    if let Some(table) = plt_rela {
        let mode = if plt == PltMode::Lazy && !pass.prepare_lazy()? { PltMode::Eager } else { plt };
        for rela in pass.records(table)? {
            pass.slot(rela, mode, deferred)?;
        }
    }
    Ok(())
}

/// The relocation tables: some linkers count the PLT's records into `DT_RELASZ` too, and nothing may be applied twice.
fn tables(object: &Object) -> (Option<Table>, Option<Table>) {
    let (mut rela, plt) = (object.dynamic.rela, object.dynamic.plt_rela);
    if let (Some(all), Some(part)) = (&mut rela, plt) {
        // Both ends were checked not to overflow when the section was parsed.
        if part.at >= all.at && part.at.0 + part.size == all.at.0 + all.size {
            all.size -= part.size;
        }
    }
    (rela, plt)
}

/// The relocation records of an object: those of data, and those of the PLT.
///
/// # Errors
/// A table that does not lie in the object.
pub(super) fn records_of(object: &Object) -> Result<(&'static [Rela], &'static [Rela]), LoadError> {
    let read = |table: Option<Table>| table.map_or(Ok(&[][..]), |table| records(object, table));
    let (rela, plt) = tables(object);
    Ok((read(rela)?, read(plt)?))
}

fn records(object: &Object, table: Table) -> Result<&'static [Rela], LoadError> {
    let malformed = |what| LoadError::new(object.display_name(), Reason::Malformed { what, at: table.at.0 });
    let bad = || malformed("relocation table outside the object");
    let bytes = object.image.view().bytes(table.at, table.size).ok_or_else(bad)?;
    if bytes.len() % core::mem::size_of::<Rela>() != 0 {
        return Err(malformed("relocation table with a partial entry"));
    }
    plain::slice_from_bytes(bytes).map_err(|_| bad())
}

/// Applies what was put off, in the order of the objects given to the first pass.
///
/// # Errors
/// The first relocation that can't be applied.
///
/// # Safety
/// All objects that the resolvers may use must have been through the first pass, and the thread pointer must be set up.
pub unsafe fn run_deferred(
    deferred: &[Deferred],
    binder: &super::Binder<'_>,
    services: &dyn Services,
) -> Result<(), LoadError> {
    let mut start = 0;
    while start < deferred.len() {
        let id = deferred[start].object;
        let count = deferred[start..].iter().take_while(|d| d.object == id).count();
        let binding = binder.object(id);
        let object = binding.object;
        let pass = Pass {
            binding: &binding,
            object,
            image: &object.image,
            services,
            name: object.display_name(),
            window: Cell::new((1, 0)),
        };
        let batch = &deferred[start..start + count];
        // Resolvers of one object may use each other's results through its own symbols first, IRELATIVE last, as in the file.
        for is_irelative in [false, true] {
            for d in batch.iter().filter(|d| (kind(&d.rela) == reloc::R_X86_64_IRELATIVE) == is_irelative) {
                // SAFETY: the caller's contract.
                unsafe { pass.finish(&d.rela)? };
            }
        }
        start += count;
    }
    Ok(())
}

struct Pass<'p, 'b, 'o> {
    binding: &'p Binding<'b, 'o>,
    object: &'o Object,
    image: &'o Image,
    services: &'p dyn Services,
    name: &'o [u8],
    /// First and last address at which eight bytes were last found to be writable: the next store is mostly to the same segment.
    window: Cell<(u64, u64)>,
}

impl Pass<'_, '_, '_> {
    fn malformed(&self, what: &'static str, at: u64) -> LoadError {
        LoadError::new(self.name, Reason::Malformed { what, at })
    }

    fn outside(&self, at: u64) -> LoadError {
        self.malformed("relocation outside its segment", at)
    }

    fn records(&self, table: Table) -> Result<&'static [Rela], LoadError> {
        records(self.object, table)
    }

    #[inline]
    fn store(&self, at: u64, value: u64) -> Result<(), LoadError> {
        let word = self.word(at)?;
        // SAFETY: the eight bytes lie in a writable segment, and no reference to them is live while relocations are applied.
        unsafe { word.write_unaligned(value) };
        Ok(())
    }

    /// The eight bytes at a link-time address, which lie in a writable segment.
    #[inline]
    fn word(&self, at: u64) -> Result<*mut u64, LoadError> {
        let (first, last) = self.window.get();
        if at < first || at > last {
            self.move_window(at)?;
        }
        Ok(self.image.bias.run_time(VAddr(at)).as_mut_ptr())
    }

    #[cold]
    #[inline(never)]
    fn move_window(&self, at: u64) -> Result<(), LoadError> {
        let segment = self.image.writable(VAddr(at), 8).ok_or_else(|| self.outside(at))?;
        self.window.set((segment.memory.start.0, segment.memory.end.0 - 8));
        Ok(())
    }

    /// `R_X86_64_RELATIVE` in bulk: most of all relocations of most objects, sorted by address.
    fn relative(&self, relocations: &[Rela]) -> Result<(), LoadError> {
        let bias = self.image.bias;
        RELATIVE.add(relocations.len() as u64);
        self.populate(relocations);
        for rela in relocations {
            if kind(rela) != reloc::R_X86_64_RELATIVE {
                return Err(LoadError::new(self.name, Reason::RelocationType(kind(rela))));
            }
            self.store(rela.r_offset, bias.run_time(VAddr(rela.r_addend as u64)).0 as u64)?;
        }
        Ok(())
    }

    /// Has long runs of pages that the relocations will write made the process's own at one go. RELRO is that already.
    fn populate(&self, relocations: &[Rela]) {
        let relro = self.object.relro.clone().unwrap_or(VAddr(0)..VAddr(0));
        let mut run = VAddr(0)..VAddr(0);
        let finish = |run: &Range<VAddr>| {
            let is_data =
                self.image.writable(run.start, 1).is_some_and(|s| run.end <= s.pages.end && run.start >= s.pages.start);
            if run.end.0 - run.start.0 >= LONG_RUN && is_data {
                sys::populate_for_writing(self.image.run_time(run));
            }
        };
        for rela in relocations {
            let page = VAddr(rela.r_offset).page_floor();
            if run.contains(&page) || relro.contains(&page) {
                continue;
            }
            if page != run.end {
                finish(&run);
                run.start = page;
            }
            run.end = page.checked_add(PAGE_SIZE).unwrap_or(page);
        }
        finish(&run);
    }

    /// `DT_RELR`: addresses of words to which the bias is added, packed as an address followed by bitmaps of the next 63 words (gABI).
    fn relr(&self, table: Table) -> Result<(), LoadError> {
        let bad = || self.malformed("DT_RELR table outside the object", table.at.0);
        let bytes = self.image.view().bytes(table.at, table.size).ok_or_else(bad)?;
        let mut next = VAddr(0);
        for index in 0..bytes.len() / 8 {
            let entry = u64_at(bytes, index * 8).ok_or_else(bad)?;
            if entry & 1 == 0 {
                self.add_bias(VAddr(entry))?;
                next = VAddr(entry.wrapping_add(8));
            } else {
                let mut bits = if holds(Rule::RelrBitmaps) { entry >> 1 } else { 0 };
                while bits != 0 {
                    self.add_bias(VAddr(next.0.wrapping_add(8 * u64::from(bits.trailing_zeros()))))?;
                    bits &= bits - 1;
                }
                next = VAddr(next.0.wrapping_add(8 * 63));
            }
        }
        Ok(())
    }

    #[inline]
    fn add_bias(&self, at: VAddr) -> Result<(), LoadError> {
        let word = self.word(at.0)?;
        // SAFETY: as for `store`; what is writable is readable on x86.
        unsafe { word.write_unaligned(word.read_unaligned().wrapping_add(self.image.bias.0)) };
        Ok(())
    }

    /// Makes the PLT header of this object reach the lazy trampoline; false if it has no writable header words to do so.
    fn prepare_lazy(&self) -> Result<bool, LoadError> {
        let Some(got) = self.object.dynamic.plt_got else {
            return Ok(false);
        };
        if self.image.writable(got, 24).is_none() {
            return Ok(false);
        }
        self.store(got.0 + 8, self.services.lazy_cookie(self.binding.id))?;
        self.store(got.0 + 16, self.services.lazy_trampoline().0 as u64)?;
        Ok(true)
    }

    fn slot(&self, rela: &Rela, mode: PltMode, deferred: &mut Vec<Deferred>) -> Result<(), LoadError> {
        if kind(rela) != reloc::R_X86_64_JUMP_SLOT || mode == PltMode::Now {
            return self.apply(rela, deferred);
        }
        if mode == PltMode::Eager {
            let index = symbol_index(rela);
            if !(self.binding.is_direct_to_protected(index) && self.prepare_lazy()?) {
                // What has no definition yet, weak or not, may have one when it is called.
                match self.binding.resolve(index, Class::Plt) {
                    Ok(Resolved::UndefinedWeak) if self.prepare_lazy()? => {}
                    Err(LoadError { reason: Reason::UndefinedSymbol { .. }, .. }) if self.prepare_lazy()? => {}
                    Err(error) => return Err(error),
                    Ok(_) => return self.apply(rela, deferred),
                }
            }
        }
        // The slot holds the link-time address of the PLT entry's second half, which asks for binding.
        self.add_bias(VAddr(rela.r_offset))
    }

    fn apply(&self, rela: &Rela, deferred: &mut Vec<Deferred>) -> Result<(), LoadError> {
        let wait = Deferred { object: self.binding.id, rela: *rela };
        let (at, addend) = (rela.r_offset, rela.r_addend as u64);
        match kind(rela) {
            reloc::R_X86_64_NONE => Ok(()),
            reloc::R_X86_64_RELATIVE => self.store(at, self.image.bias.run_time(VAddr(addend)).0 as u64),
            reloc::R_X86_64_IRELATIVE => self.defer(wait, deferred),
            reloc::R_X86_64_COPY => {
                self.tell_copy(rela)?;
                self.defer(wait, deferred)
            }
            reloc::R_X86_64_GLOB_DAT | reloc::R_X86_64_64 => self.address(rela, Class::Data, deferred),
            reloc::R_X86_64_JUMP_SLOT => self.address(rela, Class::Plt, deferred),
            reloc::R_X86_64_32 | reloc::R_X86_64_PC32 => {
                let resolved = self.binding.resolve(symbol_index(rela), Class::Data)?;
                if resolved.is_ifunc() {
                    return self.defer(wait, deferred);
                }
                self.narrow(rela, self.binding.address(&resolved))
            }
            reloc::R_X86_64_SIZE32 | reloc::R_X86_64_SIZE64 => self.size(rela),
            reloc::R_X86_64_DTPMOD64 | reloc::R_X86_64_DTPOFF64 | reloc::R_X86_64_TPOFF64 | reloc::R_X86_64_TLSDESC => {
                self.thread_local(rela)
            }
            other => Err(LoadError::new(self.name, Reason::RelocationType(other))),
        }
    }

    fn address(&self, rela: &Rela, class: Class, deferred: &mut Vec<Deferred>) -> Result<(), LoadError> {
        let resolved = self.binding.resolve(symbol_index(rela), class)?;
        if resolved.is_ifunc() {
            // The slot is checked now, so that nothing can fail once foreign code has run.
            self.image.writable(VAddr(rela.r_offset), 8).ok_or_else(|| self.outside(rela.r_offset))?;
            return self.defer(Deferred { object: self.binding.id, rela: *rela }, deferred);
        }
        self.store(rela.r_offset, self.binding.address(&resolved).wrapping_add(addend_of_address(rela)))
    }

    fn defer(&self, wait: Deferred, deferred: &mut Vec<Deferred>) -> Result<(), LoadError> {
        memory::push(deferred, wait).map_err(|reason| LoadError::new(self.name, reason))
    }

    /// `R_X86_64_32` and `R_X86_64_PC32`. A value that does not fit is reported and stored truncated, as glibc does.
    fn narrow(&self, rela: &Rela, value: u64) -> Result<(), LoadError> {
        let mut value = value.wrapping_add(rela.r_addend as u64);
        let (fits, relocation) = if kind(rela) == reloc::R_X86_64_32 {
            (u32::try_from(value).is_ok(), "R_X86_64_32")
        } else {
            value = value.wrapping_sub(self.image.bias.run_time(VAddr(rela.r_offset)).0 as u64);
            (i32::try_from(value as i64).is_ok(), "R_X86_64_PC32")
        };
        if !fits && holds(Rule::OverflowChecked) {
            let name = self.object.symbols.get(symbol_index(rela)).map_or(&b""[..], |s| self.object.symbols.name(s));
            let reason = Reason::Overflow { symbol: name.to_vec(), relocation };
            log::warn!("{reason}");
        }
        self.image.write_u32(VAddr(rela.r_offset), value as u32).ok_or_else(|| self.outside(rela.r_offset))
    }

    fn size(&self, rela: &Rela) -> Result<(), LoadError> {
        let resolved = self.binding.resolve(symbol_index(rela), Class::Data)?;
        let size = self.binding.definer(&resolved).and_then(|(_, _, symbol)| symbol).map_or(0, |s| s.st_size);
        let value = size.wrapping_add(if holds(Rule::SizeAddend) { rela.r_addend as u64 } else { 0 });
        if kind(rela) == reloc::R_X86_64_SIZE64 {
            return self.store(rela.r_offset, value);
        }
        self.image.write_u32(VAddr(rela.r_offset), value as u32).ok_or_else(|| self.outside(rela.r_offset))
    }

    fn thread_local(&self, rela: &Rela) -> Result<(), LoadError> {
        let resolved = self.binding.resolve(symbol_index(rela), Class::Plt)?;
        let (at, addend) = (rela.r_offset, rela.r_addend as u64);
        let definer = self.binding.definer(&resolved);
        let value = match definer {
            Some((_, _, Some(symbol))) => symbol.st_value.wrapping_add(addend),
            _ => addend,
        };
        let needs_block = matches!(kind(rela), reloc::R_X86_64_TPOFF64 | reloc::R_X86_64_TLSDESC);
        if needs_block && definer.is_some_and(|(_, definer, _)| definer.tls.is_none()) {
            return Err(self.malformed("thread-local relocation against an object without TLS", at));
        }
        match (kind(rela), definer) {
            (reloc::R_X86_64_DTPMOD64, Some((_, definer, _))) => {
                self.store(at, definer.tls_state.get().module() as u64)
            }
            (reloc::R_X86_64_DTPMOD64, None) => Ok(()),
            (reloc::R_X86_64_DTPOFF64, _) => self.store(at, value),
            (reloc::R_X86_64_TPOFF64, Some((id, definer, _))) => {
                let offset = self.services.static_tls_offset(id, definer)?;
                self.store(at, value.wrapping_sub(offset))
            }
            (reloc::R_X86_64_TPOFF64, None) => Ok(()),
            (_, Some((id, definer, _))) => {
                let (entry, argument) = self.services.tls_descriptor(id, definer, value)?;
                self.store(at, entry.0 as u64)?;
                self.store(at.wrapping_add(8), argument)
            }
            (_, None) => {
                self.store(at, self.services.tls_descriptor_undefined().0 as u64)?;
                self.store(at.wrapping_add(8), addend)
            }
        }
    }

    /// The second pass over one relocation.
    ///
    /// # Safety
    /// As for [`run_deferred`].
    unsafe fn finish(&self, rela: &Rela) -> Result<(), LoadError> {
        let (at, addend) = (rela.r_offset, rela.r_addend as u64);
        let kind = kind(rela);
        if kind == reloc::R_X86_64_IRELATIVE {
            let resolver = self.image.bias.run_time(VAddr(addend));
            // SAFETY: the caller's contract.
            return self.store(at, unsafe { self.call(resolver) }?);
        }
        if kind == reloc::R_X86_64_COPY {
            return self.copy(rela);
        }
        let class = if kind == reloc::R_X86_64_JUMP_SLOT { Class::Plt } else { Class::Data };
        let resolved = self.binding.resolve_again(symbol_index(rela), class)?;
        let resolver = crate::addr::Addr(self.binding.address(&resolved) as usize);
        // SAFETY: the caller's contract.
        let value = unsafe { self.call(resolver) }?;
        if kind == reloc::R_X86_64_32 || kind == reloc::R_X86_64_PC32 {
            return self.narrow(rela, value);
        }
        self.store(at, value.wrapping_add(addend_of_address(rela)))
    }

    /// Calls an IFUNC resolver, which must lie in the code of a loaded object.
    ///
    /// # Safety
    /// As for [`run_deferred`].
    unsafe fn call(&self, resolver: crate::addr::Addr) -> Result<u64, LoadError> {
        let code = |o: &Object| {
            let at = o.image.bias.link_time(resolver);
            o.image.range.contains(&resolver) && o.image.segment(at, 1).is_some_and(|s| s.prot.exec)
        };
        if !code(self.object) && !self.binding.objects().iter().any(|(_, o)| code(o)) {
            return Err(self.malformed("IFUNC resolver outside the code of the object", resolver.0 as u64));
        }
        // SAFETY: the address lies in executable memory of an object that the file says is a resolver.
        Ok(unsafe { self.services.call_resolver(resolver) })
    }

    /// Tells `LD_DEBUG` of a copy that is made later, in its place among the relocations of the object.
    fn tell_copy(&self, rela: &Rela) -> Result<(), LoadError> {
        if ["symbols", "bindings"].iter().any(|target| log::log_enabled!(target: target, log::Level::Trace)) {
            self.binding.resolve(symbol_index(rela), Class::Copy)?;
        }
        Ok(())
    }

    /// `R_X86_64_COPY`: the initial value of a variable moves from its library into the executable.
    fn copy(&self, rela: &Rela) -> Result<(), LoadError> {
        let index = symbol_index(rela);
        let resolved = self.binding.resolve_again(index, Class::Copy)?;
        let (Some((_, definer, Some(original))), Some(reference)) =
            (self.binding.definer(&resolved), self.object.symbols.get(index))
        else {
            return Ok(());
        };
        let size = if holds(Rule::CopyRelocation) { original.st_size.min(reference.st_size) } else { 0 };
        warn_of_size(self.object, reference, original);
        if definer.image.segment(VAddr(original.st_value), size).is_none_or(|s| !s.prot.read) {
            return Err(self.malformed("copied symbol outside its object", original.st_value));
        }
        let from = definer.image.bias.run_time(VAddr(original.st_value));
        // SAFETY: the source was just found to lie in a readable segment.
        unsafe { self.image.copy_in(VAddr(rela.r_offset), from, size) }.ok_or_else(|| self.outside(rela.r_offset))
    }
}

/// Tells `LD_DEBUG` that the relocations of an object come now.
pub(super) fn tell_begin(object: &Object, is_lazy: bool) {
    let lazily = if is_lazy { " (lazy)" } else { "" };
    log::debug!(target: "reloc", "\nrelocation processing: {}{lazily}", Lossy(object.display_name()));
}

/// Warns of a variable that its library has in another size than the executable has room for.
pub(super) fn warn_of_size(object: &Object, reference: &Sym, original: &Sym) {
    let is_smaller = original.st_size < reference.st_size;
    if original.st_size > reference.st_size || (is_smaller && WARNS_OF_SMALLER.load(Ordering::Relaxed)) {
        log::warn!(
            "Symbol `{}' has different size in shared object, consider re-linking",
            Lossy(object.symbols.name(reference))
        );
    }
}
