//! ELF structures as pure values: every parser here is a function from bytes to a value or a reason.

pub mod dynamic;
pub mod hash;
pub mod header;
pub mod note;
pub mod property;
pub mod symbols;
pub mod version;
pub mod view;
