//! The command line of `ldseal`.
#![deny(unsafe_code)]

use crate::conform::arguments as conform;
use lexopt::{Arg, Parser};
use loader::seal::tunables::SealLevel;
use std::ffi::{OsStr, OsString};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this text.
    Help(&'static str),
    /// Print the version.
    Version,
    /// `ldseal run`.
    Run(RunArguments),
    /// `ldseal plan`.
    Plan(PlanArguments),
    /// `ldseal report`.
    Report(ReportArguments),
    /// `ldseal mark`.
    Mark(MarkArguments),
    /// `ldseal conform`.
    Conform(conform::Arguments),
}

/// Files to mark, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct MarkArguments {
    /// What is to be done.
    pub wish: MarkWish,
    /// The files.
    pub files: Vec<OsString>,
}

/// What `ldseal mark` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkWish {
    /// `--no-seal`: opt out.
    NoSeal,
    /// `--clear`: no longer.
    Clear,
    /// `--show`: tell.
    Show,
}

/// A program to plan for, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct PlanArguments {
    /// JSON instead of tables.
    pub json: bool,
    /// `--seal`; without it `GLIBC_TUNABLES` decides.
    pub level: Option<SealLevel>,
    /// The program's name as it was typed.
    pub program: OsString,
}

/// What to report on, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct ReportArguments {
    /// JSON instead of tables.
    pub json: bool,
    /// What must be sealed.
    pub require: Option<Requirement>,
    /// What to report on.
    pub of: ReportOf,
}

/// What `--require` requires to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// `all`: every byte of every image, and the vDSO.
    All,
    /// `code`: all code, the vDSO's included.
    Code,
    /// `relro`: code, read-only data and RELRO.
    Relro,
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Requirement::All => "all",
            Requirement::Code => "code",
            Requirement::Relro => "relro",
        })
    }
}

/// What to report on.
#[derive(Debug, PartialEq, Eq)]
pub enum ReportOf {
    /// A process that runs already.
    Process(u32),
    /// A program to start.
    Program(RunArguments),
    /// A program to run to its end.
    Blame(BlameArguments),
}

/// A program whose refused calls are to be listed, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct BlameArguments {
    /// JSON instead of text.
    pub json: bool,
    /// `--output`; without it standard error.
    pub output: Option<OsString>,
    /// The program.
    pub start: RunArguments,
}

/// A program to start, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct RunArguments {
    /// `--seal`; without it `GLIBC_TUNABLES` decides, in the interpreter.
    pub level: Option<SealLevel>,
    /// The program's name as it was typed.
    pub program: OsString,
    /// The arguments after `argv[0]`.
    pub arguments: Vec<OsString>,
}

const HELP: &str = "\
Usage: ldseal run [--seal LEVEL] [--] PROGRAM [ARGS]
       ldseal plan [--json] [--seal LEVEL] [--] PROGRAM
       ldseal report [--json] [--require WHAT] PID
       ldseal report [--json] [--require WHAT] [--seal LEVEL] -- PROGRAM [ARGS]
       ldseal report --blame [--output FILE] [--json] [--seal LEVEL] -- PROGRAM [ARGS]
       ldseal mark --no-seal | --clear | --show [--] FILE...
       ldseal conform [--loader PATH] [--reference PATH] [--filter RE] [--json] [--list]
       ldseal --help | --version

Starts programs under ld-seal.so, a dynamic loader that seals (mseal(2)) what it maps.

Commands:
  run       start a program sealed (the programs that it starts are not)
  plan      what would be mapped and sealed, and why the rest would not, without running the program
  report    what is sealed in a process, per object and per region, and why the rest is not
  mark      let a program or library opt out of being sealed
  conform   where a loader, this one or another, differs from glibc's

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

