//! Carries a [`SealPlan`] out.

use crate::addr::Addr;
use crate::errno;
use crate::error::Lossy;
use crate::seal::plan::SealPlan;
use crate::seal::tunables::SealLevel;
use crate::sys;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use rustix::io::Errno;

/// A seal that the kernel refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What was to be sealed.
    pub range: Range<Addr>,
    /// Why it was not.
    pub errno: Errno,
}

/// Whether the kernel said that it does not know mseal; it is not asked again.
static UNSUPPORTED: AtomicBool = AtomicBool::new(false);

/// Makes one call of level 1 before the others are planned, and says whether the kernel knows mseal at all: without it nothing else needs to
/// be asked.
pub fn first(range: Range<Addr>, name: &[u8]) -> bool {
    if !is_supported() {
        // Audit modules have been sealed before.
        return false;
    }
    if let Err(errno) = sys::mseal(range.clone()) {
        refused(&Refused { range, errno }, name, SealLevel::BestEffort);
    }
    is_supported()
}

/// Whether the kernel has not said that it does not know mseal.
pub fn is_supported() -> bool {
    !UNSUPPORTED.load(Ordering::Relaxed)
}

/// Seals what the plan says. At level 0 no call is made; at level 1 a refusal is logged and the rest goes on; at level 2 the first
/// refusal ends the process, before any code of the transaction has run.
pub fn apply(mut plan: SealPlan, level: SealLevel) {
    log_plan(&plan);
    if level == SealLevel::Off {
        return;
    }
    plan.merge();
    for (range, name) in plan.calls() {
        if level == SealLevel::BestEffort && !is_supported() {
            return;
        }
        if let Err(errno) = sys::mseal(range.clone()) {
            refused(&Refused { range, errno }, name, level);
        }
    }
}

fn refused(refused: &Refused, name: &[u8], level: SealLevel) {
    let Refused { range, errno } = refused;
    if level == SealLevel::Enforced {
        log::error!(
            "Fatal error: sealing is enforced and kernel has failed for {:#x}-{:#x} range: {} ({})",
            range.start,
            range.end,
            errno::text(*errno),
            Lossy(name)
        );
        sys::exit(127);
    }
    if *errno == Errno::NOSYS {
        UNSUPPORTED.store(true, Ordering::Relaxed);
    }
    log::debug!(
        target: "seal",
        "refused {:#x}-{:#x} {}: {}",
        range.start,
        range.end,
        Lossy(name),
        errno::text(*errno)
    );
}

/// Whether plans that are carried out are shown.
pub fn shows_plans() -> bool {
    log::log_enabled!(target: "seal", log::Level::Debug)
}

/// Shows a plan, for programs to read as well: a line is `START-END PART sealed NAME` or `START-END PART open NAME: REASON`. Addresses are
/// hexadecimal with `0x`, fields are separated by blanks (one or more), a name may hold some, and the reason is what follows the last
/// colon and blank. The lines stay in the plan's order.
fn log_plan(plan: &SealPlan) {
    if !shows_plans() {
        return;
    }
    for object in &plan.objects {
        if object.overruled {
            log::debug!(target: "seal", "{}: opts out by its note, which this level does not heed", Lossy(&object.name));
        }
        for item in object.items.iter() {
            let name = Lossy(&object.name);
            match item.open {
                None => {
                    log::debug!(target: "seal", "{:#x}-{:#x} {:<7} sealed {name}", item.range.start, item.range.end, item.part)
                }
                Some(why) => {
                    log::debug!(target: "seal", "{:#x}-{:#x} {:<7} open   {name}: {why}", item.range.start, item.range.end, item.part);
                }
            }
        }
    }
}
