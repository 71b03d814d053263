//! The kernel's data pages for the vDSO, `[vvar]` and `[vvar_vclock]`, which lie directly below it.
//!
//! Nothing but `/proc/self/maps` says how many there are. A page of theirs refuses hints that other memory takes, so a few questions
//! about single pages tell the sizes that Linux has had; any other size is left open.

use crate::addr::{Addr, PAGE_SIZE};
use core::ops::Range;

/// How many pages they have been: since Linux 6.13 (with `[vvar_vclock]`), and before.
const SIZES: [usize; 2] = [6, 4];

/// The pages below a vDSO at `vdso`, if they are recognised. `is_kernel_page` tells whether a page refuses hints.
pub fn below(vdso: Addr, is_kernel_page: impl Fn(Addr) -> bool) -> Option<Range<Addr>> {
    let page = |n: usize| Addr(vdso.0.wrapping_sub(n * PAGE_SIZE as usize));
    let fits = |n: &usize| is_kernel_page(page(*n)) && !is_kernel_page(page(*n + 1));
    let size = SIZES.into_iter().find(fits)?;
    Some(page(size)..vdso)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sizes_are_found() {
        let vdso = Addr(0x10_0000);
        let pages = |n: usize| move |page: Addr| page.0 < 0x10_0000 && page.0 >= 0x10_0000 - n * 0x1000;
        assert_eq!(below(vdso, pages(6)), Some(Addr(0xfa000)..vdso));
        assert_eq!(below(vdso, pages(4)), Some(Addr(0xfc000)..vdso));
        assert_eq!(below(vdso, pages(0)), None);
        assert_eq!(below(vdso, pages(9)), None);
    }
}
