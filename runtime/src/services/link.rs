//! Linking the new objects of a transaction: versions, static TLS, relocation, RELRO.

use super::{lazy, tlsdesc};
use crate::audit;
use crate::glibc::thread::Stacks;
use crate::glibc::tls;
use crate::process::StaticTls;
use crate::profile;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use loader::addr::Addr;
use loader::error::LoadError;
use loader::got;
use loader::linker::Linker;
use loader::map::apply::replace_data_at_run_time;
use loader::memory;
use loader::object::{Kind, NamespaceId, Object, ObjectId, Stage};
use loader::reloc::{self, Binder, Deferred, Dependency, PltMode, Services};
use loader::rule::{holds, Rule};
use loader::seal::tunables::SealLevel;
use loader::sys::{self, Prot};
use loader::tls::TlsState;

/// What relocation needs of the process.
pub struct LinkServices<'s> {
    /// The stacks of all threads; `None` where no module can become static.
    pub stacks: Option<&'s Stacks>,
    /// The room for static TLS.
    pub static_tls: Cell<StaticTls>,
    /// Modules that were there before this transaction and have been placed there during it.
    made_static: RefCell<Vec<usize>>,
    before: StaticTls,
    /// Where the PLT header of the object that is being relocated leads, and its cookie, if that is not the usual way.
    entry: Cell<Option<(Addr, u64)>>,
}

impl<'s> LinkServices<'s> {
    /// With that much static TLS in use.
    pub fn new(static_tls: StaticTls, stacks: Option<&'s Stacks>) -> LinkServices<'s> {
        LinkServices {
            stacks,
            static_tls: Cell::new(static_tls),
            made_static: RefCell::default(),
            before: static_tls,
            entry: Cell::new(None),
        }
    }

    /// Gives a module that nobody has used yet a place in the static TLS of all threads. What could do without takes no more than
    /// `glibc.rtld.optional_static_tls` says, of which as in glibc nothing comes back when it is closed.
    fn make_static(&self, object: &Object, is_optional: bool) -> Option<u64> {
        let (TlsState::Undecided { module }, Some(segment)) = (object.tls_state.get(), object.tls) else {
            return None;
        };
        let mut room = self.static_tls.get();
        let (used, align) = (room.layout.used, room.layout.align);
        let offset = room.layout.place(&segment).filter(|o| *o <= room.room && segment.align <= align)?;
        if is_optional {
            room.optional = room.optional.checked_sub(room.layout.used.saturating_sub(used))?;
        }
        // What is only being loaded is unknown to threads; they get its image at the commit, when it is relocated.
        if object.stage >= Stage::Relocated {
            // SAFETY: the offset lies within the static TLS of every thread, and the image is relocated.
            if !self.stacks.is_some_and(|stacks| unsafe { tls::make_static(stacks, module, &segment, offset) }) {
                return None;
            }
            self.made_static.borrow_mut().push(module);
        }
        self.static_tls.set(room);
        object.tls_state.set(TlsState::Static { module, offset });
        Some(offset)
    }

    /// Undoes what a transaction that failed has decided about objects that were there before it; the static TLS that is in use then. What
    /// another thread has used meanwhile stays where it is.
    pub fn take_back(&self, linker: &Linker) -> StaticTls {
        let mut in_use = self.before;
        for &module in self.made_static.borrow().iter() {
            let Some(id) = linker.tls_modules.get(module.wrapping_sub(1)).copied().flatten() else {
                continue;
            };
            let state = &linker.objects[id].tls_state;
            if tls::take_static_back(module) {
                state.set(TlsState::Undecided { module });
            } else if let Some(offset) = state.get().static_offset() {
                in_use.layout.used = in_use.layout.used.max(offset);
            }
        }
        in_use
    }
}

impl Services for LinkServices<'_> {
    fn static_tls_offset(&self, _id: ObjectId, object: &Object) -> Result<u64, LoadError> {
        if let Some(offset) = object.tls_state.get().static_offset() {
            return Ok(offset);
        }
        self.make_static(object, false)
            .ok_or_else(|| LoadError::fault(object.display_name(), "cannot allocate memory in static TLS block"))
    }

    fn tls_descriptor(&self, _id: ObjectId, object: &Object, value: u64) -> Result<(Addr, u64), LoadError> {
        // Static as long as there is room for that: an access then never allocates.
        if let Some(offset) = object.tls_state.get().static_offset().or_else(|| self.make_static(object, true)) {
            return Ok((tlsdesc::static_entry(), value.wrapping_sub(offset)));
        }
        memory::ensure(memory::STEP).map_err(|reason| LoadError::new(object.display_name(), reason))?;
        Ok(tlsdesc::dynamic(object.tls_state.get().module(), value))
    }

