//! What `LD_DEBUG=statistics` shows, in glibc's words: times at start-up, counts of relocations then and at the end.

use core::arch::x86_64::_rdtsc;
use core::fmt;
use core::sync::atomic::Ordering;
use loader::statistics::{COUNTING, LOOKUPS, RELATIVE, REMEMBERED};

/// A time in cycles of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cycles(u64);

impl Cycles {
    /// Now.
    pub fn now() -> Cycles {
        // SAFETY: every x86-64 processor has the instruction.
        Cycles(unsafe { _rdtsc() })
    }

    /// From `start` to this.
    fn since(self, start: Cycles) -> Cycles {
        Cycles(self.0.saturating_sub(start.0))
    }
}

/// How long the parts of a start have taken. Measured only if somebody wants to know.
pub struct Times {
    start: Cycles,
    wanted: bool,
    load: Cycles,
    relocation: Cycles,
}

impl Times {
    /// Of a process that began at `start`.
    pub fn new(start: Cycles) -> Times {
        Times { start, wanted: COUNTING.load(Ordering::Relaxed), load: Cycles(0), relocation: Cycles(0) }
    }

    /// Does what counts as loading objects, together with what did before.
    pub fn loading<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (value, time) = self.measure(work);
        self.load.0 += time.0;
        value
    }

    /// Does what counts as relocation.
    pub fn relocation<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (value, time) = self.measure(work);
        self.relocation = time;
        value
    }

    fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Cycles) {
        if !self.wanted {
            return (work(), Cycles(0));
        }
        let start = Cycles::now();
        (work(), Cycles::now().since(start))
    }

    /// Shows times and counts; the interpreter has relocated itself by `own_relative` relocations.
    pub fn show(&self, own_relative: impl FnOnce() -> u64) {
        if !self.wanted {
            return;
        }
        let total = Cycles::now().since(self.start);
        log::debug!(
            target: "statistics",
            "\nruntime linker statistics:\n  \
               total startup time in dynamic loader: {total}\n            \
                         time needed for relocation: {}\n                 \
                              number of relocations: {}\n      \
                   number of relocations from cache: {}\n        \
                     number of relative relocations: {}\n           \
                        time needed to load objects: {}",
            Share(self.relocation, total),
            LOOKUPS.get(),
            REMEMBERED.get(),
            RELATIVE.get() + own_relative(),
            Share(self.load, total),
        );
    }
}

/// Shows how many relocations there have been when the process ends.
pub fn show_final() {
    log::debug!(
        target: "statistics",
        "\nruntime linker statistics:\n           final number of relocations: {}\nfinal number of relocations from cache: {}",
        LOOKUPS.get(),
        REMEMBERED.get(),
    );
}

impl fmt::Display for Cycles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cycles", self.0)
    }
}

/// A part of a whole.
struct Share(Cycles, Cycles);

impl fmt::Display for Share {
    /// With a decimal in per cent, before which a nought is left out, as in glibc.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Share(part, whole) = self;
        let thousandths = u128::from(part.0) * 1000 / u128::from(whole.0.max(1));
        write!(f, "{part} (")?;
        if thousandths >= 10 {
            write!(f, "{}", thousandths / 10)?;
        }
        write!(f, ".{}%)", thousandths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cycles, Share};

    #[test]
    fn a_share_has_one_decimal() {
        assert_eq!(Share(Cycles(202), Cycles(1000)).to_string(), "202 cycles (20.2%)");
        assert_eq!(Share(Cycles(15), Cycles(1000)).to_string(), "15 cycles (1.5%)");
        assert_eq!(Share(Cycles(5), Cycles(1000)).to_string(), "5 cycles (.5%)");
        assert_eq!(Share(Cycles(0), Cycles(0)).to_string(), "0 cycles (.0%)");
    }
}
