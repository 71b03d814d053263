//! What `ldseal` decides by itself: which file runs, what is refused and in which words, and what `report` sees.
//!
//! A direct start by the kernel and execvp(3) is the specification; where both succeed, their output is compared.

mod blame;
mod mark;
mod refusals;
mod report;
mod slots;
mod starts;
mod statics;
mod stays;
mod support;

use conformance::suite;
use libtest_mimic::Trial;
use std::path::Path;
use std::process::ExitCode;
use support::{folder, Outcome};

fn main() -> ExitCode {
    suite::prepare();
    type Test = fn(&Path) -> Outcome;
    let tests: [(&'static str, Test); 56] = [
        ("usage errors are status 2", refusals::usage),
        ("help says that children are not sealed", refusals::help),
        ("a program that is not there is status 127", refusals::not_found),
        ("a program that may not be executed is status 126", refusals::not_executable),
        ("noexec mounts are honoured", refusals::noexec_mount),
        ("unreadable programs are refused", refusals::unreadable),
        ("other sorts of ELF file are refused by name", refusals::other_sorts),
        ("setuid programs are refused", refusals::setuid),
        ("setgid programs are refused", refusals::setgid),
        ("setuid programs run where the bit has no effect", refusals::setuid_without_effect),
        ("programs with capabilities are refused", refusals::capabilities),
        ("programs are searched for in PATH", starts::search),
        ("scripts run as the kernel runs them", starts::scripts),
        ("scripts nest as deep as the kernel allows", starts::nesting),
        ("broken scripts are status 126 or 127", starts::broken_scripts),
        ("the environment is untouched", starts::environment),
        ("names and arguments are those of a direct start", starts::names),
        ("signal dispositions and descriptors are those of a direct start", starts::inherited),
        ("exit statuses and signals come through", starts::statuses),
        ("a copied ldseal finds its interpreter", starts::copied),
        ("static programs of glibc are sealed", statics::glibc),
        ("static programs of musl are sealed", statics::musl),
        ("static programs of Go are sealed", statics::go),
        ("a static shell works", statics::busybox),
        ("static programs are planned and reported", statics::shown),
        ("mark: programs work as before", mark::programs),
        ("mark: libraries work as before", mark::libraries),
        ("mark: files", mark::files),
        ("report: the JSON is as described", report::shape),
        ("report: what is required", report::required),
        ("report: objects in anonymous memory", report::anonymous),
        ("report: what /etc/ld.so.preload names", report::preload_file),
        ("report: the kernel's own mappings", report::system),
        ("report: processes that may not be looked at", report::forbidden),
        ("report: a process that does not want to be looked at", report::undumpable),
        ("report: an ordinary process", report::ordinary),
        ("report: a sealed mapping", report::sealed),
        ("report: a program started for it", report::started),
        ("report: a program that runs", report::running),
        ("report: a library that stays and was left open", stays::nodelete),
        ("report: audit modules", stays::audit_modules),
        ("report: tunables are reasons", report::tunables),
        ("blame: the JSON is as described", blame::shape),
        ("blame: what is refused at each level", blame::levels),
        ("blame: each call", blame::calls),
        ("blame: who is to blame", blame::callers),
        ("blame: threads and children", blame::processes),
        ("blame: what no seal has refused", blame::innocent),
        ("blame: how programs end", blame::ends),
        ("blame: signals and job control", blame::signals),
        ("blame: remedies help", blame::remedies),
        ("blame: remedies help children", blame::remedies_of_children),
        ("blame: static programs", blame::statics),
        ("blame: an ordinary user", blame::ordinary_user),
        ("blame: V8's flags", blame::v8),
        ("pages of slots are read-only at level 2", slots::at_each_level),
    ];
    let trials =
        tests.into_iter().map(|(name, test)| Trial::ignorable_test(name, move || test(&folder(name)?))).collect();
    suite::run(trials)
}
