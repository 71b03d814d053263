//! The command line of `ldseal`.
#![deny(unsafe_code)]

use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::fmt;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this text.
    Help(&'static str),
    /// Print the version.
    Version,
    /// `ldseal run`.
    Run(RunArguments),
}

/// A program to start, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct RunArguments {
    /// `--seal`; without it `GLIBC_TUNABLES` decides, in the interpreter.
    pub level: Option<Level>,
    /// The program's name as it was typed.
    pub program: OsString,
    /// The arguments after `argv[0]`.
    pub arguments: Vec<OsString>,
}

/// A value of the tunable `glibc.rtld.seal`: 0 off, 1 best effort, 2 a failure is fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    fn parse(text: OsString) -> Result<Level, String> {
        match text.to_str() {
            Some("0") => Ok(Level(0)),
            Some("1") => Ok(Level(1)),
            Some("2") => Ok(Level(2)),
            _ => Err(format!("--seal: {} is not a level (0, 1 or 2)", text.to_string_lossy())),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const HELP: &str = "\
Usage: ldseal run [--seal LEVEL] [--] PROGRAM [ARGS]
       ldseal --help | --version

Starts programs under ld-seal.so, a dynamic loader that seals (mseal(2)) what it maps.

Commands:
  run       start a program sealed

'ldseal COMMAND --help' says more about a command.
";

const HELP_RUN: &str = "\
Usage: ldseal run [--seal LEVEL] [--] PROGRAM [ARGS]

Starts PROGRAM, found as a shell finds it, under ld-seal.so. Its environment is left untouched and nothing is preloaded.
A script (#!) is run by its interpreter, which is what then runs sealed.

Options:
  --seal LEVEL  0: nothing is sealed; 1: best effort; 2: a failure to seal ends the program.
                Default: glibc.rtld.seal in GLIBC_TUNABLES, else 1.
  --help        this text

The programs that PROGRAM starts are not sealed: the kernel gives them the system's loader, which knows nothing of seals.
A child that is itself started under ld-seal.so takes its level from GLIBC_TUNABLES, not from --seal.

Refused, with the reason: setuid and setgid programs and those with file capabilities (their privileges would be lost),
static programs, programs of another machine or of 32 bits, programs of another C library than glibc.

Exit status: the program's own; 126 when PROGRAM is found but can't be run, 127 when it is not found, 2 for a wrong option.
RUST_LOG=ldseal=debug in the environment shows each decision.
";

/// Reads the arguments that follow the command's own name.
///
/// # Errors
/// One line that says what is wrong with them.
pub fn parse(arguments: Vec<OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(arguments);
    match parser.next().map_err(text)? {
        None => Err("which command?".into()),
        Some(Arg::Long("help") | Arg::Short('h')) => Ok(Command::Help(HELP)),
        Some(Arg::Long("version") | Arg::Short('V')) => Ok(Command::Version),
        Some(Arg::Value(command)) if command == "run" => parse_run(parser),
        Some(Arg::Value(command)) => Err(format!("unknown command: {}", command.to_string_lossy())),
        Some(argument) => Err(text(argument.unexpected())),
    }
}

fn parse_run(mut parser: Parser) -> Result<Command, String> {
    let mut level = None;
    loop {
        match parser.next().map_err(text)? {
            None => return Err("run: which program?".into()),
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Command::Help(HELP_RUN)),
            Some(Arg::Long("seal")) => level = Some(Level::parse(parser.value().map_err(text)?)?),
            Some(Arg::Value(program)) => {
                let arguments = parser.raw_args().map_err(text)?.collect();
                return Ok(Command::Run(RunArguments { level, program, arguments }));
            }
            Some(argument) => return Err(text(argument.unexpected())),
        }
    }
}

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from).collect())
    }

    fn run(level: Option<u8>, program: &str, arguments: &[&str]) -> Result<Command, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Ok(Command::Run(RunArguments { level: level.map(Level), program: program.into(), arguments }))
    }

    #[test]
    fn options_end_at_the_program() {
        assert_eq!(parsed(&["run", "ls", "--seal", "2", "-l"]), run(None, "ls", &["--seal", "2", "-l"]));
        assert_eq!(parsed(&["run", "--seal=2", "ls", "--help"]), run(Some(2), "ls", &["--help"]));
        assert_eq!(parsed(&["run", "--seal", "0", "--", "--ls", "--", "-x"]), run(Some(0), "--ls", &["--", "-x"]));
        assert_eq!(parsed(&["run", "ls", "--", "a"]), run(None, "ls", &["--", "a"]));
    }

    #[test]
    fn levels_are_0_1_and_2() {
        for wrong in ["3", "-1", "", "01", "two", " 1", "+1", "0x1"] {
            let error = parsed(&["run", "--seal", wrong, "ls"]).expect_err(wrong);
            assert!(error.contains(&format!("{wrong} is not a level")), "{error}");
        }
    }

    #[test]
    fn help_is_a_command_of_its_own() {
        assert_eq!(parsed(&["--help"]), Ok(Command::Help(HELP)));
        assert_eq!(parsed(&["run", "--seal", "1", "--help", "ls"]), Ok(Command::Help(HELP_RUN)));
        assert_eq!(parsed(&["run", "ls", "--help"]), run(None, "ls", &["--help"]));
    }

    #[test]
    fn nonsense_is_an_error() {
        for wrong in
            [&[][..], &["run"], &["run", "--seal"], &["run", "--seal", "1"], &["run", "--sael", "1", "ls"], &["x"]]
        {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
