//! From program headers to a mapped image: the plan, and the code that carries it out.

pub mod apply;
pub mod plan;
mod valgrind;
