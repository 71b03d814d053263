//! The initial stack of the process: arguments, environment and auxiliary vector (psABI, "Process Initialization").

use core::ffi::CStr;
use loader::addr::Addr;

/// Entries of the auxiliary vector that a loader reads (`getauxval(3)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
#[allow(missing_docs)]
pub enum AuxKey {
    Phdr = 3,
    Phent = 4,
    Phnum = 5,
    PageSize = 6,
    Base = 7,
    Entry = 9,
    Platform = 15,
    Hwcap = 16,
    ClockTick = 17,
    FpuControl = 18,
    Secure = 23,
    Random = 25,
    Hwcap2 = 26,
    ExecFn = 31,
    VdsoHeader = 33,
    MinSignalStack = 51,
}

/// The words that the kernel has put on the stack.
#[derive(Clone, Copy)]
pub struct InitialStack {
    start: *mut usize,
    argc: usize,
    environment: *mut usize,
    auxv: *mut usize,
}

impl InitialStack {
    /// The stack whose first word (argc) is at `start`.
    ///
    /// # Safety
    /// `start` must be what the kernel passed at the entry point, and nothing may hold references into it.
    pub unsafe fn new(start: *mut usize) -> InitialStack {
        // SAFETY: the layout is the kernel's: argc, argv, NULL, envp, NULL, auxv up to AT_NULL.
        unsafe {
            let argc = *start;
            let environment = start.add(argc + 2);
            let mut auxv = environment;
            while *auxv != 0 {
                auxv = auxv.add(1);
            }
            InitialStack { start, argc, environment, auxv: auxv.add(1) }
        }
    }

    /// Where argc is: `__libc_stack_end`.
    pub fn start(&self) -> Addr {
        Addr(self.start as usize)
    }

    /// The number of arguments, the program's name included.
    pub fn argc(&self) -> usize {
        self.argc
    }

    /// The argument array.
    pub fn argv(&self) -> *mut *mut u8 {
        // SAFETY: the array follows argc.
        unsafe { self.start.add(1).cast() }
    }

    /// The environment array.
    pub fn envp(&self) -> *mut *mut u8 {
        self.environment.cast()
    }

    /// The auxiliary vector.
    pub fn auxv(&self) -> Addr {
        Addr(self.auxv as usize)
    }

    /// Size of the auxiliary vector in bytes, its terminator included.
    pub fn auxv_size(&self) -> usize {
        let mut at = self.auxv;
        // SAFETY: the vector consists of pairs and ends with AT_NULL (0).
        unsafe {
            while *at != 0 {
                at = at.add(2);
            }
            at.add(2) as usize - self.auxv as usize
        }
    }

