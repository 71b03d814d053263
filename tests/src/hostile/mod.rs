//! Files that no linker would write: what a loader must refuse with one line and nothing more.
//!
//! * [`image`]: an ELF file whose bytes can be changed by their names.
//! * [`header`], [`segments`], [`dynamic`], [`lookup`], [`versions`], [`relocations`]: what is changed in a sound file, theme by theme.
//! * [`files`]: what may stand in a file's place.
//! * [`random`]: bytes changed by chance.
//! * [`stage`]: the sound files, and the command lines that give a hostile one to a loader.
//! * [`judge`]: what is expected of a loader, given what the system's did; [`check`]: both are tried.

pub mod check;
pub mod dynamic;
pub mod files;
pub mod header;
pub mod image;
pub mod judge;
pub mod lookup;
pub mod random;
pub mod relocations;
pub mod segments;
pub mod stage;
pub mod versions;

use image::Image;
use serde::Deserialize;
use stage::Role;
use std::io;
use std::path::Path;

/// One way to spoil a file.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Theme and what is wrong.
    pub name: &'static str,
    /// What becomes of the sound file.
    pub fault: Fault,
    /// In which roles the file is given to the loader.
    pub roles: &'static [Role],
    /// What the loader under test may do although the system's doesn't.
    pub freedom: Freedom,
}

/// What becomes of a sound file.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Its bytes are changed.
    Spoiled(fn(&mut Image)),
    /// Something else is put in its place.
    Replaced(fn(&Path) -> io::Result<()>),
    /// The same, for a loader that is not root, from whom nothing is hidden.
    Hidden(fn(&Path) -> io::Result<()>),
}

/// Where the loader under test may differ from the system's. Each allows what those before it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freedom {
    /// Nowhere: it accepts what the system's accepts, it refuses in the same words what the system's refuses, and it refuses what
    /// the system's crashes on.
    None,
    /// It may refuse cleanly what the system's accepts: the file says something false that the system's loader happens not to read
    /// in these runs.
    Refuse,
    /// It may refuse in words of its own: it meets several faults in another order, or examines what the system's reads blindly.
    Words,
    /// It may accept what the system's refuses or crashes on: it does not read what is wrong.
    Accept,
}

impl Case {
    const fn new(name: &'static str, spoil: fn(&mut Image)) -> Case {
        Case { name, fault: Fault::Spoiled(spoil), roles: &Role::ALL, freedom: Freedom::None }
    }

    const fn replaced(name: &'static str, put: fn(&Path) -> io::Result<()>) -> Case {
        Case { name, fault: Fault::Replaced(put), roles: &Role::ALL, freedom: Freedom::None }
    }

    const fn hidden(name: &'static str, put: fn(&Path) -> io::Result<()>) -> Case {
        Case { name, fault: Fault::Hidden(put), roles: &Role::ALL, freedom: Freedom::None }
    }

    const fn free(self, freedom: Freedom) -> Case {
        Case { freedom, ..self }
    }

    const fn only(self, roles: &'static [Role]) -> Case {
        Case { roles, ..self }
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    [files::CASES, header::CASES, segments::CASES, dynamic::CASES, lookup::CASES, versions::CASES, relocations::CASES]
        .concat()
}
