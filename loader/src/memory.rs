//! Memory whose amount a file decides, so that a want of it is an error and not the end.
//!
//! An allocation that fails ends a program in Rust. Where the process must live on, whoever owns the heap says by [`set_source`] how to make
//! sure of memory beforehand: a step that takes little of it asks [`ensure`] first, and a list that grows with a table of a file
//! grows by [`push`].

use crate::error::Reason;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering};

/// More than any step takes that does not ask: the names, tables and lists of one object of the usual kind.
pub const STEP: usize = 64 * 1024;

/// Tells whether that many bytes can be had.
pub type Source = fn(usize) -> bool;

static SOURCE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// From now on `source` is asked.
pub fn set_source(source: Source) {
    SOURCE.store(source as *mut (), Ordering::Release);
}

/// Makes sure that the allocations of the next step succeed, as long as they do not take more than so many bytes.
///
/// # Errors
/// There is no memory.
pub fn ensure(bytes: usize) -> Result<(), Reason> {
    let source = SOURCE.load(Ordering::Acquire);
    if source.is_null() {
        return Ok(());
    }
    // SAFETY: what is stored there is a function of this type.
    let source: Source = unsafe { core::mem::transmute(source) };
    source(bytes).then_some(()).ok_or(Reason::NoMemory)
}

/// Makes sure of what a few copies of a name take, if it is longer than names usually are, and of the step that follows.
///
/// # Errors
/// There is no memory.
pub fn ensure_for_name(name: &[u8]) -> Result<(), Reason> {
    ensure(name.len().saturating_mul(16).saturating_add(STEP))
}

/// As [`ensure`], for an amount that it takes some time to find out, and that nobody asks for where no source is set.
///
/// # Errors
/// There is no memory.
pub fn ensure_with(bytes: impl FnOnce() -> usize) -> Result<(), Reason> {
    match SOURCE.load(Ordering::Acquire).is_null() {
        true => Ok(()),
        false => ensure(bytes()),
    }
}

/// A copy of a name for a message: the beginning of it if there is no memory for the whole.
#[cold]
#[inline(never)]
pub fn copy_of(name: &[u8]) -> Vec<u8> {
    const BEGINNING: usize = 256;
    let mut copy = with_capacity(name.len()).unwrap_or_default();
    let length = if copy.capacity() < name.len() { name.len().min(BEGINNING) } else { name.len() };
    copy.extend_from_slice(&name[..length]);
    copy
}

/// Appends to a list.
///
/// # Errors
/// There is no memory.
#[inline]
pub fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), Reason> {
    list.try_reserve(1).map_err(|_| Reason::NoMemory)?;
    list.push(value);
    Ok(())
}

/// A list with room for so many.
///
/// # Errors
/// There is no memory.
pub fn with_capacity<T>(count: usize) -> Result<Vec<T>, Reason> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| Reason::NoMemory)?;
    Ok(list)
}

/// Moves a list to where its memory is taken from now; it stays where it is if there is none.
pub fn renew<T>(list: &mut Vec<T>) {
    if let Ok(mut new) = with_capacity(list.len()) {
        new.append(list);
        *list = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        assert!(with_capacity::<u64>(usize::MAX / 16).is_err_and(|e| e == Reason::NoMemory));
        let mut list = with_capacity(1).expect("little");
        push(&mut list, 1).and_then(|()| push(&mut list, 2)).expect("little");
        assert_eq!(list, [1, 2]);
        assert_eq!(copy_of(b"name"), b"name");
    }
}
