//! A profile in figures: who the processors worked for, and on what.

use std::{collections::BTreeMap, fmt};

use super::stacks::Stack;

/// So many functions are listed, and so many of everything else.
const FUNCTIONS: usize = 15;
const OTHERS: usize = 10;
/// A name that has less than one sample of so many is left out.
const LEAST: u64 = 1000;

/// What is in the names of the C library's allocator.
const ALLOCATOR: [&str; 6] = ["malloc", "calloc", "realloc", "cfree", "_int_free", "unlink_chunk"];

/// Samples of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    name: String,
    samples: u64,
    /// Those in the kernel.
    kernel: u64,
}

/// What a profile comes to.
#[derive(Debug)]
pub(super) struct Summary {
    all: Line,
    processes: Vec<Line>,
    /// Of agents, sidecars or relays, from here on; of everything where there are none.
    mesh: Line,
    functions: Vec<Line>,
    /// Of what ran in the kernel, by what it was entered for.
    entries: Vec<Line>,
    /// Of what ran outside of the kernel, by crate or library.
    crates: Vec<Line>,
}

impl Summary {
    /// Of these stacks; `mesh` are the names of the mesh's processes.
    pub(super) fn new(stacks: &[Stack], mesh: &[&str]) -> Self {
        let of_mesh: Vec<&Stack> = stacks
            .iter()
            .filter(|stack| mesh.is_empty() || mesh.contains(&stack.process.as_str()))
            .collect();
        let everything: Vec<&Stack> = stacks.iter().collect();
        let user: Vec<&Stack> =
            of_mesh.iter().copied().filter(|stack| !stack.in_kernel()).collect();
        Self {
            all: sum(&everything),
            processes: lines(&everything, OTHERS, |stack| Some(&stack.process)),
            mesh: sum(&of_mesh),
            functions: lines(&of_mesh, FUNCTIONS, |stack| Some(stack.leaf())),
            entries: lines(&of_mesh, OTHERS, |stack| stack.entry().filter(|_| stack.in_kernel())),
            crates: lines(&user, OTHERS, |stack| Some(crate_of(stack.leaf()))),
        }
    }

    /// Samples of everything.
    pub(super) fn samples(&self) -> u64 {
        self.all.samples
    }
}