    fn tls_descriptor_undefined(&self) -> Addr {
        tlsdesc::undefined_entry()
    }

    fn lazy_trampoline(&self) -> Addr {
        self.entry.get().map_or_else(lazy::trampoline, |(entry, _)| entry)
    }

    fn lazy_cookie(&self, id: ObjectId) -> u64 {
        self.entry.get().map_or(u64::from(id.0), |(_, cookie)| cookie)
    }

    unsafe fn call_resolver(&self, resolver: Addr) -> u64 {
        // SAFETY: the caller's contract.
        unsafe { super::call_resolver(resolver) }
    }
}

/// How the PLT slots of an object are bound, given what the process or the dlopen asks for.
pub fn plt_mode(object: &Object, wanted: PltMode) -> PltMode {
    let usual = if object.dynamic.binds_now() { PltMode::Now } else { wanted };
    audit::plt::mode(object, profile::mode(usual, wanted), wanted)
}

/// Relocates `objects` (in this order; dependencies first) and protects their RELRO. What is returned follows from references to objects
/// that may be unloaded.
///
/// # Errors
/// The first relocation that can't be applied, or protection that can't be changed.
///
/// # Safety
/// The thread pointer must be set up: IFUNC resolvers are called.
pub unsafe fn relocate(
    linker: &mut Linker,
    namespace: NamespaceId,
    objects: &[ObjectId],
    wanted: PltMode,
    services: &LinkServices<'_>,
) -> Result<Vec<Dependency>, LoadError> {
    let change = |object: &mut Object, writable| {
        object.image.set_text_writable(writable).map_err(|errno| {
            LoadError::system(object.name.to_bytes(), "cannot make segment writable for relocation", errno)
        })
    };
    let has_textrel = |object: &Object| object.dynamic.has_flag(goblin::elf64::dynamic::DF_TEXTREL);
    for &id in objects {
        if has_textrel(&linker.objects[id]) {
            change(&mut linker.objects[id], true)?;
        }
    }
    let dependencies = {
        let scope = linker.namespace(namespace);
        let binder = Binder::new(&linker.objects, scope.global_scope.iter().copied(), &scope.unique);
        let mut deferred: Vec<Deferred> = Vec::new();
        for &id in objects {
            services.entry.set(audit::plt::entry(linker, id)?);
            let binding = binder.object(id);
            reloc::relocate(&binding, plt_mode(binding.object, wanted), services, &mut deferred)?;
        }
        // From here on code of the new objects may run.
        lazy::publish(linker);
        // Code of an object with text relocations can't be executed while its text is writable, so it can't have resolvers that run
        // here; everything else is relocated now.
        // SAFETY: all objects of the transaction have been through the first pass, the others through both.
        unsafe { reloc::run_deferred(&deferred, &binder, services)? };
        binder.dependencies.into_inner()
    };
    audit::bindings::bound_at_once(linker, objects, wanted);
    for &id in objects {
        if has_textrel(&linker.objects[id]) {
            change(&mut linker.objects[id], false)?;
        }
        linker.objects[id].stage = Stage::Relocated;
    }
    Ok(dependencies)
}

/// Makes read-only what of an object is not written again: RELRO, and at level 2, where all slots of the PLT are bound by now that can
/// be, the pages that hold nothing else. These become anonymous memory, whose contents a seal keeps as well.
///
/// # Errors
/// The kernel refuses.
pub fn protect(object: &Object, level: SealLevel) -> Result<(), LoadError> {
    protect_relro(object)?;
    let slots = if level == SealLevel::Enforced { got::pages(object).map(|pages| pages.own) } else { None };
    let Some(slots) = slots.filter(|own| own.start < own.end) else {
        return Ok(());
    };
    let pages = object.image.run_time(&slots);
    let protect = || {
        // SAFETY: if it fails the object is given up, or the process ends.
        unsafe { replace_data_at_run_time(pages.clone())? };
        // SAFETY: the last snapshot says that these slots are not to be written.
        unsafe { sys::protect(pages.clone(), Prot::READ) }
    };
    protect().map_err(|errno| {
        LoadError::system(object.display_name(), "cannot apply additional memory protection after relocation", errno)
    })
}

/// Makes the RELRO of an object read-only.
///
/// # Errors
/// The kernel refuses.
pub fn protect_relro(object: &Object) -> Result<(), LoadError> {
    let Some(relro) = object.relro.as_ref().filter(|_| object.kind != Kind::Vdso && holds(Rule::RelroProtected)) else {
        return Ok(());
    };
    // SAFETY: nothing writes these pages once the object is relocated: that is what PT_GNU_RELRO says.
    unsafe { sys::protect(object.image.run_time(relro), Prot::READ) }.map_err(|errno| {
        LoadError::system(object.display_name(), "cannot apply additional memory protection after relocation", errno)
    })
}
