//! Constructors and destructors of libraries that depend on each other at random run in the order in which the system's loader runs them, by
//! both of its algorithms: at the start, in dlopen, in dlclose, and at exit.

use conformance::loader::Start;
use conformance::process::{Ending, Outcome};
use conformance::{build, suite, Level, Loader, Way};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

const GRAPHS: u64 = 30;
const MOST_LIBRARIES: u64 = 10;

struct Bench {
    loader: Loader,
    cache: PathBuf,
    /// Where what graphs are linked from lies.
    parts: PathBuf,
}

/// Libraries `a`, `b`, `c` ... and a program.
struct Graph {
    libraries: Vec<Library>,
    /// What the program needs.
    needed: Vec<u64>,
    /// What it does, in its own notation (`fixtures/orders/main.c`).
    actions: Vec<String>,
}

struct Library {
    needed: Vec<u64>,
    /// Libraries that it refers to and does not need.
    references: Vec<u64>,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("orders: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("orders");
    let parts = suite::scratch(&cache, "parts")?;
    build_parts(&parts)?;
    let bench = Arc::new(Bench { loader, cache, parts });
    let trial = |seed| {
        let bench = Arc::clone(&bench);
        Trial::test(format!("graph {seed}"), move || Ok(bench.check(seed)?))
    };
    let both = Arc::clone(&bench);
    let differ = Trial::test("the algorithms differ", move || Ok(both.algorithms_differ()?));
    Ok((0..GRAPHS).map(trial).chain([differ]).collect())
}

fn build_parts(parts: &Path) -> Result<(), String> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/orders"));
    build::compile(parts, "main.o", &sources.join("main.c"), &["-c"])?;
    for number in 0..MOST_LIBRARIES {
        for (prefix, meaning) in [("library", "NUMBER"), ("reference", "REFERENCE")] {
            let out = format!("{prefix}{number}.o");
            build::compile(
                parts,
                &out,
                &sources.join("library.c"),
                &["-c", "-fPIC", &format!("-D{meaning}={number}")],
            )?;
        }
        // What others are linked with before it is there: dependencies go round in circles.
        let (file, part) = (file(number), format!("library{number}.o"));
        link(parts, Command::new("ld").args(["-shared", "-soname", &file, "-o", &file, &part]))?;
    }
    Ok(())
}

fn file(library: u64) -> String {
    format!("lib{}.so", letter(library))
}

fn letter(library: u64) -> char {
    char::from(b'a' + library as u8)
}

fn link(folder: &Path, command: &mut Command) -> Result<(), String> {
    let output = command.current_dir(folder).output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// xorshift64*: the same graphs everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }

    /// Less than `most` of the numbers below `limit`, each once, in any order.
    fn some(&mut self, most: u64, limit: u64) -> Vec<u64> {
        let mut chosen = Vec::new();
        for _ in 0..self.below(most) {
            let number = self.below(limit);
            if !chosen.contains(&number) {
                chosen.push(number);
            }
        }
        chosen
    }
}