Children are not sealed: for a program that PROGRAM starts, or replaces itself by (env, nice, scripts that begin with
#!/usr/bin/env), the kernel takes the system's loader, which knows nothing of seals. A child that is itself started under
ld-seal.so inherits the level only through GLIBC_TUNABLES, not from --seal.

Of a static program text and read-only data are sealed. Refused, with the reason: setuid and setgid programs and those with
file capabilities (their privileges would be lost), programs of another machine or of 32 bits, and dynamic programs of
another C library than glibc.

Exit status: the program's own; 126 when PROGRAM is found but can't be run, 127 when it is not found, 2 for a wrong option.
RUST_LOG=ldseal=debug in the environment shows each decision.
";

const HELP_PLAN: &str = "\
Usage: ldseal plan [--json] [--seal LEVEL] [--] PROGRAM

Shows what 'ldseal run PROGRAM' would map before the program begins, part by part, and which of it would be sealed or why not.
The program is found as 'ldseal run' finds it; of a script it is the interpreter. Its libraries are searched and mapped as
ld-seal.so does it, and LD_LIBRARY_PATH, LD_PRELOAD, /etc/ld.so.preload and GLIBC_TUNABLES count, but nothing of them runs. What only
relocating shows, such as an undefined symbol, is not found out.

Options:
  --json        one JSON object instead of tables
  --seal LEVEL  the level to plan for, as for 'ldseal run'
  --help        this text

Offsets count from the first page of an object. What really happens, LD_DEBUG=seal shows at a start under ld-seal.so, in lines of
the form

  PID: START-END PART sealed NAME
  PID: START-END PART open NAME: REASON

with addresses in hexadecimal; PART is text, rodata, relro, got, got-shared, data, gap or whole. Fields are separated by blanks or tabs, NAME may
hold some, and REASON is what follows the last colon and blank. The objects come in the order of the plan.

Exit status: 0; 2 for a wrong option; 126 or 127 for a program that can't be run, as 'ldseal run'; 127 when a library is missing or
broken, and 1 when a version is, as ld-seal.so.
";

const HELP_REPORT: &str = "\
Usage: ldseal report [--json] [--require WHAT] PID
       ldseal report [--json] [--require WHAT] [--seal LEVEL] -- PROGRAM [ARGS]
       ldseal report --blame [--output FILE] [--json] [--seal LEVEL] -- PROGRAM [ARGS]

Shows which memory of a process is sealed and, where it is not, why, as far as that can be seen from outside.
Given a PROGRAM, starts it sealed as 'ldseal run' does, stops it at its entry point, when everything is loaded, sealed and
the libraries' constructors have run but the program itself has not begun, reports, and kills it. What the constructors
write to standard output goes to standard error.
With --blame PROGRAM runs to its end instead, as under 'ldseal run', and then the calls that were refused on sealed memory are
listed, those of its threads and of all processes that it starts included: which call, on what, made by which function, and
what helps. It is traced, so it can't be debugged meanwhile.

Options:
  --blame       list the calls that were refused on sealed memory
  --output FILE the list of --blame goes there instead of standard error
  --json        one JSON object instead of tables (its shape: report.md)
  --require WHAT
                exit with status 3 unless WHAT is sealed: 'code', all code of objects that stay for ever and the vDSO's; 'relro',
                their read-only data and RELRO too; 'all', every byte of them. Executable memory that belongs to no object, and
                not one object found, is not sealed
  --seal LEVEL  the level to start PROGRAM at, as for 'ldseal run'
  --help        this text

Exit status: 0; 1 when the process can't be looked at, 4 when that is for lack of rights; 2 for a wrong option; 3 when it is not
sealed as required; for a PROGRAM that can't be run 126 or 127 as 'ldseal run'; for a PROGRAM that ends before its entry point
the status it ends with, or 1. With --blame it is that of PROGRAM, and a signal that kills PROGRAM kills ldseal; 1 when PROGRAM can't
be traced or the list can't be written.
";

const HELP_MARK: &str = "\
Usage: ldseal mark --no-seal | --clear | --show [--] FILE...

Writes a note into programs or libraries by which they opt out of being sealed. ld-seal.so heeds it at level 1 and overrules it at
level 2. For a program or library of somebody else's, ldseal.exclude in GLIBC_TUNABLES does the same without changing it.

Options:
  --no-seal  write the note
  --clear    take it back
  --show     print 'FILE: no-seal' for a file that opts out, 'FILE: none' for another
  --help     this text

The file is replaced in one step and keeps its mode and owner; hard links to it keep the old one, and extended attributes such as
file capabilities are lost. strip(1) and objcopy(1) can lose the note: mark a file after them.

Exit status: 0; 1 when a file can't be marked; 2 for a wrong option.
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
        Some(Arg::Value(command)) if command == "plan" => parse_plan(parser),
        Some(Arg::Value(command)) if command == "report" => parse_report(parser),
        Some(Arg::Value(command)) if command == "mark" => parse_mark(parser),
        Some(Arg::Value(command)) if command == "conform" => {
            Ok(conform::parse(parser)?.map_or(Command::Help(conform::HELP), Command::Conform))
        }
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
            Some(Arg::Long("seal")) => level = Some(parse_level(&mut parser)?),
            Some(Arg::Value(program)) => {
                let arguments = parser.raw_args().map_err(text)?.collect();
                return Ok(Command::Run(RunArguments { level, program, arguments }));
            }
            Some(argument) => return Err(text(argument.unexpected())),
        }
    }
}

