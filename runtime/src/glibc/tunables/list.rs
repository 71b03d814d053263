//! `--list-tunables`: every tunable with its value and bounds, in glibc's format.

use super::{Kind, TunableSet, Value};
use core::fmt;
use loader::error::Lossy;

/// The tunables of glibc, a line for each in the order of their numbers.
pub struct Listing<'a>(pub &'a TunableSet<'a>);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listing(set) = self;
        for (id, tunable) in set.table().iter().enumerate() {
            let (Some(value), Some((min, max))) = (set.value(id), set.bounds(id)) else { continue };
            write!(f, "{}:", Lossy(tunable.name))?;
            match value {
                Value::Int32(number) => write!(f, " {number} (min: {}, max: {})", min as i32, max as i32)?,
                Value::Uint64(number) => write!(f, " {number:#x} (min: {min:#x}, max: {max:#x})")?,
                Value::Text(None) => {}
                Value::Text(Some(text)) => write!(f, " {}", Lossy(text))?,
            }
            debug_assert!(matches!(tunable.kind, Kind::Text) == matches!(value, Value::Text(_)));
            writeln!(f)?;
        }
        Ok(())
    }
}
