//! Checking a case: it is built, started under both loaders in each way and at each level, and what differs is collected.

use crate::compare::{self, Normaliser};
use crate::hostile::{judge, Freedom};
use crate::loader::{Level, Loader, Start, Way, SYSTEM};
use crate::manifest::{Case, Object, Run};
use crate::process::{Ending, Outcome};
use crate::verdict::{Difference, Observation, Verdict};
use crate::{bindings, build, interp, remains, requirement};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What cases are checked with.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The loader that is right.
    pub reference: Loader,
    /// The loader under test.
    pub tested: Loader,
    /// The seal levels at which the loader under test is tried.
    pub levels: Vec<Level>,
    /// Where things are built.
    pub cache: PathBuf,
    /// Whether the loader under test is a build of `ld-seal.so`.
    pub seals: bool,
}

impl Bench {
    /// A bench with these loaders, levels and folder.
    pub fn new(reference: Loader, tested: Loader, levels: &[Level], cache: PathBuf) -> Bench {
        let seals = tested.seals();
        Bench { reference, tested, levels: levels.to_vec(), cache, seals }
    }
}

/// A case, and what is built from it.
pub struct Checked {
    case: Case,
    bench: Arc<Bench>,
    trees: OnceLock<Result<Trees, String>>,
}

/// The built tree, and its copies whose executables name the loaders as their interpreters.
struct Trees {
    built: PathBuf,
    reference: PathBuf,
    tested: PathBuf,
}

/// A run in one way at one level, with the starts that compare it.
struct Trial<'t> {
    run: &'t Run,
    way: Way,
    level: Level,
    reference: Start,
    tested: Start,
    normaliser: Normaliser,
    /// The names of the case's files that were made of descriptions.
    objects: Vec<&'t str>,
}

impl Checked {
    /// A case that is to be checked.
    pub fn new(case: Case, bench: Arc<Bench>) -> Checked {
        Checked { case, bench, trees: OnceLock::new() }
    }

    /// The ways into the loader that the case uses.
    pub fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        Way::ALL.into_iter().filter(|way| self.runs(*way).next().is_some())
    }

    fn runs(&self, way: Way) -> impl Iterator<Item = &Run> {
        self.case.manifest.runs.iter().filter(move |r| r.ways.iter().any(|w| w == way.word()))
    }

    /// All its runs that go this way.
    pub fn check(&self, way: Way) -> Verdict {
        if let Some(reason) = requirement::missing(&self.case).or_else(|| self.bench.tested.missing(way)) {
            return Verdict::Skipped(reason);
        }
        let trees = match self.trees.get_or_init(|| self.build()) {
            Ok(trees) => trees,
            Err(reason) => return Verdict::Broken(reason.clone()),
        };
        let mut differences = Vec::new();
        for run in self.runs(way) {
            let levels = run.levels.iter().map(|&l| Level(l)).filter(|l| self.bench.levels.contains(l));
            for level in levels {
                match self.trial(trees, run, way, level).differences(&self.bench) {
                    Ok(found) => differences.extend(found),
                    Err(reason) => return Verdict::Broken(format!("{} {way} {level}: {reason}", run.name)),
                }
            }
        }
        match differences.is_empty() {
            true => Verdict::Agrees,
            false => Verdict::Differs(differences),
        }
    }

    fn build(&self) -> Result<Trees, String> {
        let built = build::tree(&self.case, &self.bench.cache)?;
        let named = |loader: &Loader| {
            if loader.is_system() {
                return Ok(built.clone());
            }
            // Named by the interpreter's path, so that several loaders can share a cache.
            let path = loader.interpreter.to_string_lossy();
            let hash = path.bytes().fold(0u64, |h, b| h.wrapping_mul(31) + u64::from(b));
            let copy = built.with_file_name(format!("interp-{hash:016x}"));
            match interp::replaced_tree(&built, &copy, &loader.interpreter) {
                Ok(()) => Ok(copy),
                Err(e) => Err(format!("{}: {e}", copy.display())),
            }
        };
        Ok(Trees { reference: named(&self.bench.reference)?, tested: named(&self.bench.tested)?, built })
    }

    fn trial<'t>(&'t self, trees: &Trees, run: &'t Run, way: Way, level: Level) -> Trial<'t> {
        // Directly invoked, both loaders are given the same files. Only where there is no launcher must the file itself
        // name the loader.
        let tree = |loader: &Loader, copy: &PathBuf| match (way, &loader.launcher) {
            (Way::Interp, _) | (Way::Run, None) => copy.clone(),
            (Way::Invoke, _) | (Way::Run, Some(_)) => trees.built.clone(),
        };
        let reference = self.start(run, &tree(&self.bench.reference, &trees.reference));
        let tested = self.start(run, &tree(&self.bench.tested, &trees.tested));
        let name = |out: &'t String| out.rsplit('/').next().unwrap_or(out);
        // A refusal names the file that is not as a linker writes it.
        let written = |o: &&'t Object| o.description().is_some();
        let objects = self.case.manifest.objects.iter().filter(written).map(|o| name(&o.out)).collect();
        Trial { run, way, level, reference, tested, normaliser: self.normaliser(run, trees), objects }
    }

    fn start(&self, run: &Run, tree: &Path) -> Start {
        let text = |t: &String| t.replace("{tree}", &tree.to_string_lossy());
        let mut start = Start::new(text(&run.program), tree);
        start.options = run.options.iter().map(text).collect();
        start.args = run.args.iter().map(text).collect();
        start.env.extend(run.env.iter().map(|(name, value)| (name.clone(), text(value))));
        start.wrapper = run.wrapper.iter().map(text).collect();
        start.stdin = run.stdin.clone().into_bytes();
        start.limit = Duration::from_secs(self.case.manifest.timeout);
        start
    }

    fn normaliser(&self, run: &Run, trees: &Trees) -> Normaliser {
        let has = |words: &[String], word: &str| words.iter().any(|w| w == word);
        let mut replacements = Vec::new();
        for folder in [&trees.built, &trees.reference, &trees.tested] {
            replacements.push((folder.to_string_lossy().into_owned(), "{tree}"));
        }
        if has(&run.normalise, "loader") {
            for loader in [&self.bench.tested, &self.bench.reference] {
                replacements.push((loader.interpreter.to_string_lossy().into_owned(), "{loader}"));
            }
            replacements.push((SYSTEM.to_string(), "{loader}"));
            // A loader in a place of its own is listed with the name that programs have for it.
            replacements.push(("{loader} => {loader}".to_string(), "{loader}"));
        }
        Normaliser {
            replacements,
            addresses: has(&run.normalise, "addresses"),
            pids: has(&run.normalise, "pids"),
            order: has(&run.normalise, "order"),
            ignore_stdout: has(&run.ignore, "stdout"),
            ignore_stderr: has(&run.ignore, "stderr"),
        }
    }
}

