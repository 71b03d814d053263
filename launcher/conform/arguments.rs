//! The command line of `ldseal conform`.

use lexopt::{Arg, Parser};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What to try, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The loader under test, if it is not `ld-seal.so`.
    pub loader: Option<PathBuf>,
    /// The loader that is right, if it is not the system's.
    pub reference: Option<PathBuf>,
    /// Which checks.
    pub filter: Option<Filter>,
    /// Cases, if not those that are built in.
    pub fixtures: Option<PathBuf>,
    /// How many checks at a time.
    pub jobs: usize,
    /// JSON in place of tables.
    pub json: bool,
    /// Only say what there is.
    pub list: bool,
}

/// A regular expression that names of checks must match somewhere.
#[derive(Debug)]
pub struct Filter(pub regex_lite::Regex);

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Filter {}

/// What `ldseal conform --help` prints.
pub const HELP: &str = "\
Usage: ldseal conform [--loader PATH] [--reference PATH] [--filter RE] [--json] [--list]
                      [--fixtures FOLDER] [--jobs NUMBER]

Compares a dynamic loader with glibc's: builds small programs and libraries, starts them under both and compares what they print,
how they end, which definition each of their references is bound to, and which protections and open descriptors they end with;
gives both files that no linker would write; and runs every dynamically linked command of this machine with --version and --help.
It needs a C compiler.

Options:
  --loader PATH      the loader under test. Default: the ld-seal.so of this command, at each seal level, and by 'ldseal run' too
  --reference PATH   the loader that is right. Default: the system's, /lib64/ld-linux-x86-64.so.2
  --filter RE        only checks whose name AREA/BEHAVIOUR matches this regular expression
  --list             the names of the checks with the rules that they pin, and try none
  --json             one JSON object in place of tables
  --fixtures FOLDER  take the cases from this folder instead of those that are built in
  --jobs NUMBER      so many checks at a time. Default: one for each processor
  --help             this text

For each difference it shows both observations beside each other, and the commands that repeat it. What is built, and what the
programs work in, is kept below $XDG_CACHE_HOME/ldseal or ~/.cache/ldseal.

Exit status: 0 when nothing differs that is not known to; 1 when something does; 2 for a wrong option or a missing loader.
";

/// Reads the arguments behind `conform`; `None` asks for help.
///
/// # Errors
/// One line that says what is wrong with them.
pub fn parse(mut parser: Parser) -> Result<Option<Arguments>, String> {
    let jobs = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut arguments =
        Arguments { loader: None, reference: None, filter: None, fixtures: None, jobs, json: false, list: false };
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long("json") => arguments.json = true,
            Arg::Long("list") => arguments.list = true,
            Arg::Long("loader") => arguments.loader = Some(parser.value().map_err(text)?.into()),
            Arg::Long("reference") => arguments.reference = Some(parser.value().map_err(text)?.into()),
            Arg::Long("fixtures") => arguments.fixtures = Some(parser.value().map_err(text)?.into()),
            Arg::Long("filter") => arguments.filter = Some(parse_filter(&mut parser)?),
            Arg::Long("jobs") => arguments.jobs = parse_jobs(&mut parser)?,
            argument => return Err(text(argument.unexpected())),
        }
    }
    Ok(Some(arguments))
}

fn parse_filter(parser: &mut Parser) -> Result<Filter, String> {
    let value = parser.value().map_err(text)?;
    let value = value.to_str().ok_or("--filter: it is not UTF-8")?;
    regex_lite::Regex::new(value).map(Filter).map_err(|e| format!("--filter: {e}"))
}

fn parse_jobs(parser: &mut Parser) -> Result<usize, String> {
    let value = parser.value().map_err(text)?;
    let number = value.to_str().and_then(|v| v.parse::<NonZeroUsize>().ok());
    number
        .map(NonZeroUsize::get)
        .ok_or_else(|| format!("--jobs: {} is not a number of checks", value.to_string_lossy()))
}

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Arguments>, String> {
        parse(Parser::from_args(words))
    }

    #[test]
    fn options_are_read() {
        let arguments = parsed(&["--loader", "/x", "--filter=^tls/", "--jobs", "3", "--json"]);
        let arguments = arguments.expect("they are sound").expect("they don't ask for help");
        assert_eq!((arguments.loader, arguments.jobs, arguments.json), (Some("/x".into()), 3, true));
        assert!(arguments.filter.is_some_and(|f| f.0.is_match("tls/a") && !f.0.is_match("x/tls/")));
        assert_eq!(parsed(&["--help"]), Ok(None));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [&["--filter", "("][..], &["--jobs", "0"], &["--jobs", "x"], &["x"], &["--loader"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
