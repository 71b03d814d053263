//! Starting a static program: it is mapped and sealed here, and does all else itself.

use super::{disguise, objects, Failure, Request, Target};
use crate::initial_stack::{AuxKey, InitialStack};
use crate::logger;
use crate::services::{link, seal as services};
use core::ffi::CStr;
use loader::addr::Addr;
use loader::errno;
use loader::error::{LoadError, Lossy};
use loader::file::Opened;
use loader::object::Object;
use loader::program;
use loader::seal::plan::SealPlan;
use loader::seal::tunables::SealLevel;
use loader::seal::{apply, marks};
use loader::static_program::{self, StaticProgram};
use loader::sys;
use rustix::io::Errno;

/// Maps and seals a static program, if that is asked for: by the launcher, or by level 2. Else the kernel runs it, as under glibc's ld.so.
///
/// # Errors
/// It can't be mapped.
// Apart, so that the stack of other starts is not the larger for it.
#[inline(never)]
pub fn start(
    stack: &mut InitialStack,
    request: &Request,
    opened: Opened,
    base: Addr,
    dynamic: Addr,
) -> Result<Target, Failure> {
    if !request.options.launched {
        let name = request.program.unwrap_or(&opened.path);
        if request.seal.level != SealLevel::Enforced {
            execute(stack, name);
        }
        if let Err(errno) = sys::may_execute(name) {
            cannot_execute(name, errno);
        }
    }
    let path = opened.path.clone();
    let mut tunables = request.seal;
    let loaded = static_program::load(opened, path.to_bytes(), tunables.image_memory())?;
    tunables.judge_program(|| marks::asks_for_seal(&loaded.headers, &loaded.image));
    if loaded.executable_stack {
        let page = stack.start().page_floor();
        // SAFETY: no code lies on a stack that was not executable before.
        unsafe { sys::protect_downwards(page..Addr(page.0 + 4096), true) }
            .map_err(|e| LoadError::system(path.to_bytes(), "cannot enable executable stack", e))?;
    }
    tell(stack, request, &loaded);
    let interpreter = objects::adopt_interpreter(base, dynamic, objects::InterpreterNames::only(c"ld-seal.so".into()))?;
    let vdso = objects::vdso(stack)?;
    commit(path.to_bytes(), &loaded, &interpreter, vdso.as_deref(), &tunables)?;
    // A static program takes what is in rdx for a function to call at its end.
    Ok(Target { entry: loaded.entry.0, at_exit: 0 })
}

/// Lets the auxiliary vector be what the kernel would have given the program.
fn tell(stack: &mut InitialStack, request: &Request, loaded: &StaticProgram) {
    stack.set_aux(AuxKey::Phdr, loaded.headers_at.0);
    stack.set_aux(AuxKey::Phnum, loaded.headers.len());
    stack.set_aux(AuxKey::Entry, loaded.entry.0);
    stack.set_aux(AuxKey::Base, 0);
    if let Some(name) = request.options.execfn.or(request.program) {
        stack.set_aux(AuxKey::ExecFn, name.as_ptr() as usize);
    }
    if request.options.launched {
        disguise::show_auxv(stack, request.shown);
    }
}

/// Seals the program, what remains of this loader, and the vDSO. Nothing that can fail follows the first seal.
fn commit(
    name: &[u8],
    loaded: &StaticProgram,
    interpreter: &Object,
    vdso: Option<&Object>,
    tunables: &loader::seal::tunables::SealTunables<'_>,
) -> Result<(), Failure> {
    let mut plan = program::seal_plan_of_static(name, loaded, interpreter, vdso, tunables);
    let is_enforced = tunables.level == SealLevel::Enforced;
    if is_enforced {
        program::add_kernel_data(&mut plan, vdso, tunables);
    }
    link::protect_relro(interpreter)?;
    services::add_heap(&mut plan, tunables);
    apply::apply(plan, tunables.level);
    // At level 1 a kernel that does not seal is asked for nothing else.
    if !is_enforced && apply::is_supported() {
        let mut kernel_data = SealPlan::default();
        program::add_kernel_data(&mut kernel_data, vdso, tunables);
        apply::apply(kernel_data, tunables.level);
    }
    Ok(())
}

/// Lets the kernel run a program, or says that it can't. As in glibc it is the name that was asked for which the kernel gets, also where
/// the search has found it in some directory.
fn execute(stack: &InitialStack, name: &CStr) -> ! {
    // SAFETY: the kernel's arrays end with null pointers.
    let errno = unsafe { sys::execve(name, stack.argv().cast_const().cast(), stack.envp().cast_const().cast()) };
    cannot_execute(name, errno)
}

fn cannot_execute(name: &CStr, errno: Errno) -> ! {
    let (me, name) = (Lossy(program::INTERPRETER_SONAME), Lossy(name.to_bytes()));
    match errno::name(errno) {
        Some(reason) => logger::line(format_args!("{me}: cannot execute {name}: {reason}")),
        None => logger::line(format_args!("{me}: cannot execute {name}: {}", errno.raw_os_error())),
    }
    sys::exit(127)
}