impl Trial<'_> {
    /// What differs; or why the run shows nothing.
    fn differences(&self, bench: &Bench) -> Result<Vec<Difference>, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.run.program);
        let expected = self.reference.under(&bench.reference, self.way, self.level).map_err(failed)?;
        if let Some(complaint) = unexpected(self.run, &expected) {
            return Err(format!("under the reference:\n{complaint}"));
        }
        let mut differences = Vec::new();
        for repetition in 1..=self.run.repeat {
            let got = self.tested.under(&bench.tested, self.way, self.level).map_err(failed)?;
            match self.on_its_own(bench, &expected, &got) {
                Some(Ok(())) => continue,
                Some(Err(observation)) => {
                    differences.extend(self.difference(bench, repetition, vec![observation]));
                    return Ok(differences);
                }
                None => {}
            }
            let apply = |outcome| self.normaliser.apply(outcome);
            let mut observations = compare::observations(&apply(&expected), &apply(&got));
            if let (false, Some(said)) = (observations.is_empty(), ignored_stderr(self.run, &expected, &got)) {
                observations.push(said);
            }
            differences.extend(self.difference(bench, repetition, observations));
            if !differences.is_empty() {
                return Ok(differences);
            }
        }
        if self.can_be_watched() && Some(&self.level) == bench.levels.get(bench.levels.len() / 2) {
            let bound = self.difference(bench, 1, self.bindings(bench).map_err(failed)?);
            differences
                .extend(bound.map(|d| Difference { commands: self.commands(bench, &bindings::VARIABLES, &[]), ..d }));
            let left = self.difference(bench, 1, self.remains(bench).map_err(failed)?);
            differences
                .extend(left.map(|d| Difference { commands: self.commands(bench, &[], remains::watched(&d)), ..d }));
        }
        Ok(differences)
    }

    fn difference(&self, bench: &Bench, repetition: u32, observations: Vec<Observation>) -> Option<Difference> {
        (!observations.is_empty()).then(|| Difference {
            run: self.run.name.clone(),
            way: self.way,
            level: self.level,
            start: (repetition, self.run.repeat),
            observations,
            commands: self.commands(bench, &[], &[]),
        })
    }

    /// The shell commands that show the two sides, with these variables and under this command.
    fn commands(&self, bench: &Bench, variables: &[(&str, &str)], wrapper: &[&str]) -> [String; 2] {
        [(&self.reference, &bench.reference), (&self.tested, &bench.tested)].map(|(start, loader)| {
            let mut start = start.clone();
            start.env.extend(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            start.wrapper.extend(wrapper.iter().map(|word| word.to_string()));
            start.by_hand(loader, self.way, self.level)
        })
    }

    /// Of a malformed file: whether what the loader under test did is lawful although it is not what the reference did; nothing where
    /// the two are to be compared.
    fn on_its_own(&self, bench: &Bench, expected: &Outcome, got: &Outcome) -> Option<Result<(), Observation>> {
        let Run { malformed, freedom, .. } = self.run;
        let crashed = judge::is_crash(expected);
        let refused = judge::is_refusal(got, &self.objects);
        let may_refuse = match expected {
            _ if crashed => true,
            _ if judge::is_refusal(expected, &self.objects) => *freedom >= Freedom::Words,
            _ => *freedom >= Freedom::Refuse,
        };
        let accepted = got.ending == Ending::Exit(0) && *freedom >= Freedom::Accept;
        // A loader that is no better than the reference may crash as it does.
        let alike = crashed && !bench.seals && expected.ending == got.ending;
        match *malformed && ((may_refuse && refused) || accepted || alike) {
            true => Some(Ok(())),
            false if *malformed && crashed => Some(Err(Observation {
                aspect: "refused",
                reference: format!("crashes: {}\n{}", expected.ending, String::from_utf8_lossy(&expected.stderr)),
                tested: format!("does not refuse: {}\n{}", got.ending, String::from_utf8_lossy(&got.stderr)),
            })),
            false => None,
        }
    }

    /// Whether further runs, with messages or traced, would be the same: not where the case itself is about messages or other programs.
    fn can_be_watched(&self) -> bool {
        let Run { env, status, signal, wrapper, options, malformed, .. } = self.run;
        self.way == Way::Interp
            && (*status, *signal) == (0, None)
            && !malformed
            && wrapper.is_empty()
            && options.is_empty()
            && !env.keys().any(|name| name.starts_with("LD_DEBUG") || name.starts_with("LD_TRACE"))
    }

    /// What differs of mappings and open descriptors when the program ends.
    fn remains(&self, bench: &Bench) -> std::io::Result<Vec<Observation>> {
        let is_ignored = |aspect: &str| self.run.ignore.iter().any(|i| i == aspect);
        if !self.run.stdin.is_empty() || (is_ignored("pages") && is_ignored("descriptors")) {
            return Ok(Vec::new());
        }
        let Some(reference) = remains::observe(&self.reference, &bench.reference, self.way, self.level)? else {
            return Ok(Vec::new());
        };
        let tested = remains::observe(&self.tested, &bench.tested, self.way, self.level)?.unwrap_or_default();
        let text = |lines: &[String]| self.normaliser.text(&lines.iter().map(|l| format!("{l}\n")).collect::<String>());
        let aspects = [
            ("pages", text(&reference.pages), text(&tested.pages)),
            ("descriptors", text(&reference.descriptors), text(&tested.descriptors)),
        ];
        let differing = aspects.into_iter().filter(|(aspect, one, other)| one != other && !is_ignored(aspect));
        Ok(differing.map(|(aspect, reference, tested)| Observation { aspect, reference, tested }).collect())
    }

    fn bindings(&self, bench: &Bench) -> std::io::Result<Vec<Observation>> {
        let observe = |start: &Start, loader: &Loader| -> std::io::Result<Option<BTreeSet<String>>> {
            let scratch = start.directory.with_extension("bindings");
            let bindings = bindings::observe(start, loader, self.way, self.level, &scratch)?;
            Ok(bindings.map(|set| set.iter().map(|b| self.normaliser.text(&b.to_string())).collect()))
        };
        if self.run.ignore.iter().any(|i| i == "bindings") {
            return Ok(Vec::new());
        }
        let Some(reference) = observe(&self.reference, &bench.reference)? else { return Ok(Vec::new()) };
        let tested = observe(&self.tested, &bench.tested)?.unwrap_or_default();
        let differ = reference != tested;
        let only = |one: &BTreeSet<String>, other| one.difference(other).map(|line| format!("{line}\n")).collect();
        let observation =
            Observation { aspect: "bindings", reference: only(&reference, &tested), tested: only(&tested, &reference) };
        Ok(differ.then_some(observation).into_iter().collect())
    }
}

