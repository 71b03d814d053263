//! References of the program that take a protected symbol of a library for one that can be interposed.
//!
//! A program that is not position independent may refer to a variable or a function of a library directly: the variable is then copied
//! into the program, the address of the function is that of the program's PLT entry. A library whose symbol is protected goes on to use its
//! own. glibc warns of that since 2.35 (dl-protected.h), and refuses it if the library demands that others go through their GOT
//! (`GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS`).

use crate::elf::symbols::Sym;
use crate::error::{LoadError, Lossy, Reason, BARE};
use crate::lookup::{self, Class};
use crate::object::{Kind, Object};

/// Whether a reference from an object of a kind to a definition found elsewhere is direct and the definition protected.
pub(super) fn is_direct(from: Kind, reference: &Sym, definition: &Sym, class: Class) -> bool {
    lookup::is_protected(definition)
        && match class {
            Class::Copy => from == Kind::Executable,
            Class::Plt => takes_address(from, reference),
            Class::Data => false,
        }
}

/// Whether the program has an entry of its PLT that stands for a function of another object wherever its address is taken: such an entry
/// is the value of the undefined symbol.
pub(super) fn takes_address(from: Kind, reference: &Sym) -> bool {
    from == Kind::Executable && reference.st_shndx == lookup::SHN_UNDEF && reference.st_value != 0
}

/// Warns of a direct reference to a protected symbol of `definer`.
///
/// # Errors
/// The library does not allow it.
#[cold]
pub fn warn_of_direct(name: &[u8], class: Class, definer: &Object) -> Result<(), LoadError> {
    let (symbol, library) = (Lossy(name), Lossy(definer.name.to_bytes()));
    if class == Class::Copy {
        log::warn!(
            target: BARE,
            "warning: copy relocation against non-copyable protected symbol `{symbol}' in `{library}'"
        );
    } else {
        log::warn!(
            target: BARE,
            "warning: direct reference to protected function `{symbol}' in `{library}' may break pointer equality"
        );
    }
    if definer.properties().is_some_and(|properties| properties.indirect_extern_access) {
        return Err(LoadError::new(definer.name.to_bytes(), Reason::IndirectAccessNeeded { symbol: name.to_vec() }));
    }
    Ok(())
}
