//! What differs from one snapshot of glibc to the next, as data.

pub mod layout_v2_36;
pub mod layout_v2_36_tag;
pub mod tunables_v2_36;

use super::layout::Layout;

/// The layouts of every supported snapshot, those of a release next to each other.
pub static LAYOUTS: &[&Layout] = &[&layout_v2_36::LAYOUT, &layout_v2_36_tag::LAYOUT];