/// A stderr that doesn't count still often says why a run ended differently.
fn ignored_stderr(run: &Run, expected: &Outcome, got: &Outcome) -> Option<Observation> {
    let text = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
    (run.ignore.iter().any(|i| i == "stderr") && !got.stderr.is_empty()).then(|| Observation {
        aspect: "stderr (which does not count)",
        reference: text(&expected.stderr),
        tested: text(&got.stderr),
    })
}

/// What the manifest expects of the system's loader and is not so: then the fixture shows nothing.
fn unexpected(run: &Run, outcome: &Outcome) -> Option<String> {
    let ending = run.signal.map_or(Ending::Exit(run.status), Ending::Signal);
    let contains = |stream: &[u8], text: &Option<String>| {
        text.as_ref().is_none_or(|t| String::from_utf8_lossy(stream).contains(t.as_str()))
    };
    let met =
        outcome.ending == ending && contains(&outcome.stdout, &run.stdout) && contains(&outcome.stderr, &run.stderr);
    (!met).then(|| {
        let text = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
        let (stdout, stderr) = (text(&outcome.stdout), text(&outcome.stderr));
        format!(
            "  the manifest expects {ending} and certain texts, got {}\n  stdout: {stdout}\n  stderr: {stderr}\n",
            outcome.ending
        )
    })
}