/// The most frequent names, with how often they were seen.
fn lines<'a>(
    stacks: &[&'a Stack],
    most: usize,
    name: impl Fn(&'a Stack) -> Option<&'a str>,
) -> Vec<Line> {
    let mut by_name: BTreeMap<&str, Vec<&Stack>> = BTreeMap::new();
    for stack in stacks {
        if let Some(name) = name(stack) {
            by_name.entry(name).or_default().push(stack);
        }
    }
    let line = |(name, stacks): (&str, Vec<&Stack>)| Line { name: name.to_owned(), ..sum(&stacks) };
    let mut lines: Vec<Line> = by_name.into_iter().map(line).collect();
    let all = sum(stacks).samples;
    lines.retain(|line| line.samples * LEAST >= all);
    lines.sort_by_key(|line| std::cmp::Reverse(line.samples));
    lines.truncate(most);
    lines
}

fn sum(stacks: &[&Stack]) -> Line {
    let samples = stacks.iter().map(|stack| stack.samples).sum();
    let kernel = stacks.iter().filter(|stack| stack.in_kernel()).map(|stack| stack.samples).sum();
    Line { name: String::new(), samples, kernel }
}

/// The crate of a function: `<&h2::X as core::Y>::f` is of `h2`. Those of C that belong together go by one
/// name, others by their own.
fn crate_of(function: &str) -> &str {
    let Some((path, _)) = function.split_once("::") else {
        return match function {
            _ if function.starts_with("aws_lc_") => "aws-lc",
            _ if ALLOCATOR.iter().any(|part| function.contains(part)) => "malloc and free",
            _ => function,
        };
    };
    let from = path.rfind(|c: char| !(c.is_alphanumeric() || c == '_'));
    let name = from.map_or(path, |from| &path[from + 1..]);
    if name.is_empty() { function } else { name }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, mesh) = (self.all.samples, self.mesh.samples);
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        writeln!(f, "    {:<30} of all  in the kernel, of its own", "process")?;
        let whole = Line { name: "all".to_owned(), ..self.all.clone() };
        let agents = Line { name: "the mesh".to_owned(), ..self.mesh.clone() };
        for line in self.processes.iter().chain((mesh < all).then_some(&agents)).chain([&whole]) {
            let Line { name, samples, kernel } = line;
            let (share, kernel) = (percent(*samples, all), percent(*kernel, *samples));
            writeln!(f, "    {name:<30} {share:5.1}%  {kernel:5.1}%")?;
        }
        let what = if mesh < all { "the mesh" } else { "everything" };
        for (title, lines) in [
            ("functions by their own time", &self.functions),
            ("in the kernel, by system call or interrupt", &self.entries),
            ("outside of the kernel, by crate or function", &self.crates),
        ] {
            writeln!(f, "    {title}, of {what}")?;
            for line in lines {
                let mark = if line.kernel > 0 { "kernel" } else { "" };
                let share = percent(line.samples, mesh);
                writeln!(f, "    {share:5.1}% {mark:<7}{}", line.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stacks, *};

    const FOLDED: &str = "\
data-17;run;do_syscall_64_[k];do_writev_[k];tcp_sendmsg_[k];memcpy_[k] 30
data-17;run;do_syscall_64_[k];__x64_sys_futex_[k];memcpy_[k] 10
data-17;run;<&h2::Frame as core::fmt::Debug>::fmt 15
data-17;run;h2::send 5
data-17;run;malloc 10
wrk-18;main 20
wrk-18;main;__x64_sys_read_[k] 10
";

    #[test]
    fn shares_are_of_the_mesh_and_of_everything() {
        let stacks = stacks::read(FOLDED, &[(17, "agent")]).unwrap();
        let summary = Summary::new(&stacks, &["agent"]);
        let line = |name: &str, samples, kernel| Line { name: name.to_owned(), samples, kernel };
        assert_eq!(summary.samples(), 100);
        assert_eq!(summary.processes, [line("agent", 70, 40), line("wrk", 30, 10)]);
        assert_eq!(summary.mesh, line("", 70, 40));
        assert_eq!(summary.functions[0], line("memcpy", 40, 40));
        assert_eq!(summary.functions.len(), 4);
        assert_eq!(summary.entries, [line("writev", 30, 30), line("futex", 10, 10)]);
        assert_eq!(summary.crates, [line("h2", 20, 0), line("malloc and free", 10, 0)]);
        let text = summary.to_string();
        for shown in [
            "agent                           70.0%   57.1%\n",
            "all                            100.0%   50.0%\n",
            "    57.1% kernel memcpy\n",
            "    28.6%        h2\n",
        ] {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
    }

    #[test]
    fn without_a_mesh_everything_is_looked_at() {
        let summary = Summary::new(&stacks::read("wrk-18;main 20\n", &[]).unwrap(), &[]);
        assert_eq!(summary.functions[0].name, "main");
        assert!(summary.to_string().contains("of everything"));
        assert!(!summary.to_string().contains("the mesh"));
    }

    #[test]
    fn a_function_is_of_the_crate_of_its_type_or_of_the_library_in_c() {
        for (function, name) in [
            ("tokio::runtime::task::poll", "tokio"),
            ("<alloc::vec::Vec<T> as core::ops::Drop>::drop", "alloc"),
            ("<&mut h2::X as core::Y>::f", "h2"),
            ("core::ptr::drop_in_place<rustls::Z>", "core"),
            ("aws_lc_0_1_0_aes_gcm_encrypt", "aws-lc"),
            ("_int_malloc", "malloc and free"),
            ("cfree@GLIBC_2.2.5", "malloc and free"),
            ("memmove", "memmove"),
            ("::odd", "::odd"),
        ] {
            assert_eq!(crate_of(function), name);
        }
    }
}