fn parse_plan(mut parser: Parser) -> Result<Command, String> {
    let (mut json, mut level, mut program) = (false, None, None);
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_PLAN)),
            Arg::Long("json") => json = true,
            Arg::Long("seal") => level = Some(parse_level(&mut parser)?),
            Arg::Value(value) if program.is_none() => program = Some(value),
            argument => return Err(text(argument.unexpected())),
        }
    }
    let program = program.ok_or("plan: which program?")?;
    Ok(Command::Plan(PlanArguments { json, level, program }))
}

fn parse_report(mut parser: Parser) -> Result<Command, String> {
    let mut arguments: Vec<OsString> = parser.raw_args().map_err(text)?.collect();
    let program = arguments.iter().position(|argument| argument == "--").map(|at| {
        let program = arguments.split_off(at + 1);
        arguments.truncate(at);
        program.into_iter()
    });
    let mut parser = Parser::from_args(arguments);
    let (mut json, mut level, mut pid, mut require) = (false, None, None, None);
    let (mut blame, mut output) = (false, None);
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_REPORT)),
            Arg::Long("json") => json = true,
            Arg::Long("blame") => blame = true,
            Arg::Long("output") => output = Some(parser.value().map_err(text)?),
            Arg::Long("require") => require = Some(parse_requirement(&mut parser)?),
            Arg::Long("seal") if program.is_some() => level = Some(parse_level(&mut parser)?),
            Arg::Long("seal") => {
                return Err("report: --seal is for a program to start: report --seal LEVEL -- PROGRAM".into())
            }
            Arg::Value(value) if program.is_none() && pid.is_none() => pid = Some(parse_pid(&value)?),
            argument => return Err(text(argument.unexpected())),
        }
    }
    if blame && program.is_none() {
        return Err("report: --blame is for a program to start: report --blame -- PROGRAM".into());
    }
    if blame && require.is_some() || !blame && output.is_some() {
        let wrong = if blame { "--blame and --require exclude each other" } else { "--output goes with --blame" };
        return Err(format!("report: {wrong}"));
    }
    let of = match (pid, program) {
        (Some(pid), None) => ReportOf::Process(pid),
        (None, Some(mut program)) => {
            let name = program.next().ok_or("report: which program?")?;
            let start = RunArguments { level, program: name, arguments: program.collect() };
            match blame {
                true => ReportOf::Blame(BlameArguments { json, output, start }),
                false => ReportOf::Program(start),
            }
        }
        _ => return Err("report: which process?".into()),
    };
    Ok(Command::Report(ReportArguments { json, require, of }))
}

fn parse_mark(mut parser: Parser) -> Result<Command, String> {
    let (mut wish, mut files) = (None, Vec::new());
    while let Some(argument) = parser.next().map_err(text)? {
        let wanted = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_MARK)),
            Arg::Long("no-seal") => MarkWish::NoSeal,
            Arg::Long("clear") => MarkWish::Clear,
            Arg::Long("show") => MarkWish::Show,
            Arg::Value(file) => {
                files.push(file);
                continue;
            }
            argument => return Err(text(argument.unexpected())),
        };
        if wish.replace(wanted).is_some_and(|before| before != wanted) {
            return Err("mark: only one of --no-seal, --clear and --show".into());
        }
    }
    let wish = wish.ok_or("mark: --no-seal, --clear or --show?")?;
    if files.is_empty() {
        return Err("mark: which file?".into());
    }
    Ok(Command::Mark(MarkArguments { wish, files }))
}

fn parse_level(parser: &mut Parser) -> Result<SealLevel, String> {
    let value = parser.value().map_err(text)?;
    match value.to_str() {
        Some("0") => Ok(SealLevel::Off),
        Some("1") => Ok(SealLevel::BestEffort),
        Some("2") => Ok(SealLevel::Enforced),
        _ => Err(format!("--seal: {} is not a level (0, 1 or 2)", value.to_string_lossy())),
    }
}

