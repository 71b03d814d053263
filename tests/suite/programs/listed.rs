//! Programs with real work to do, at every level, many times in a row.

use crate::{cache, inputs};
use conformance::compare::{difference, Normaliser};
use conformance::loader::Start;
use conformance::process::Ending;
use conformance::{interp, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A command line. `{in}` is the folder of the inputs; each start has a fresh working directory.
struct Program {
    words: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    stdin: &'static str,
    status: i32,
    /// The ways that it works in under the system's loader: some programs find their parts by their own place.
    ways: &'static [Way],
}

const fn program(words: &'static [&'static str]) -> Program {
    Program { words, env: &[], stdin: "", status: 0, ways: &Way::ALL }
}

/// A program that looks for its parts where its file is: a copy with another interpreter would not find them.
const fn fixed(words: &'static [&'static str]) -> Program {
    Program { ways: &[Way::Invoke, Way::Run], ..program(words) }
}

static PROGRAMS: &[Program] = &[
    program(&["true"]),
    Program { status: 1, ..program(&["false"]) },
    program(&["ls", "-la", "/usr/bin"]),
    program(&["cat", "{in}/numbers"]),
    Program { stdin: "from stdin\n", ..program(&["cat"]) },
    program(&["sort", "-n", "{in}/numbers"]),
    program(&["sort", "--parallel=2", "-k3", "{in}/numbers"]),
    program(&["grep", "-P", "^(?=.*7)\\d+ line \\d{2} ", "{in}/numbers"]),
    program(&["sed", "-n", "s/line \\([0-9]*\\)/<\\1>/p", "{in}/numbers"]),
    program(&["awk", "{ s += $1 } END { printf \"%d %.3f\\n\", s, sqrt(s) }", "{in}/numbers"]),
    program(&["find", "/usr/share/doc", "-maxdepth", "1", "-newermt", "1980-01-01", "-name", "lib*"]),
    program(&["tar", "-tvf", "{in}/archive.tar"]),
    program(&["tar", "--sort=name", "--mtime=@0", "-C", "{in}", "-czf", "-", "tree"]),
    program(&["gzip", "-nc9", "{in}/numbers"]),
    program(&["gzip", "-dc", "{in}/numbers.gz"]),
    program(&["xz", "-c", "-T2", "{in}/numbers"]),
    program(&["xz", "-dc", "{in}/numbers.xz"]),
    program(&["bash", "{in}/script.sh", "a", "b c"]),
    program(&["sh", "-c", "echo $0 $((6 * 7)); cat </dev/null | wc -c"]),
    program(&[
        "perl",
        "-MList::Util=sum",
        "-MSocket",
        "-MPOSIX=floor",
        "-MData::Dumper",
        "-MDigest::SHA=sha1_hex",
        "-e",
        PERL,
    ]),
    program(&["/usr/bin/python3", "{in}/threads.py"]),
    program(&["/usr/bin/python3", "-c", "import sys; print(sys.argv, sys.flags.utf8_mode)", "x"]),
    Program { status: 1, ..program(&["/usr/bin/python3", "-c", "raise ValueError('on purpose')"]) },
    git(&["git", "-C", "{in}/repository", "log", "--stat"]),
    git(&["git", "-C", "{in}/repository", "fsck", "--full", "--strict"]),
    git(&["git", "-C", "{in}/repository", "grep", "-c", "5"]),
    fixed(&["gcc", "-O2", "-o", "program", "{in}/program.c", "-lm"]),
    fixed(&["g++", "-O1", "-o", "program", "{in}/program.cc"]),
    fixed(&["gcc", "-S", "-o", "-", "{in}/program.c"]),
    program(&["as", "-o", "/dev/null", "/dev/null"]),
    program(&["curl", "--version"]),
    program(&["curl", "-s", "file:///etc/hostname"]),
    program(&["openssl", "dgst", "-sha256", "{in}/numbers"]),
    program(&["openssl", "list", "-providers"]),
    program(&["gdb", "--version"]),
    program(&["gdb", "-nx", "-batch", "-ex", "python print(6 * 7)", "-ex", "show version"]),
    fixed(&["node", "-e", NODE]),
    // Its libraries are found by $ORIGIN, behind a symbolic link that `ld.so java` does not follow.
    Program { ways: &[Way::Run], ..program(&["java", "-version"]) },
    program(&["getent", "passwd", "root", "daemon", "nobody"]),
    program(&["getent", "group", "root"]),
    program(&["getent", "hosts", "127.0.0.1"]),
    Program { env: &[("LC_ALL", "C.UTF-8"), ("TZ", "Europe/Berlin")], ..program(&["date", "-d", "@0"]) },
    Program {
        env: &[("LC_ALL", "xx_YY.UTF-8"), ("TZ", "America/New_York")],
        ..program(&["date", "-d", "@1700000000"])
    },
    Program { stdin: "gr\u{fc}n\n", ..program(&["iconv", "-f", "UTF-8", "-t", "UTF-16LE"]) },
    Program { stdin: "gr\u{fc}n\n", ..program(&["iconv", "-f", "UTF-8", "-t", "ISO-8859-15"]) },
    Program { status: 1, stdin: "\u{20ac}\n", ..program(&["iconv", "-f", "UTF-8", "-t", "ISO-8859-1"]) },
    program(&["locale", "-a"]),
    program(&["id", "-u"]),
    program(&["env", "-i", "A=b", "env"]),
    program(&["perf", "--version"]),
    program(&["xmllint", "--version"]),
    program(&["sqlite3", ":memory:", "select 6 * 7"]),
    program(&["vim", "--version"]),
    program(&["ssh", "-V"]),
    program(&["stat", "-c", "%F", "/proc/self/fd"]),
];