impl Graph {
    fn new(seed: u64) -> Graph {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1) << 17);
        let count = 6 + random.below(MOST_LIBRARIES - 5);
        let in_circles = !seed.is_multiple_of(3);
        let mut libraries: Vec<Library> = Vec::new();
        for number in 0..count {
            let [mut needed, mut references] = [random.some(4, count), random.some(3, count)];
            needed.retain(|other| *other != number && (in_circles || (*other ^ 5) > (number ^ 5)));
            references.retain(|other| *other != number && !needed.contains(other));
            libraries.push(Library { needed, references });
        }
        let needed = random.some(4, count);
        let (mut actions, mut open) = (Vec::new(), Vec::new());
        for _ in 0..6 + random.below(8) {
            if !open.is_empty() && random.below(3) == 0 {
                let closed: u64 = open.swap_remove(random.below(open.len() as u64) as usize);
                actions.push(format!("c{}", letter(closed)));
            } else {
                let opened = random.below(count);
                open.push(opened);
                actions.push(format!("{}{}", if random.below(2) == 0 { 'l' } else { 'g' }, letter(opened)));
            }
        }
        Graph { libraries, needed, actions }
    }

    fn build(&self, parts: &Path, tree: &Path) -> Result<(), String> {
        let part = |name: String| parts.join(name);
        let all = |needed: &[u64]| needed.iter().map(|n| part(file(*n))).collect::<Vec<_>>();
        for (number, library) in (0..).zip(&self.libraries) {
            let mut command = Command::new("ld");
            command.args(["-shared", "--hash-style=gnu", "-z", "lazy", "-rpath", "$ORIGIN", "--no-as-needed"]);
            command.args(["-soname", &file(number), "-o", &file(number)]).arg(part(format!("library{number}.o")));
            command.args(library.references.iter().map(|n| part(format!("reference{n}.o"))));
            link(tree, command.args(all(&library.needed)))?;
        }
        let mut command = Command::new("cc");
        command.args(["-o", "main", "-Wl,-rpath,$ORIGIN,--no-as-needed"]).arg(part("main.o".to_string()));
        link(tree, command.args(all(&self.needed)))
    }

    /// What it consists of, for a message.
    fn told(&self) -> String {
        let letters = |numbers: &[u64]| numbers.iter().map(|n| letter(*n)).collect::<String>();
        let libraries = (0..).zip(&self.libraries);
        let each =
            libraries.map(|(n, l)| format!("{}: {} ({})", letter(n), letters(&l.needed), letters(&l.references)));
        let program = format!("program: {}, {}", letters(&self.needed), self.actions.join(" "));
        format!("{program}\n{}", each.collect::<Vec<_>>().join("\n"))
    }
}

impl Bench {
    fn start(&self, graph: &Graph, tree: &Path, algorithm: u32) -> Start {
        let mut start = Start::new(tree.join("main"), tree);
        start.args.clone_from(&graph.actions);
        start.env.insert("GLIBC_TUNABLES".to_string(), format!("glibc.rtld.dynamic_sort={algorithm}"));
        start
    }

    fn built(&self, name: &str, seed: u64) -> Result<(Graph, PathBuf), String> {
        let tree = suite::scratch(&self.cache, name)?;
        let graph = Graph::new(seed);
        graph.build(&self.parts, &tree)?;
        Ok((graph, tree))
    }

    fn check(&self, seed: u64) -> Result<(), String> {
        let (graph, tree) = self.built(&format!("graph-{seed}"), seed)?;
        let level = Level((seed % 3) as u8);
        for algorithm in [1, 2] {
            let start = self.start(&graph, &tree, algorithm);
            let theirs = start.reference(Way::Invoke, level).map_err(|e| e.to_string())?;
            let ours = start.tested(&self.loader, Way::Invoke, level).map_err(|e| e.to_string())?;
            if [&theirs, &ours].map(|outcome| &outcome.ending) != [&Ending::Exit(0); 2]
                || shown(&ours) != shown(&theirs)
            {
                let outcomes = format!("{}: {}\nthe system's: {}", ours.ending, shown(&ours), shown(&theirs));
                return Err(format!("{}\nalgorithm {algorithm}\n{outcomes}", graph.told()));
            }
        }
        Ok(())
    }

    /// Whether the graphs tell the two algorithms apart at all.
    fn algorithms_differ(&self) -> Result<(), String> {
        let mut differing = 0;
        for seed in 0..GRAPHS {
            let (graph, tree) = self.built(&format!("both-{seed}"), seed)?;
            let outcomes = [1, 2].map(|a| self.start(&graph, &tree, a).reference(Way::Invoke, Level(0)));
            let [first, second] = outcomes.map(|outcome| outcome.map(|o| shown(&o)).map_err(|e| e.to_string()));
            differing += u64::from(first? != second?);
        }
        match differing >= GRAPHS / 4 {
            true => Ok(()),
            false => Err(format!("only {differing} graphs")),
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stdout).replace('\n', " ")
}
