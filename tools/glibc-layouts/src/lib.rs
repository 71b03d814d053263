//! Makes the tables of glibc's private structures (`runtime/src/glibc/tables/layout_*.rs`) from debug information.
//!
//! ```text
//! files -> definitions (DWARF) -> table (Rust source)
//! ```
//!
//! What is looked for is not listed here: it is [`runtime::glibc::layout::SCHEMA`].

pub mod definitions;
pub mod files;
pub mod table;

/// Why no table can be made; the text is for the person who runs the tool.
#[derive(Debug)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Error(text)
    }
}

impl From<gimli::Error> for Error {
    fn from(error: gimli::Error) -> Self {
        Error(format!("debug information: {error}"))
    }
}

impl From<object::Error> for Error {
    fn from(error: object::Error) -> Self {
        Error(format!("ELF: {error}"))
    }
}

/// The table of the glibc that these two files are of, as Rust source. `snapshot` says in words which one that is.
///
/// # Errors
/// If debug information is missing, or lacks or contradicts what the schema asks for.
pub fn generate(loader: &std::path::Path, libc: &std::path::Path, snapshot: &str) -> Result<String, Error> {
    let version = files::version(libc)?;
    let mut definitions = definitions::Definitions::default();
    for file in [loader, libc] {
        definitions.read(&files::debug_file(file)?)?;
    }
    table::render(&definitions, version, snapshot)
}