const fn git(words: &'static [&'static str]) -> Program {
    Program {
        env: &[
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ],
        ..program(words)
    }
}

const PERL: &str =
    "print sum(1..10), ' ', floor(2.7), ' ', inet_ntoa(inet_aton('127.0.0.1')), ' ', sha1_hex('x'), qq{\\n}; \
                    local $Data::Dumper::Sortkeys = 1; print Dumper({a => [1, 2], b => undef});";

const NODE: &str = "const c = require('crypto'); console.log(process.argv.length, c.createHash('sha1').update('x').digest('hex')); \
                    Promise.resolve(1).then(() => console.log('later')); require('zlib').deflateSync('x'.repeat(100000)); \
                    new (require('worker_threads').Worker)('console.log(\"worker\")', { eval: true });";

/// How many starts in a row through the launcher at each level.
const REPETITIONS: u32 = 10;

/// A trial for each program and way.
pub fn trials(loader: &Loader) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (position, program) in PROGRAMS.iter().enumerate() {
        for &way in program.ways {
            let loader = loader.clone();
            let words: Vec<String> = program.words.iter().map(|w| shortened(w)).collect();
            let name = format!("listed {} {way}", words.join(" "));
            trials.push(Trial::ignorable_test(name, move || program.check(position, &loader, way)));
        }
    }
    trials
}

fn shortened(word: &str) -> String {
    match word.char_indices().nth(30) {
        Some((end, _)) => format!("{}...", &word[..end]).replace('\n', " "),
        None => word.to_string(),
    }
}

impl Program {
    fn check(&self, position: usize, loader: &Loader, way: Way) -> Result<Completion, Failed> {
        if let Some(reason) = requirement::unmet(self.words[0]).or_else(|| loader.missing(way)) {
            return Ok(Completion::ignored_with(reason));
        }
        let mut reference = self.start(position, way, "reference")?;
        let mut tested = self.start(position, way, "tested")?;
        if way != Way::Run {
            reference.program = requirement::find_command(self.words[0]).ok_or("it was there a moment ago")?;
            tested.program = reference.program.clone();
        }
        if way == Way::Interp {
            (reference.program, tested.program) = self.copies(position, &reference.program, &loader.interpreter)?;
        }
        let repetitions = if way == Way::Run { REPETITIONS } else { 1 };
        let normaliser = Normaliser {
            // Programs say their argv[0] and sometimes their working directory.
            replacements: [&reference, &tested].map(|s| (s.program.to_string_lossy().into_owned(), "{program}")).into(),
            ..Normaliser::default()
        };
        for level in Level::ALL {
            let expected = reference.reference(way, level)?;
            if expected.ending != Ending::Exit(self.status) {
                return Err(format!(
                    "under the system's loader: {}\n{}",
                    expected.ending,
                    String::from_utf8_lossy(&expected.stderr)
                )
                .into());
            }
            for repetition in 1..=repetitions {
                let got = tested.tested(loader, way, level)?;
                if let Some(difference) = difference(&normaliser.apply(&expected), &normaliser.apply(&got)) {
                    return Err(format!("{level}, start {repetition} of {repetitions}:\n{difference}").into());
                }
            }
        }
        Ok(Completion::Completed)
    }

    fn start(&self, position: usize, way: Way, side: &str) -> Result<Start, String> {
        let inputs = inputs::folder()?.to_string_lossy();
        let folder = suite::scratch(&cache(), &format!("{position}-{way}/{side}"))?;
        let mut start = Start::new(self.words[0], folder);
        start.args = self.words[1..].iter().map(|w| w.replace("{in}", &inputs)).collect();
        start.env.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into());
        start.env.insert("HOME".into(), "/nonexistent".into());
        start.env.extend(self.env.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        start.stdin = self.stdin.as_bytes().to_vec();
        start.limit = Duration::from_secs(120);
        Ok(start)
    }

    /// Two copies of `program`, one with the system's interpreter and one with `interpreter`.
    fn copies(&self, position: usize, program: &Path, interpreter: &Path) -> Result<(PathBuf, PathBuf), String> {
        let folder = suite::scratch(&cache(), &format!("{position}-copies"))?;
        let name = program.file_name().ok_or("a program without a name")?;
        let copy = |side: &str, interpreter: &Path| {
            let to = folder.join(side).join(name);
            std::fs::create_dir_all(folder.join(side))
                .and_then(|()| interp::replaced_copy(program, &to, interpreter))
                .map_err(|e| format!("{}: {e}", to.display()))?;
            Ok::<PathBuf, String>(to)
        };
        Ok((copy("reference", Path::new(conformance::loader::SYSTEM))?, copy("tested", interpreter)?))
    }
}