fn parse_requirement(parser: &mut Parser) -> Result<Requirement, String> {
    let value = parser.value().map_err(text)?;
    match value.to_str() {
        Some("all") => Ok(Requirement::All),
        Some("code") => Ok(Requirement::Code),
        Some("relro") => Ok(Requirement::Relro),
        _ => Err(format!("--require: {} is none of all, code and relro", value.to_string_lossy())),
    }
}

fn parse_pid(value: &OsStr) -> Result<u32, String> {
    let pid =
        value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    pid.filter(|&pid| pid > 0).ok_or_else(|| {
        let value = value.to_string_lossy();
        format!("report: {value} is not a process ID; for a program to start: report -- {value}")
    })
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

    fn run(level: Option<SealLevel>, program: &str, arguments: &[&str]) -> Result<Command, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Ok(Command::Run(RunArguments { level, program: program.into(), arguments }))
    }

    #[test]
    fn options_end_at_the_program() {
        assert_eq!(parsed(&["run", "ls", "--seal", "2", "-l"]), run(None, "ls", &["--seal", "2", "-l"]));
        assert_eq!(parsed(&["run", "--seal=2", "ls", "--help"]), run(Some(SealLevel::Enforced), "ls", &["--help"]));
        assert_eq!(
            parsed(&["run", "--seal", "0", "--", "--ls", "--", "-x"]),
            run(Some(SealLevel::Off), "--ls", &["--", "-x"])
        );
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
    fn reports_are_of_processes_or_programs() {
        let process =
            |json, pid| Ok(Command::Report(ReportArguments { json, require: None, of: ReportOf::Process(pid) }));
        assert_eq!(parsed(&["report", "12"]), process(false, 12));
        assert_eq!(parsed(&["report", "12", "--json"]), process(true, 12));
        let Ok(Command::Run(expected)) = run(Some(SealLevel::Enforced), "12", &["--json", "--"]) else {
            unreachable!()
        };
        let expected = Ok(Command::Report(ReportArguments {
            json: false,
            require: Some(Requirement::Relro),
            of: ReportOf::Program(expected),
        }));
        assert_eq!(parsed(&["report", "--seal=2", "--require", "relro", "--", "12", "--json", "--"]), expected);
        for wrong in [
            &["report"][..],
            &["report", "--"],
            &["report", "ls"],
            &["report", "0"],
            &["report", "+1"],
            &["report", "-1"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [
            &["report", "1", "--", "ls"][..],
            &["report", "1", "2"],
            &["report", "--require", "x", "1"],
            &["report", "--seal=1", "1"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn blame_is_of_programs() {
        let Ok(Command::Run(start)) = run(Some(SealLevel::Enforced), "ls", &["--blame"]) else { unreachable!() };
        let expected = BlameArguments { json: true, output: Some("x".into()), start };
        let line = ["report", "--blame", "--json", "--output", "x", "--seal=2", "--", "ls", "--blame"];
        let of = ReportOf::Blame(expected);
        assert_eq!(parsed(&line), Ok(Command::Report(ReportArguments { json: true, require: None, of })));
        for wrong in [
            &["report", "--blame"][..],
            &["report", "--blame", "1"],
            &["report", "--blame", "--"],
            &["report", "--blame", "--require", "all", "--", "ls"],
            &["report", "--output", "x", "--", "ls"],
            &["report", "--blame", "--output"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn plans() {
        let plan = |json, level| Ok(Command::Plan(PlanArguments { json, level, program: "ls".into() }));
        assert_eq!(parsed(&["plan", "ls"]), plan(false, None));
        assert_eq!(parsed(&["plan", "--json", "--seal=2", "--", "ls"]), plan(true, Some(SealLevel::Enforced)));
        assert_eq!(parsed(&["plan", "ls", "--json"]), plan(true, None));
        for wrong in [&["plan"][..], &["plan", "--seal", "3", "ls"], &["plan", "ls", "-l"], &["plan", "ls", "cat"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn marks() {
        let files = vec!["a".into(), "-b".into()];
        let expected = Ok(Command::Mark(MarkArguments { wish: MarkWish::NoSeal, files }));
        assert_eq!(parsed(&["mark", "--no-seal", "a", "--", "-b"]), expected);
        for wrong in [&["mark"][..], &["mark", "a"], &["mark", "--show"], &["mark", "--show", "--clear", "a"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
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