    /// An argument; `None` past the last.
    pub fn arg(&self, index: usize) -> Option<&'static CStr> {
        if index >= self.argc {
            return None;
        }
        // SAFETY: the kernel's argument strings are terminated and live as long as the process.
        unsafe {
            let pointer = *self.argv().add(index);
            (!pointer.is_null()).then(|| CStr::from_ptr(pointer.cast()))
        }
    }

    /// The `NAME=value` strings of the environment.
    pub fn environment(&self) -> impl Iterator<Item = &'static [u8]> {
        let mut at: *const *const u8 = self.environment.cast_const().cast();
        core::iter::from_fn(move || {
            // SAFETY: the array ends with a null pointer, at which `at` stays; the strings are the kernel's.
            unsafe {
                let string = *at;
                if string.is_null() {
                    return None;
                }
                at = at.add(1);
                Some(CStr::from_ptr(string.cast()).to_bytes())
            }
        })
    }

    /// The entries of the auxiliary vector in their order, the terminator left out: type and value.
    pub fn auxiliary_entries(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = self.auxv.cast_const();
        core::iter::from_fn(move || {
            // SAFETY: the vector consists of pairs and ends with AT_NULL (0), at which `at` stays.
            unsafe {
                let key = *at;
                if key == 0 {
                    return None;
                }
                let value = *at.add(1);
                at = at.add(2);
                Some((key, value))
            }
        })
    }

    fn auxv_entry(&self, key: AuxKey) -> Option<*mut usize> {
        let mut at = self.auxv;
        // SAFETY: the vector consists of pairs and ends with AT_NULL (0).
        unsafe {
            while *at != 0 {
                if *at == key as usize {
                    return Some(at.add(1));
                }
                at = at.add(2);
            }
        }
        None
    }

    /// A value of the auxiliary vector.
    pub fn aux(&self, key: AuxKey) -> Option<usize> {
        // SAFETY: the entry is a word of the vector.
        self.auxv_entry(key).map(|p| unsafe { *p })
    }

    /// Changes a value of the auxiliary vector, if the entry is there.
    pub fn set_aux(&mut self, key: AuxKey, value: usize) {
        if let Some(entry) = self.auxv_entry(key) {
            // SAFETY: the entry is a word of the vector, which is this value's to change.
            unsafe { *entry = value };
        }
    }

    /// Drops the first `count` arguments by moving everything behind them down: the stack pointer, and with it the alignment that the
    /// program finds at its entry, stays as it is.
    pub fn drop_arguments(&mut self, count: usize) {
        let count = count.min(self.argc);
        if count == 0 {
            return;
        }
        // SAFETY: the words from the first kept argument to the end of the vector move down by `count` words, all within the
        // kernel's block, and the pointers are recomputed from the new contents.
        unsafe {
            let mut end = self.auxv;
            while *end != 0 {
                end = end.add(2);
            }
            end = end.add(2);
            let from = self.start.add(1 + count);
            core::ptr::copy(from, self.start.add(1), end.offset_from(from) as usize);
            *self.start = self.argc - count;
            *self = InitialStack::new(self.start);
        }
    }

    /// Replaces the program's name.
    pub fn set_argv0(&mut self, name: &'static CStr) {
        if self.argc > 0 {
            // SAFETY: the first element of the argument array.
            unsafe { *self.argv() = name.as_ptr().cast_mut().cast() };
        }
    }

    /// Shortens the value of each variable of a name: `shorten` rewrites it in place and says how long it is now.
    pub fn shorten_variable(&mut self, name: &[u8], mut shorten: impl FnMut(&mut [u8]) -> usize) {
        let mut entry = self.envp();
        // SAFETY: the array ends with a null pointer, its strings are the process's own, and the new value is not longer than the old.
        unsafe {
            while !(*entry).is_null() {
                let len = CStr::from_ptr((*entry).cast()).to_bytes().len();
                let text = core::slice::from_raw_parts_mut(*entry, len + 1);
                if text.starts_with(name) && text.get(name.len()) == Some(&b'=') {
                    let start = name.len() + 1;
                    let kept = shorten(&mut text[start..len]).min(len - start);
                    text[start + kept] = 0;
                }
                entry = entry.add(1);
            }
        }
    }

    /// Removes the variables that `unwanted` picks out, in place.
    pub fn retain_environment(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) {
        let envp = self.envp();
        // SAFETY: both cursors stay inside the array, which ends with a null pointer.
        unsafe {
            let (mut from, mut to) = (envp, envp);
            while !(*from).is_null() {
                if wanted(CStr::from_ptr((*from).cast()).to_bytes()) {
                    *to = *from;
                    to = to.add(1);
                }
                from = from.add(1);
            }
            *to = core::ptr::null_mut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack() -> std::vec::Vec<usize> {
        let s = |c: &'static CStr| c.as_ptr() as usize;
        std::vec![3, s(c"ld"), s(c"--x"), s(c"prog"), 0, s(c"A=1"), s(c"LD_X=2"), 0, 6, 4096, 9, 77, 0, 0]
    }

    #[test]
    fn arguments_environment_and_vector_are_found() {
        let mut words = stack();
        // SAFETY: laid out as the kernel does.
        let stack = unsafe { InitialStack::new(words.as_mut_ptr()) };
        assert_eq!(stack.arg(2), Some(c"prog"));
        assert_eq!(stack.arg(3), None);
        assert_eq!(stack.environment().count(), 2);
        assert_eq!((stack.aux(AuxKey::PageSize), stack.aux(AuxKey::Base)), (Some(4096), None));
    }

    #[test]
    fn dropped_arguments_move_everything_down() {
        let mut words = stack();
        // SAFETY: laid out as the kernel does.
        let mut stack = unsafe { InitialStack::new(words.as_mut_ptr()) };
        stack.drop_arguments(2);
        stack.set_aux(AuxKey::Entry, 78);
        stack.retain_environment(|e| !e.starts_with(b"LD_"));
        assert_eq!((stack.argc(), stack.arg(0)), (1, Some(c"prog")));
        assert_eq!(stack.environment().next(), Some(&b"A=1"[..]));
        assert_eq!(stack.environment().count(), 1);
        assert_eq!(stack.aux(AuxKey::Entry), Some(78));
        assert_eq!(stack.start(), Addr(words.as_ptr() as usize));
    }
}
